"""The C interface: what Python gives, to the bit; and the examples in C, Cython and Numba."""

import copy
import ctypes
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastelbo
from fastelbo import capi
from fastelbo._catalogue import CASES, TOLERANCE, VARIANTS
from tests.test_short_way import DENSE

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "c_interface"


def call_with(of, **fields):
    """An array of one call, in the dtype `of`: arrays as what they are at."""
    call = np.zeros(1, capi.CALL)
    call["dtype"], call["threads"] = capi.CODES[np.dtype(of)], 1
    for name, value in fields.items():
        values = value if isinstance(value, tuple) else (value,)
        numbers = [v.ctypes.data if isinstance(v, np.ndarray) else v for v in values]
        if isinstance(value, tuple):
            call[name][0, : len(numbers)] = numbers
        else:
            call[name] = numbers[0]
    return call


def run(name, call, likelihood=None):
    """Call a function of the interface; what it wrote into the call."""
    given = () if likelihood is None else (likelihood.address,)
    assert capi.function(name)(*given, call.ctypes.data) == 0
    return call[0]


def drawn(label, dtype, **extents):
    """x and a decoder's outputs of a variant, (B, D) or (K, B, D), dense."""
    case = next(c for c in CASES.values() if c.likelihood is VARIANTS[label])
    x, *outputs = case.draw(2, dtype, **extents).values()
    outputs = [a if a.ndim > x.ndim else np.broadcast_to(a, x.shape) for a in outputs]
    return x, tuple(np.ascontiguousarray(a) for a in outputs)


def event_of(x, outputs):
    classes = outputs[0].size // x.size if outputs[0].ndim > x.ndim else 0
    return {"batch": len(x), "event": x[0].size, "classes": classes}


