"""Methods that take dask arrays, without dask."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def takes_dask(method: MethodT) -> MethodT:
    """A method of rows X that is answered by the function of its name in fastelbo.dask, if X is a
    dask array."""

    @wraps(method)
    def either(self, X, *arguments, **options):
        if not hasattr(X, "__dask_graph__"):
            return method(self, X, *arguments, **options)
        import fastelbo.dask

        options.pop("y", None)  # as that of scikit-learn, which is ignored
        return getattr(fastelbo.dask, method.__name__)(self, X, **options)

    return either
