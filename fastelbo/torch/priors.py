"""Priors p(z) as modules, for ``prior=`` of bounds and losses; see ``fastelbo.priors``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import fastelbo
from fastelbo import _arrays, priors
from fastelbo.torch import _checks
from fastelbo.torch._tensors import (
    beside,
    check_tensors,
    half_of,
    key_of,
    narrowed,
    to_differentiate,
    widened,
)
from fastelbo.torch.densities import LOG_2PI
from fastelbo.torch.mixtures import mixture_log_prob

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import ArrayLike
    from torch import Tensor

    from fastelbo.torch._typing import AnyPrior, Prior


class StandardNormal(nn.Module):
    """N(0, I), the prior that ``prior=None`` stands for.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import StandardNormal
    >>> StandardNormal().log_prob(torch.tensor([[1.0, 2.0]]))
    tensor([-4.3379])
    """

    def __init__(self) -> None:
        super().__init__()

    @property
    def kernels(self) -> fastelbo.StandardNormal:
        """fastelbo's prior of this name."""
        return fastelbo.StandardNormal()

    def log_prob(self, z: Tensor) -> Tensor:
        """Log densities (...) of z (..., L), in nats."""
        check_tensors(z=z)
        if z.ndim == 0:
            raise _arrays.shape_error("z", z.shape, "(..., latent dimensions)")
        half, z = half_of(z), widened(z)
        square = z.square().sum(-1)  # a product of vectors would lose digits under autocast
        return narrowed(-0.5 * (square + z.shape[-1] * LOG_2PI), half)

    forward = log_prob


class MixtureOfGaussians(nn.Module):
    """A mixture of K diagonal Gaussians with weights softmax(logits).

    What of its arguments is a ``torch.nn.Parameter`` becomes one of the module: losses that are
    given the prior have it among their own. Other tensors that require a gradient get it;
    those that do not, and arrays, are buffers.

    Parameters
    ----------
    mu, logvar : Tensor or array_like, shape (K, L)
        Means and log variances.
    logits : Tensor or array_like of shape (K,), optional
        Logarithms of the weights, up to a constant. Without them weights are equal.

    Raises
    ------
    ValueError, TypeError
        If a shape or dtype does not fit; the message names the argument.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import MixtureOfGaussians
    >>> mu = torch.nn.Parameter(torch.tensor([[-1.0], [1.0]]))
    >>> prior = MixtureOfGaussians(mu, torch.zeros(2, 1))
    >>> prior.log_prob(torch.tensor([[0.0], [1.0]])).detach()
    tensor([-1.4189, -1.4852])
    >>> [name for name, _ in prior.named_parameters()]
    ['mu']
    """

    def __init__(
        self,
        mu: Tensor | ArrayLike,
        logvar: Tensor | ArrayLike,
        logits: Tensor | ArrayLike | None = None,
    ) -> None:
        super().__init__()
        self._keep(mu=mu, logvar=logvar, logits=logits)
        if not torch.compiler.is_compiling():
            _fastelbos(type(self), map(_checks.stand_in, self._given()))

    def _keep(self, **tensors: Any) -> None:
        """Each as a parameter, a tensor to differentiate, or a buffer."""
        for name, value in tensors.items():
            if value is not None or name != "logits":
                value = _as_floats(value, name)
            if value is not None and to_differentiate(value):
                setattr(self, name, value)
            else:
                self.register_buffer(name, value)

    def components(self) -> tuple[Tensor, Tensor]:
        """Means and log variances as they are now, (K, L) each."""
        return self.mu, self.logvar

    def _given(self):
        """(mu, logvar), and logits if there are any."""
        return self.components() if self.logits is None else (*self.components(), self.logits)

    @property
    def kernels(self) -> fastelbo.MixtureOfGaussians:
        """fastelbo's prior of this name, of the same numbers: where no gradient is wanted."""
        given = self._given()
        if torch.is_grad_enabled() and any([t.requires_grad for t in given]):
            raise TypeError(
                "prior holds tensors to differentiate: call the function of fastelbo.torch, or, "
                "for numbers alone, under torch.no_grad()"
            )
        return _fastelbos(type(self), [widened(t).detach().cpu().numpy() for t in given])

    def log_prob(self, z: Tensor) -> Tensor:
        """Log densities of points.

        Parameters
        ----------
        z : Tensor, shape (..., L)

        Returns
        -------
        Tensor, shape (...)
            In nats.
        """
        check_tensors(z=z)
        given = self._given()
        if given[2:] and given[2].shape != given[0].shape[:1]:
            raise _arrays.shape_error("logits", given[2].shape, f"{(len(given[0]),)} like mu")
        half = half_of(*given, z)
        mu, logvar, *logits = [widened(beside(t, z)) for t in given]
        logits = logits[0] if logits else mu.new_zeros(mu.shape[:1])
        log_weights = torch.log_softmax(logits, 0)
        value = mixture_log_prob(widened(z), mu, logvar, log_weights, reduction="none")
        return narrowed(value, half)

    forward = log_prob

    @torch.no_grad()
    def sample(self, n: int, *, rng: torch.Generator | int | None = None) -> Tensor:
        """n draws of z, (n, L); rng as in :func:`~fastelbo.torch.reparameterize`."""
        key = key_of(rng).item() & (1 << 64) - 1
        mu, *_ = self.components()
        return torch.as_tensor(self.kernels.sample(n, rng=key)).to(mu)

    def extra_repr(self) -> str:
        rows, cols = self.mu.shape
        return f"{rows} components, {cols} dimensions"