@pytest.mark.parametrize("label", DENSE)
def test_elbo(label, dtype):
    """Of every likelihood, with gradients, each row or all."""
    variant = VARIANTS[label]
    x, outputs = drawn(label, dtype, B=6)
    mu, logvar = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(dtype)
    python = variant.make(fastelbo)
    likelihood = capi.likelihood(python, x[0].size)
    expected, grad = fastelbo.elbo_and_grad(
        x, mu, logvar, outputs, likelihood=python, beta=2.0, reduction="sum"
    )
    d_mu, d_logvar, *d_outputs = (np.empty_like(a) for a in (mu, logvar, *outputs))
    rows, row_kl = np.empty((2, 6))
    fields = {
        "x": x, "x_dtype": capi.CODES[x.dtype], "outputs": outputs, **event_of(x, outputs),
        "mu": mu, "logvar": logvar, "latent": 3,
    }  # fmt: skip
    call = call_with(
        dtype,
        **fields,
        weight=1,
        kl_weight=-2,
        d_outputs=tuple(d_outputs),
        d_mu=d_mu,
        d_logvar=d_logvar,
    )
    done = run("elbo", call, likelihood)
    assert (done["log_prob"], done["kl"]) == expected[1:3]
    for mine, theirs in zip((d_mu, d_logvar, *d_outputs), (*grad[:2], *grad.x_recon), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    run("elbo", call_with(dtype, **fields, row_log_prob=rows, row_kl=row_kl), likelihood)
    by_row = fastelbo.elbo(x, mu, logvar, outputs, likelihood=python, reduction="none")
    np.testing.assert_array_equal((rows, row_kl), by_row[1:3])


@pytest.mark.parametrize("label", DENSE)
def test_samples_share_x(label, dtype):
    """What several outputs of one x sum to, and a value of each row of each."""
    likelihood = VARIANTS[label].make(fastelbo)
    x, outputs = drawn(label, dtype, B=6)
    several = tuple(np.stack([a, a, a]) for a in outputs)
    expected, grads = likelihood.log_prob_and_grad(x, *outputs, reduction="none")
    d_outputs, rows = tuple(map(np.empty_like, several)), np.empty((3, 6))
    handle = capi.likelihood(likelihood, x[0].size)
    fields = {"x": x, "x_dtype": capi.CODES[x.dtype], "outputs": several, "samples": 3, "weight": 1}
    fields |= {**event_of(x, outputs), "d_outputs": d_outputs}
    done = run("elbo", call_with(dtype, **fields), handle)
    assert done["log_prob"] == pytest.approx(3 * expected.sum(), rel=TOLERANCE[np.dtype(dtype)])
    for mine, theirs in zip(d_outputs, grads, strict=True):
        np.testing.assert_array_equal(mine, [theirs] * 3)
    run("elbo", call_with(dtype, **fields, row_log_prob=rows), handle)
    np.testing.assert_array_equal(rows, [expected] * 3)


@pytest.mark.parametrize("estimator", ["standard", "stl", "dreg"])
@pytest.mark.parametrize("label", ["Bernoulli", "Categorical", "NegativeBinomial-fixed"])
def test_iwae(label, estimator, dtype):
    likelihood = VARIANTS[label].make(fastelbo)
    x, outputs = drawn(label, dtype, B=9)
    outputs = tuple(np.stack([a, a + 0.5, a + 1]) for a in outputs)
    rng = np.random.default_rng(1)
    mu, logvar = rng.normal(size=(2, 9, 3)).astype(dtype)
    z = rng.normal(size=(3, 9, 3)).astype(dtype)
    expected, grad = fastelbo.iwae_and_grad(
        x, z, mu, logvar, outputs, likelihood=likelihood, estimator=estimator, reduction="sum"
    )
    d_z, d_mu, d_logvar, *d_outputs = (np.empty_like(a) for a in (z, mu, logvar, *outputs))
    weights, bound = np.empty((3, 9), dtype), np.empty(9)
    call = call_with(
        dtype, samples=3, latent=3, x=x, x_dtype=capi.CODES[x.dtype], outputs=outputs, mu=mu,
        logvar=logvar, z=z, bound=bound, weight=1, d_z=d_z, d_mu=d_mu, d_logvar=d_logvar,
        d_outputs=tuple(d_outputs), weights=weights,
        estimator=["standard", "stl", "dreg"].index(estimator), **event_of(x, (outputs[0][0],)),
    )  # fmt: skip
    done = run("iwae", call, capi.likelihood(likelihood, x[0].size))
    assert done["log_prob"] == pytest.approx(expected, rel=1e-12)
    assert bound.sum() == pytest.approx(expected, rel=1e-12)
    mine = (d_z, d_mu, d_logvar, *d_outputs, weights)
    theirs = (*grad[:3], *grad.x_recon, grad.weights)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_threads_than_can_be(dtype):
    """OpenMP would end the process."""
    mu = np.zeros((4000, 9), dtype)
    extents = {"batch": 4000, "latent": 9, "mu": mu, "logvar": mu}
    assert run("kl", call_with(dtype, **extents, threads=2**31 - 1))["kl"] == 0


def test_latents(dtype):
    """KL from N(0, I) and from another; z of a key; the way back."""
    rng = np.random.default_rng(3)
    mu, logvar, mu_p, logvar_p, d_z = rng.normal(size=(5, 40, 7)).astype(dtype)
    z, d_mu, d_logvar = np.empty((3, 40, 7), dtype)
    extents = {"batch": 40, "latent": 7, "mu": mu, "logvar": logvar}
    done = run("kl", call_with(dtype, **extents, z=z, key=11, draws=1))
    expected = fastelbo.reparameterize_kl(mu, logvar, rng=11, reduction="sum")
    np.testing.assert_array_equal(z, expected[0])
    assert done["kl"] == expected[1]
    done = run("kl", call_with(dtype, **extents, mu_p=mu_p, logvar_p=logvar_p))
    assert done["kl"] == fastelbo.kl_normal(mu, logvar, mu_p, logvar_p, reduction="sum")
    run(
        "backward",
        call_with(dtype, **extents, z=z, d_z=d_z, d_mu=d_mu, d_logvar=d_logvar, kl_weight=-0.5),
    )
    theirs = fastelbo.reparameterize_backward(d_z, mu, logvar, z, kl_weight=0.5)
    np.testing.assert_array_equal((d_mu, d_logvar), theirs)


def test_bits_do_not_depend_on_threads(dtype):
    """Workers of one call, as many as it says."""
    rng = np.random.default_rng(4)
    x, x_recon = rng.normal(size=(2, 9, 4000)).astype(dtype)
    z, mu, logvar = rng.normal(size=(3, 9, 300)).astype(dtype)
    likelihood = capi.likelihood("squared_error")
    fields = {"x": x, "x_dtype": capi.CODES[x.dtype], "mu": mu, "logvar": logvar, "weight": 1}
    fields |= {"batch": 9, "event": 4000, "latent": 300, "kl_weight": -1}
    of_samples = {"outputs": (np.stack([x_recon, -x_recon]),), "z": np.stack([z, mu]), "samples": 2}

    def results(threads):
        rows, (d_mu, d_logvar, d_recon) = np.empty(9), map(np.empty_like, (mu, logvar, x_recon))
        own = {"d_mu": d_mu, "d_logvar": d_logvar, "d_outputs": (d_recon,), "outputs": (x_recon,)}
        call = call_with(dtype, **fields, **own)
        d_z, d_several = (np.empty_like(a) for a in (of_samples["z"], of_samples["outputs"][0]))
        shares = np.empty((2, 9), dtype)
        several = {**of_samples, "d_z": d_z, "d_outputs": (d_several,), "weights": shares}
        bound = call_with(dtype, **{**fields, **several}, bound=rows, d_mu=d_mu, d_logvar=d_logvar)
        call["threads"] = bound["threads"] = threads
        done = run("elbo", call, likelihood)
        numbers = [done["log_prob"], done["kl"], *d_mu[:, 0], *d_logvar[:, 0]]
        numbers += [run("iwae", bound, likelihood)["log_prob"], *d_mu[:, 0], *d_logvar[:, 0]]
        return np.array(numbers), rows, shares, d_recon, d_z, d_several

    first = results(1)
    for threads in (2, 3, 8):
        for mine, alone in zip(results(threads), first, strict=True):
            np.testing.assert_array_equal(mine, alone)


@pytest.mark.parametrize("code", capi.CODES)
def test_x_of_any_dtype(code, dtype):
    x, x_recon = np.eye(5, 3).astype(code), np.zeros((5, 3), dtype)
    fields = {"batch": 5, "event": 3, "x": x, "x_dtype": capi.CODES[code], "outputs": (x_recon,)}
    if code == np.float64 and dtype == np.float32:
        return  # which Python computes in float64: C says what it wants
    done = run("elbo", call_with(dtype, **fields), capi.likelihood("squared_error"))
    assert done["log_prob"] == -3


@pytest.mark.parametrize("label", ["SquaredError", "Bernoulli", "Poisson", "Gaussian-learned"])
def test_outputs_in_half_precision(label):
    """Read and written as such: what Python gives, which other likelihoods refuse."""
    variant = VARIANTS[label]
    x, outputs = drawn(label, np.float16, B=6, D=(700,))
    x = np.abs(np.rint(x)).astype(np.uint8) if label != "Gaussian-learned" else x
    likelihood = variant.make(fastelbo)
    expected, grads = likelihood.log_prob_and_grad(x, *outputs, reduction="sum")
    gradients = [np.empty_like(a) for a in outputs]
    fields = {
        "x": x, "x_dtype": capi.CODES[x.dtype], "outputs": outputs, "weight": 1,
        "output_dtype": capi.CODES[np.dtype(np.float16)], "d_outputs": tuple(gradients),
    }  # fmt: skip
    call = call_with(np.float32, **fields, batch=6, event=700)
    assert run("elbo", call, capi.likelihood(likelihood))["log_prob"] == expected
    for mine, theirs in zip(gradients, grads, strict=True):
        assert theirs.dtype == np.float16
        np.testing.assert_array_equal(mine, theirs)
    counts = capi.likelihood("negative_binomial")
    assert capi.function("elbo")(counts.address, call.ctypes.data) == UNFIT
    assert capi.function("iwae")(counts.address, call.ctypes.data) == UNFIT


UNFIT = -2
#: A call of x (2, 3) and mu (2, 1), and what the bound of two samples needs besides.
ROOM = np.zeros(12)
ARRAYS = {"x": ROOM, "outputs": (ROOM,) * 3, "mu": ROOM, "logvar": ROOM}
OUTS = [np.zeros(12) for _ in range(7)]
WHOLE = {
    "batch": 2, "event": 3, "latent": 1, "x_dtype": capi.CODES[ROOM.dtype], **ARRAYS,
    "d_outputs": tuple(OUTS[:3]), "d_mu": OUTS[3], "d_logvar": OUTS[4],
}  # fmt: skip
OF_SAMPLES = {"samples": 2, "z": ROOM, "bound": OUTS[5], "weights": OUTS[6], "d_z": np.zeros(12)}
ROWS = {"row_log_prob": OUTS[5], "row_kl": OUTS[6]}
OTHER = {"mu_p": ROOM, "logvar_p": ROOM}
MISSING = {
    "elbo": ("batch", "event", "x", "outputs", "logvar", "d_mu", "d_logvar", "dtype", "x_dtype"),
    "kl": ("batch", "mu", "logvar", "d_mu", "d_logvar", "dtype"),
    "backward": ("batch", "mu", "logvar", "d_mu", "d_logvar", "d_z", "z", "dtype"),
    "iwae": (
        *("batch", "event", "x", "outputs", "mu", "logvar", "z", "samples", "bound", "weights"),
        *("d_z", "d_mu", "d_logvar", "dtype", "x_dtype"),
    ),
}  # fmt: skip


def status(name, likelihood="squared_error", **fields):
    """What a function makes of the whole call with these fields."""
    call = call_with(np.float64, **{**WHOLE, **(OF_SAMPLES if name == "iwae" else {}), **fields})
    handle = capi.likelihood(likelihood)
    given = () if name in ("kl", "backward") else (handle.address,)
    return capi.function(name)(*given, call.ctypes.data)


@pytest.mark.parametrize("name", MISSING)
def test_a_call_that_lacks_something_is_refused(name):
    of_z = {"z": ROOM, "d_z": OUTS[5]} if name == "backward" else {}
    assert status(name, **of_z) == 0
    for field in MISSING[name]:
        nothing = (0, 0, 0) if field == "outputs" else 0
        assert status(name, **{**of_z, field: nothing}) == UNFIT, field
    null = [None] * (1 if name in ("kl", "backward") else 2)
    assert capi.function(name)(*null) == UNFIT


@pytest.mark.parametrize("name", ["elbo", "iwae"])
@pytest.mark.parametrize(
    ("likelihood", "fit", "unfit"),
    [
        ("categorical", 2, (0, -1)),
        (fastelbo.Categorical(2), 2, (0, 1, 3)),
        (fastelbo.DiscretizedLogisticMixture(), 2, (0, -1)),
        ("squared_error", 0, (2, -1)),
    ],
)
def test_classes_are_as_many_as_the_likelihood_has(name, likelihood, fit, unfit):
    room = np.zeros(24)
    arrays = {"outputs": (room,) * 3, "d_outputs": tuple(np.zeros((3, 24)))}
    assert status(name, likelihood, **arrays, classes=fit) == 0
    for classes in unfit:
        assert status(name, likelihood, **arrays, classes=classes) == UNFIT, classes


def test_what_cannot_be_is_refused():
    half = capi.CODES[np.dtype(np.float16)]
    for fields in (
        {"dtype": half}, {"x_dtype": 99}, {"x_dtype": -1}, {"output_dtype": half}, {"columns": 2},
        {"summed": 2}, {"samples": -1}, {"latent": -1}, {**ROWS, "row_kl": 0},
        {**OTHER, "logvar_p": 0}, OTHER,
        {"d_outputs": (OUTS[0], 0, 0), "likelihood": fastelbo.Gaussian("learned")},
    ):  # fmt: skip
        assert status("elbo", **fields) == UNFIT, fields
    assert status("iwae", estimator=3) == status("iwae", estimator=-1) == UNFIT
    theta = {"likelihood": "negative_binomial", "columns": 2}
    assert status("iwae", **theta) == status("elbo", **theta, summed=2) == 0
    assert status("iwae", **theta, summed=2) == UNFIT
    of_three = capi.likelihood(fastelbo.Gaussian([1.0, 2.0, 3.0]), 3)
    call = call_with(np.float64, **WHOLE)
    assert capi.function("elbo")(of_three.address, call.ctypes.data) == 0
    call["event"] = 2
    assert capi.function("elbo")(of_three.address, call.ctypes.data) == UNFIT


@pytest.mark.parametrize("name", ["elbo", "kl"])
@pytest.mark.parametrize("noise", [{"noise": ROOM}, {"draws": 1}])
def test_noise_makes_a_z_that_has_room(name, noise):
    """Beside a KL from another Gaussian nothing would make one."""
    other = {**OTHER, "d_mu_p": np.zeros(12), "d_logvar_p": np.zeros(12)}
    room = {"z": np.zeros(12)}
    assert status(name, **noise, **room) == status(name, **other) == 0
    assert status(name, **noise) == status(name, **noise, **room, **other) == UNFIT


@pytest.mark.parametrize("reduced", [True, False])
def test_latents_in_half_precision(reduced):
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(size=(2, 40, 7)).astype(np.float16)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    d_mu, d_logvar = np.empty((2, 40, 7), np.float16)
    z, rows, row_kl = np.empty((40, 7), np.float32), np.empty(40), np.empty(40)
    half = capi.CODES[mu.dtype]
    fields = {
        "mu": mu, "logvar": logvar, "latent_dtype": half, "d_mu": d_mu, "d_logvar": d_logvar,
        "z": z, "key": 3, "draws": 1, "kl_weight": -0.5, "weight": 1, "batch": 40, "latent": 7,
    }  # fmt: skip
    if not reduced:
        fields |= {"row_log_prob": rows, "row_kl": row_kl}
    expected, grads = fastelbo.elbo_and_grad(
        x, mu, logvar, x, beta=0.5, rng=3, reduction="sum" if reduced else "none"
    )
    data = {"x": x, "x_dtype": capi.CODES[x.dtype], "outputs": (x,), "d_outputs": (x.copy(),)}
    with_x = call_with(np.float32, **fields, **data, event=3)
    for name, call in (("elbo", with_x), ("kl", call_with(np.float32, **fields))):
        z[...] = d_mu[...] = d_logvar[...] = row_kl[...] = 0
        done = run(name, call, *([capi.likelihood("squared_error")] if name == "elbo" else []))
        np.testing.assert_array_equal(done["kl"] if reduced else row_kl, expected.kl)
        np.testing.assert_array_equal(z, expected.z)
        np.testing.assert_array_equal((d_mu, d_logvar), (grads.mu, grads.logvar))
    single = mu.astype(np.float32)
    unfit = fields | {"z": z, "d_z": single, "mu": single, "logvar": single}
    assert capi.function("backward")(call_with(np.float32, **unfit).ctypes.data) == UNFIT
    unfit |= {"mu_p": single, "logvar_p": single}
    assert capi.function("kl")(call_with(np.float32, **unfit).ctypes.data) == UNFIT
    for dtype, code in ((np.float64, half), (np.float32, capi.CODES[np.dtype(np.int16)])):
        call = call_with(dtype, **fields | {"latent_dtype": code})
        assert capi.function("kl")(call.ctypes.data) == UNFIT
    likelihood = capi.likelihood("squared_error")
    for code, expected in ((0, 0), (half, UNFIT)):
        call = call_with(np.float32, **{**WHOLE, **OF_SAMPLES, "latent_dtype": code})
        assert capi.function("iwae")(likelihood.address, call.ctypes.data) == expected


@pytest.mark.parametrize("label", ["Bernoulli", "NegativeBinomial-fixed"])
def test_elbo_with_the_kl_from_another(label):
    """Whether or not the likelihood's pass takes the latents along."""
    x, outputs = drawn(label, np.float64, B=6)
    latents = np.random.default_rng(0).normal(size=(4, 6, 3))
    names = dict(zip(("mu", "logvar", "mu_p", "logvar_p"), latents, strict=True))
    fields = {"x": x, "x_dtype": capi.CODES[x.dtype], "outputs": outputs, **event_of(x, outputs)}
    likelihood = capi.likelihood(VARIANTS[label].make(fastelbo), x[0].size)
    done = run("elbo", call_with(np.float64, **fields, **names, latent=3), likelihood)
    assert done["kl"] == fastelbo.kl_normal(*latents, reduction="sum")
    assert done["mu"] == latents[0].ctypes.data
    expected = VARIANTS[label].make(fastelbo).log_prob(x, *outputs, reduction="sum")
    assert done["log_prob"] == expected


def test_what_has_no_pass_says_so():
    with pytest.raises(TypeError, match=r"ColumnLikelihood.* has no pass that C could call"):
        capi.likelihood(VARIANTS["ColumnLikelihood"].make(fastelbo))
    with pytest.raises(ValueError, match="scale has shape"):
        capi.likelihood(fastelbo.Gaussian([1.0, 2.0]), 3)
    with pytest.raises(ValueError, match="name must be"):
        capi.function("loss")
    with pytest.raises(TypeError, match="pickling"):
        copy.copy(capi.likelihood("bernoulli"))


# The examples -----------------------------------------------------------------------------------


def compile_c(source, target, *options):
    """A shared library, by the compiler that Python was made with."""
    compiler = sysconfig.get_config_var("CC")
    if not compiler:
        pytest.skip("no C compiler is known")
    include = [f"-I{fastelbo.get_include()}", f"-I{np.get_include()}"]
    include += [f"-I{sysconfig.get_path('include')}"]
    command = [
        *compiler.split(),
        "-O2",
        "-shared",
        "-fPIC",
        *include,
        *options,
        source,
        "-o",
        target,
    ]
    subprocess.run(list(map(str, command)), check=True)


def problem():
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(size=(2, 12, 4)).astype(np.float32)
    x_recon = rng.normal(size=(12, 30)).astype(np.float32)
    return rng.integers(0, 2, (12, 30), np.uint8), mu, logvar, x_recon


def test_from_c(tmp_path):
    compile_c(EXAMPLES / "mean_elbo.c", tmp_path / "mean_elbo.so", "-Wall", "-Wextra", "-Werror")
    function = ctypes.CDLL(tmp_path / "mean_elbo.so").mean_elbo
    function.restype = ctypes.c_double
    x, mu, logvar, x_recon = problem()
    gradients = [np.empty_like(a) for a in (mu, logvar, x_recon)]
    likelihood = capi.likelihood("bernoulli")
    addresses = (ctypes.c_void_p(a.ctypes.data) for a in (x, mu, logvar, x_recon, *gradients))
    extents = (ctypes.c_int64(n) for n in (12, 30, 4))
    handles = (ctypes.c_void_p(capi.api), ctypes.c_void_p(likelihood.address))
    value = function(*handles, *extents, *addresses, 2)
    expected, grad = fastelbo.elbo_and_grad(x, mu, logvar, x_recon, likelihood="bernoulli")
    assert value == pytest.approx(expected.elbo, rel=1e-15)
    for mine, theirs in zip(gradients, grad, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_from_cython(tmp_path):
    pytest.importorskip("Cython")
    command = [
        sys.executable,
        "-m",
        "cython",
        "-3",
        EXAMPLES / "mean_iwae.pyx",
        "-o",
        tmp_path / "m.c",
    ]
    root = os.path.dirname(os.path.dirname(fastelbo.__file__))
    subprocess.run([*map(str, command), f"-I{root}"], check=True, cwd=root)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compile_c(tmp_path / "m.c", tmp_path / f"mean_iwae{suffix}", "-w")
    spec = importlib.util.spec_from_file_location("mean_iwae", tmp_path / f"mean_iwae{suffix}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    x, mu, logvar = (rng.normal(size=(6, n)) for n in (5, 2, 2))
    z, x_recon = rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 6, 5))
    likelihood = capi.likelihood(fastelbo.Gaussian(2.0), 5)
    expected = fastelbo.iwae(x, z, mu, logvar, x_recon, likelihood=fastelbo.Gaussian(2.0))
    got = module.mean_iwae(likelihood, x, x_recon, mu, logvar, z)
    assert got == pytest.approx(expected, rel=1e-13)
    with pytest.raises(TypeError):
        module.mean_iwae(fastelbo.Gaussian(2.0), x, x_recon, mu, logvar, z)


def test_from_numba():
    pytest.importorskip("numba")
    spec = importlib.util.spec_from_file_location("from_numba", EXAMPLES / "from_numba.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    x, mu, logvar, x_recon = problem()
    value = example.mean_elbo(example.call_of(x, mu, logvar, x_recon), 2)
    assert value == pytest.approx(fastelbo.elbo(x, mu, logvar, x_recon).elbo, rel=1e-15)
