"""fastelbo.torch's functions in one table: how to call them, with which tensors."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

import fastelbo
from tests.functions import LIKELIHOODS as MANY_LIKELIHOODS
from tests.functions import REDUCTIONS as REDUCTIONS
from tests.likelihoods import Row, counts, positive

torch = pytest.importorskip("torch")

BATCH, EVENT, LATENT, SAMPLES = 4, 7, 3, 2
LATENTS = {"mu", "logvar", "mu_q", "logvar_q", "mu_p", "logvar_p", "noise", "z", "y"}
LATENTS |= {"tril_q", "tril_p"}


def few(rng, shape):
    return positive(rng, shape[-1:]) + 0.2


def _without_array(argument):
    return tuple(argument.tolist()) if isinstance(argument, np.ndarray) else argument


COUNTS = {"x": counts, "mean": positive, "theta": few}
LIKELIHOODS = [
    # torch.compile cannot read a NumPy array in a constructor that it traces
    *(replace(r, arguments=tuple(map(_without_array, r.arguments))) for r in MANY_LIKELIHOODS),
    Row("NegativeBinomial", "NegativeBinomial", (), {}, ("mean", "theta"), None, COUNTS),
    Row("NegativeBinomial-fixed", "NegativeBinomial", (1.5,), {}, ("mean",), None, COUNTS),
    Row("NegativeBinomial-Poisson", "NegativeBinomial", (np.inf,), {}, ("mean",), None, COUNTS),
    Row(
        "ZeroInflatedNegativeBinomial",
        "ZeroInflatedNegativeBinomial",
        (),
        {},
        ("mean", "theta", "zero_logits"),
        None,
        COUNTS,
    ),
]
BY_LABEL = {row.label: row for row in LIKELIHOODS}


@dataclass(frozen=True)
class Case:
    """A function of fastelbo and of fastelbo.torch, and its inputs.

    ``call`` takes the module and the arrays of ``inputs`` in order, then options; those named in
    ``constants`` have no gradient.
    """

    name: str
    call: Callable
    inputs: tuple
    draws: dict
    constants: tuple = ()
    samples: tuple = ()
    has_reduction: bool = True
    draws_noise: bool = False

    def draw(self, dtype=torch.float64, requires_grad=True, seed=0):
        """Tensors to call it with, by name."""
        rng = np.random.default_rng(seed)
        tensors = {}
        for name in self.inputs:
            shape = (BATCH, LATENT if name in LATENTS else EVENT)
            shape = (SAMPLES, *shape) if name in self.samples else shape
            a = self.draws[name](rng, shape) if name in self.draws else rng.normal(size=shape)
            wanted = requires_grad and name not in self.constants
            tensors[name] = torch.tensor(a, dtype=dtype).requires_grad_(wanted)
        return tensors

    def options(self, reduction):
        return {"reduction": reduction} if self.has_reduction else {}


def of_log_prob(row):
    def call(module, x, *parameters, **options):
        return row.make(module).log_prob(x, *parameters, **options)

    return Case(f"{row.label}.log_prob", call, ("x", *row.parameters), row.draws, ("x",))


def of_elbo(row):
    def call(module, x, mu, logvar, noise, *outputs, **options):
        x_recon = outputs if len(outputs) > 1 else outputs[0]
        options = {"likelihood": row.make(module), "beta": 1.5, "noise": noise, **options}
        return tuple(module.elbo(x, mu, logvar, x_recon, **options))

    inputs = ("x", "mu", "logvar", "noise", *row.parameters)
    return Case(f"elbo[{row.label}]", call, inputs, row.draws, ("x", "noise"))


def of_iwae(row, masked=False):
    def call(module, x, z, mu, logvar, *outputs, **options):
        x_recon = outputs if len(outputs) > 1 else outputs[0]
        options = {"mask": x > 0.3 if masked else None, **options}
        return module.iwae(x, z, mu, logvar, x_recon, likelihood=row.make(module), **options)

    inputs = ("x", "z", "mu", "logvar", *row.parameters)
    samples = ("z", *row.parameters)
    return Case(f"iwae[{row.label}{'-masked' * masked}]", call, inputs, row.draws, ("x",), samples)


def of_beta_tcvae(row):
    def call(module, x, z, mu, logvar, *outputs, **options):
        x_recon = outputs if len(outputs) > 1 else outputs[0]
        options = {"likelihood": row.make(module), "dataset_size": 9, "alpha": 0.5, **options}
        return tuple(module.beta_tcvae_elbo(x, z, mu, logvar, x_recon, **options))

    inputs = ("x", "z", "mu", "logvar", *row.parameters)
    return Case(f"beta_tcvae_elbo[{row.label}]", call, inputs, row.draws, ("x",))


def log_weights(rng, shape):
    return np.log(rng.dirichlet(np.ones(shape[0])))


def factors(rng, shape):
    """Cholesky factors, and numbers above the diagonals that are not read."""
    return rng.normal(size=(*shape, shape[-1])) + 4 * np.eye(shape[-1])


def one_factor(rng, shape):
    return factors(rng, shape[-1:])


def function(name, inputs, constants=(), has_reduction=True, **fixed):
    def call(module, *tensors, **options):
        named = dict(zip(inputs, tensors, strict=True))
        return getattr(module, name)(**named, **fixed, **options)

    label = f"{name}{list(fixed.values())}" if fixed else name
    return Case(
        label,
        call,
        inputs,
        {"log_weights": log_weights, "tril_q": factors, "tril_p": factors},
        constants,
        has_reduction=has_reduction,
        draws_noise="rng" in fixed,
    )


GAUSSIAN = ("mu", "logvar")
FULL = function("kl_full_normal", ("mu_q", "tril_q", "mu_p", "tril_p"))
CASES = [
    function("kl_standard_normal", GAUSSIAN),
    *(
        function("kl_standard_normal", GAUSSIAN, free_bits=fastelbo.FreeBits(bits, granularity=by))
        for by, bits in [("dimension", 0.7), ("sample", 0.5), ("total", 2.0)]
    ),
    function("kl_normal", ("mu_q", "logvar_q", "mu_p", "logvar_p")),
    FULL,
    replace(FULL, name="kl_full_normal[shared p]", draws={**FULL.draws, "tril_p": one_factor}),
    replace(FULL, name="kl_full_normal[shared q]", draws={**FULL.draws, "tril_q": one_factor}),
    function("reparameterize", (*GAUSSIAN, "noise"), ("noise",), False),
    function("reparameterize_kl", (*GAUSSIAN, "noise"), ("noise",)),
    function("reparameterize", GAUSSIAN, has_reduction=False, rng=3, samples=2),
    function("total_correlation", ("z", *GAUSSIAN), dataset_size=9),
    function("total_correlation", ("z", *GAUSSIAN), dataset_size=1, normalize=False),
    function("total_correlation", ("z", *GAUSSIAN), dataset_size=9, method="mss"),
    function("total_correlation", ("z", *GAUSSIAN), dataset_size=9, method="mss", mss="reference"),
    function("mixture_log_prob", ("z", "log_weights", *GAUSSIAN)),
    function("mmd", ("z", "y"), has_reduction=False),
    function("mmd", ("z", "y"), has_reduction=False, kernel="imq", estimator="biased"),
    function("mmd", ("z", "y"), has_reduction=False, bandwidth=(0.5, 2.0)),
    *map(of_log_prob, LIKELIHOODS),
    *(of_elbo(BY_LABEL[label]) for label in ("SquaredError", "Gaussian-learned", "Bernoulli")),
    *(of_elbo(BY_LABEL[label]) for label in ("Gaussian-optimal", "NegativeBinomial")),
    *(of_beta_tcvae(BY_LABEL[label]) for label in ("Bernoulli", "Gaussian-learned")),
    *(of_iwae(BY_LABEL[label]) for label in ("Bernoulli", "Gaussian-learned")),
    of_iwae(BY_LABEL["Bernoulli"], masked=True),
]
CASE_BY_NAME = {case.name: case for case in CASES}


def each(cases, reductions=REDUCTIONS):
    """A parametrisation by case and reduction."""
    rows = [(c, r) for c in cases for r in (reductions if c.has_reduction else reductions[:1])]
    return pytest.mark.parametrize(
        ("case", "reduction"), [pytest.param(c, r, id=f"{c.name}-{r}") for c, r in rows]
    )


def flat(result):
    """The tensors or numbers of a result."""
    if isinstance(result, tuple):
        return [leaf for item in result for leaf in flat(item)]
    return [] if result is None else [result]