class VampPrior(MixtureOfGaussians):
    """Variational mixture of posteriors [1]_: the components are q(z|u_k) of pseudo-inputs u_k.

    Either of what the encoder made of them, or, by :meth:`from_encoder`, of encoder and
    pseudo-inputs: then the encoder is asked at every call.

    Parameters
    ----------
    mu, logvar : Tensor or array_like, shape (K, L)
        What the encoder makes of K pseudo-inputs.
    logits : Tensor or array_like of shape (K,), optional
        Weights of the components, softmax(logits); equal ones by default.

    References
    ----------
    .. [1] Tomczak, Welling. VAE with a VampPrior. AISTATS 2018.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import ElboLoss, VampPrior
    >>> encoder = torch.nn.Linear(8, 4)
    >>> pseudo_inputs = torch.nn.Parameter(torch.rand(10, 8))
    >>> prior = VampPrior.from_encoder(lambda u: encoder(u).chunk(2, dim=1), pseudo_inputs)
    >>> prior.log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])
    >>> [name for name, _ in ElboLoss(prior=prior).named_parameters()]
    ['prior.pseudo_inputs']
    """

    _encoder: tuple[Callable[[Tensor], tuple[Tensor, Tensor]]] | None = None

    @classmethod
    def from_encoder(
        cls,
        encoder: Callable[[Tensor], tuple[Tensor, Tensor]],
        pseudo_inputs: Tensor | ArrayLike,
        logits: Tensor | ArrayLike | None = None,
    ) -> Self:
        """The prior whose components follow an encoder.

        Parameters
        ----------
        encoder : callable
            ``encoder(pseudo_inputs)`` gives (mu, logvar), each (K, L). Its own parameters get
            gradients, but belong to whatever module it is part of, not to the prior.
        pseudo_inputs : Tensor or array_like, shape (K, ...)
            To be learned if it is a ``torch.nn.Parameter``.
        logits : Tensor or array_like of shape (K,), optional

        Returns
        -------
        VampPrior
        """
        if not callable(encoder):
            raise TypeError(f"encoder must be callable, got {type(encoder).__name__}")
        prior = cls.__new__(cls)
        nn.Module.__init__(prior)
        prior._encoder = (encoder,)  # in a tuple, which no module looks into
        prior._keep(pseudo_inputs=pseudo_inputs, logits=logits)
        return prior

    def components(self) -> tuple[Tensor, Tensor]:
        """Means and log variances as they are now, (K, L) each."""
        if self._encoder is None:
            return super().components()
        given = self._encoder[0](self.pseudo_inputs)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError(
                f"encoder must give a tuple (mu, logvar), got {type(given).__name__}: "
                "lambda u: net(u).chunk(2, dim=1) makes one of a single tensor"
            )
        check_tensors(mu=given[0], logvar=given[1])
        return given[0], given[1]

    def extra_repr(self) -> str:
        if self._encoder is None:
            return super().extra_repr()
        return f"{len(self.pseudo_inputs)} pseudo-inputs"


#: The classes that stand for one of fastelbo's, by name.
_TWINS = {twin.__name__: twin for twin in (StandardNormal, MixtureOfGaussians, VampPrior)}


def _name(kind):
    """That of the public class which a class is, or derives from."""
    return next(base.__name__ for base in kind.__mro__ if base.__name__ in _TWINS)


def _fastelbos(twin, arrays):
    """fastelbo's prior of the class that a twin is."""
    return getattr(fastelbo, _name(twin))(*arrays)


def _as_floats(value, name):
    """A tensor of floats: itself, or a copy of an array."""
    if not isinstance(value, torch.Tensor):
        try:
            value = torch.tensor(value)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise TypeError(f"{name} must be a tensor or an array of numbers: {error}") from None
    check_tensors(**{name: value})
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


def as_prior(prior: AnyPrior | None) -> Prior | None:
    """One that PyTorch can differentiate, or None: itself, or the twin of one of fastelbo."""
    if prior is None or (isinstance(prior, str) and prior == "standard"):
        return None
    if isinstance(prior, fastelbo.StandardNormal):
        return StandardNormal()
    if isinstance(prior, fastelbo.MixtureOfGaussians):
        return _TWINS[_name(type(prior))](prior.mu, prior.logvar, prior.logits)
    priors.check_prior(prior)
    if hasattr(prior, "log_prob_and_grad"):
        raise TypeError(
            "prior gives its gradients as arrays (log_prob_and_grad): here it must have a method "
            f"log_prob that PyTorch can differentiate, got {prior!r}"
        )
    return prior


def log_density(prior: Prior | None, z: Tensor) -> Tensor:
    """log p(z) in the leading shape of z, checked; None is N(0, I)."""
    log_p = (StandardNormal() if prior is None else prior).log_prob(z)
    check_tensors(**{"prior.log_prob(z)": log_p})
    if log_p.shape != z.shape[:-1]:
        raise _arrays.shape_error("prior.log_prob(z)", log_p.shape, str(tuple(z.shape[:-1])))
    return log_p
