"""Arguments of a constructor, kept under their names: to be read, set and cloned."""

from __future__ import annotations

import inspect
from typing import Any, Self


class Parameterized:
    """``get_params`` and ``set_params`` as scikit-learn means them, by the constructor's signature.

    The constructor keeps what it is given as attributes of the same names.
    """

    @classmethod
    def _defaults(cls):
        """The constructor's arguments and what they are by default."""
        signature = inspect.signature(cls).parameters.values()
        return {p.name: p.default for p in signature if p.kind is not p.VAR_KEYWORD}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, by name.

        Parameters
        ----------
        deep : bool, optional
            Those of arguments that have some of their own, too, as ``argument__name``.

        Returns
        -------
        dict
        """
        own = {name: getattr(self, name) for name in self._defaults()}
        if not deep:
            return own
        nested = {
            f"{name}__{inner}": value
            for name, argument in own.items()
            if hasattr(argument, "get_params") and not isinstance(argument, type)
            for inner, value in argument.get_params().items()
        }
        return own | nested

    def set_params(self, **parameters: Any) -> Self:
        """Change arguments of the constructor.

        Parameters
        ----------
        **parameters
            By the names of :meth:`get_params`.

        Returns
        -------
        object
            This one.

        Raises
        ------
        ValueError, TypeError
            If there is no such argument, or its new value does not fit.
        """
        own, nested = {}, {}
        for name, value in parameters.items():
            name, _, inner = name.partition("__")
            if name not in self._defaults():
                known = ", ".join(self._defaults()) or "none"
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}, which has: {known}"
                )
            if inner:
                nested.setdefault(name, {})[inner] = value
            else:
                own[name] = value
        self._assign(own)
        for name, values in nested.items():
            getattr(self, name).set_params(**values)
        return self

    def _assign(self, arguments):
        for name, value in arguments.items():
            setattr(self, name, value)


class Settings(Parameterized):
    """Parameterized, and what its constructor makes of the arguments is part of it: they stay."""

    def __setattr__(self, name, value):
        if name in vars(self) and not name.startswith("_"):
            raise AttributeError(
                f"{name} of {self!r} is set by its constructor, or by set_params({name}=...)"
            )
        super().__setattr__(name, value)

    def _assign(self, arguments):
        self.__dict__ = type(self)(**self.get_params(deep=False) | arguments).__dict__
