"""The parity checks of fastelbo.torch: the kernels' values and what autograd makes of them.

Arrays, options and sizes are those of the NumPy functions' checks. The reference is held against
the kernels, and so are the composites, which serve other devices, in float64. Checks enter the
registry only where PyTorch is installed. A new function needs one row of `ROWS`.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._cli.parity_checks import REGISTRY, Check


@dataclass(frozen=True)
class Row:
    """What is called with the arguments of the NumPy function's checks that have a gradient.

    ``call`` takes fastelbo.torch, what the method belongs to if it is one, and the arguments, of
    which the first ``constants`` have no gradient. That of its values weighted by ``weights`` is
    checked. A loss is minus the first value.
    """

    source: str
    call: Callable
    constants: int = 0
    weights: tuple = (1.0,)
    is_loss: bool = False
    concerns: Callable = lambda desired: True

    def checks(self, size, dtype):
        for check in REGISTRY[self.source](size, dtype):
            desired = _with_gradient(check.desired)
            if desired is None or not self.concerns(desired):
                continue
            composite = {"composite": partial(self.of_composite, desired)}
            yield Check(
                partial(self.value_and_grad, desired),
                lambda desired=desired: self.part(desired(), -1.0 if self.is_loss else 1.0),
                lambda check=check: self.part(check.scale(), 1.0),
                {} if "rng" in desired.keywords else composite,  # whose noise is another one
            )

    def part(self, result, sign):
        """Of (value, gradients), or of their sizes: what PyTorch gives, too."""
        if not isinstance(result, tuple):
            return result
        value, gradients = result
        value = value[0] if self.is_loss and isinstance(value, tuple) else value
        gradients = gradients[:4] if isinstance(gradients, tuple) else gradients  # no weights
        return _mapped(lambda leaf: sign * leaf, (value, gradients))

    def value_and_grad(self, desired, dtype=None):
        """The same of fastelbo.torch, given the arguments of `desired`."""
        import torch

        import fastelbo.torch

        leaves = []
        constants = _translated(desired.args[: self.constants], dtype)
        others = _translated(desired.args[self.constants :], dtype, leaves)
        options = {name: _translated(value, dtype) for name, value in desired.keywords.items()}
        weights = options.pop("weights", self.weights)
        owner = _translated(getattr(desired.func, "__self__", None), dtype)
        value = self.call(fastelbo.torch, owner, *constants, *others, **options)
        values = value if isinstance(value, tuple) else (value,)
        objective = sum(w * v.sum() for w, v in zip(weights, values, strict=False))
        gradients = torch.autograd.grad(objective, leaves, materialize_grads=True)
        gradients = dict(zip(map(id, leaves), gradients, strict=True))
        return _mapped(_as_array, value), _mapped(lambda leaf: gradients[id(leaf)].numpy(), others)

    def of_composite(self, desired):
        from fastelbo.torch import _tensors

        _tensors.always_composite = True
        try:
            return self.value_and_grad(desired, np.float64)
        finally:
            _tensors.always_composite = False


def _mapped(function, tree):
    if isinstance(tree, tuple):
        return tuple(_mapped(function, branch) for branch in tree)
    return None if tree is None else function(tree)


def _as_array(tensor):
    return tensor.detach().numpy()


def _translated(argument, dtype, leaves=None):
    """An argument of the reference for fastelbo.torch; `leaves` collects what has a gradient."""
    import torch

    if isinstance(argument, reference.FreeBits):
        return fastelbo.FreeBits(**argument._asdict())
    if isinstance(argument, reference.Likelihood):
        kind = getattr(fastelbo.torch, type(argument).__name__)
        return kind(
            **{name: getattr(argument, name) for name in inspect.signature(kind).parameters}
        )
    if isinstance(argument, tuple):
        return tuple(_translated(a, dtype, leaves) for a in argument)
    if not isinstance(argument, np.ndarray):
        return argument
    tensor = torch.tensor(argument if argument.dtype == bool else np.asarray(argument, dtype))
    if leaves is not None:
        leaves.append(tensor.requires_grad_())
    return tensor


def _with_gradient(desired):
    """A function of the reference, with its arguments, that gives gradients; or None."""
    if desired.func.__name__.startswith("reparameterize"):
        return partial(_samples_and_grad(desired.func), *desired.args, **desired.keywords)
    return desired if desired.func.__name__.endswith("_and_grad") else None


def _samples_and_grad(function):
    """reparameterize or reparameterize_kl, and the gradients of the sum of all that it gives."""

    def value_and_grad(mu, logvar, **options):
        value = function(mu, logvar, **options)
        z = value[0] if isinstance(value, tuple) else value
        gradients = reference.reparameterize_backward(np.ones_like(z), mu, logvar, z)
        if isinstance(value, tuple):
            of_kl = {k: v for k, v in options.items() if k in ("free_bits", "reduction")}
            _, by_kl = reference.kl_standard_normal_and_grad(mu, logvar, **of_kl)
            gradients = tuple(a + b for a, b in zip(gradients, by_kl, strict=True))
        return value, gradients

    return value_and_grad


# The rows ---------------------------------------------------------------------------------------


def _function(name):
    return lambda ft, _, *arguments, **options: getattr(ft, name)(*arguments, **options)


def _log_prob(ft, likelihood, *arguments, **options):
    return likelihood.log_prob(*arguments, **options)


def _loss(name, source):
    def call(ft, _, *arguments, mask=None, rng=None, noise=None, **options):
        return getattr(ft, name)(**options)(*arguments, mask=mask)

    return Row(source, call, constants=1, is_loss=True)


def _count_loss(name, likelihood):
    def concerns(desired):
        return desired.func.__self__.theta is None and "mask" not in desired.keywords

    return Row(likelihood, _function(name), constants=1, is_loss=True, concerns=concerns)


def _vae_loss(ft, _, x, mu, logvar, x_recon, *, likelihood, rng):
    return ft.vae_loss(x_recon, x, mu, logvar) / len(x)


ROWS = {
    **{
        kind.__name__: Row(kind.__name__, _log_prob, constants=1)
        for kind in vars(fastelbo).values()
        if isinstance(kind, type) and fastelbo.Likelihood in kind.__mro__[1:]
    },
    **{
        name: Row(f"{name}_and_grad", _function(name))
        for name in (
            *("kl_full_normal", "kl_normal", "kl_standard_normal"),
            *("mixture_log_prob", "mmd", "total_correlation"),
        )
    },
    **{
        name: Row(f"{name}_and_grad", _function(name), constants=1)
        for name in ("beta_tcvae_elbo", "elbo", "iwae")
    },
    "reparameterize": Row("reparameterize", _function("reparameterize")),
    "reparameterize_kl": Row("reparameterize_kl", _function("reparameterize_kl"), weights=(1, 1)),
    "BetaTCVAELoss": _loss("BetaTCVAELoss", "beta_tcvae_elbo_and_grad"),
    "ElboLoss": _loss("ElboLoss", "elbo_and_grad"),
    "IwaeLoss": _loss("IwaeLoss", "iwae_and_grad"),
    "negative_binomial_loss": _count_loss("negative_binomial_loss", "NegativeBinomial"),
    "zero_inflated_negative_binomial_loss": _count_loss(
        "zero_inflated_negative_binomial_loss", "ZeroInflatedNegativeBinomial"
    ),
    "vae_loss": Row(
        "elbo_and_grad",
        _vae_loss,
        constants=1,
        is_loss=True,
        concerns=lambda desired: type(desired.keywords.get("likelihood")) is reference.Bernoulli,
    ),
}

if importlib.util.find_spec("torch") is not None:
    REGISTRY.update({f"torch.{name}": row.checks for name, row in ROWS.items()})
