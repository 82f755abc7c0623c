"""Half precision: float32's results on the rounded inputs, gradients in what was given."""

import numpy as np
import pytest

import fastelbo
from fastelbo._catalogue import CASES, OF_ELEMENTS, REDUCTIONS, flatten
from fastelbo._catalogue._compare import errors
from tests.conftest import together
from tests.importance import peak_of

KINDS = [np.dtype(np.float16)]
try:
    import ml_dtypes
except ImportError:
    pass
else:
    KINDS.append(np.dtype(ml_dtypes.bfloat16))

kinds = together(kind=KINDS)
cases = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.halves])


def drawn(case, kind, **extents):
    """Arrays by name in half precision, those that are no data of whole numbers, and in float32."""
    arrays = case.draw(5, np.float32, **extents)
    half = {which: a if a.dtype == bool else a.astype(kind) for which, a in arrays.items()}
    single = {which: a if a.dtype == bool else a.astype(np.float32) for which, a in half.items()}
    return half, single


@kinds
@cases
def test_float32_on_the_rounded_inputs(name, kind):
    case = CASES[name]
    for extents in ({"B": 33, "D": ()}, {"B": 3, "D": (1100,)}, {"B": 2, "D": (3, 5, 7)}):
        half, single = drawn(case, kind, **extents)
        for reduction in OF_ELEMENTS if case.likelihood else REDUCTIONS:
            options = {"reduction": reduction}
            got = flatten(case.public(*half.values(), **options))
            expected = flatten(case.public(*single.values(), **options))
            scales = case.scales(single.values(), **options)
            values = len(got) - (len(case.outs) if case.gives_gradients else 0)
            for i, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
                if i < values:
                    assert np.asarray(mine).dtype == np.asarray(theirs).dtype
                    assert (errors(mine, theirs, np.float32, scales[i]) <= 1e-6).all()
                    continue
                assert mine.dtype == kind
                with np.errstate(over="ignore"):
                    rounded = theirs.astype(kind)
                if theirs.size == max(a.size for a in single.values()):
                    np.testing.assert_array_equal(mine, rounded)
                else:  # sums over rows, and of other elements together
                    mine, rounded = mine.astype(np.float32), rounded.astype(np.float32)
                    np.testing.assert_allclose(mine, rounded, rtol=spacing(kind), atol=1e-7)


@kinds
@pytest.mark.parametrize(
    "name",
    [n for n, c in CASES.items() if c.takes_out and c.gives_gradients],
)
def test_gradients_are_written_where_they_are_wanted(name, kind):
    case = CASES[name]
    half, _ = drawn(case, kind, B=3)
    results = flatten(case.public(*half.values()))
    first = len(results) - len(case.outs)
    room = [np.zeros_like(a) for a in results[first:]]
    got = flatten(case.public(*half.values(), out=case.as_out(room)))
    for mine, wanted, before in zip(got[first:], room, results[first:], strict=True):
        assert mine is wanted
        assert_same(mine, before)


def spacing(kind):
    """Of numbers near one."""
    return 2.0**-10 if kind == np.float16 else 2.0**-7


def twice(x, kind):
    """x as a pass reads it, twice, as one writes it: the gradient of the squared error from 0."""
    given = np.zeros(x.shape, kind)
    return fastelbo.SquaredError().log_prob_and_grad(x, given, reduction="sum")[1][0]


def assert_same(got, expected):
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.astype(np.float64), expected.astype(np.float64))


@kinds
def test_every_number_is_read(kind):
    """Infinities, NaN and denormals, too."""
    x = np.arange(1 << 16, dtype=np.uint16).view(kind).reshape(64, 1024)
    for dtype in (np.float32, np.float64):
        with np.errstate(all="ignore"):  # of NaNs that signal
            assert_same(twice(x, dtype), 2 * x.astype(dtype))


@kinds
@pytest.mark.parametrize("scale", [1.0, 2.0**-118], ids=["", "denormal"])
def test_every_number_is_written(kind, scale):
    """As NumPy rounds float32: to the nearest, of two to the even one, and beyond the largest to
    infinity."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, (64, 1 << 12), np.uint32)
    bits[::2] &= 0xFFFFF000  # ties of float16, and whole numbers of it
    bits[::4] &= 0xFFFF8000  # and of bfloat16
    with np.errstate(all="ignore"):
        x = bits.view(np.float32) * np.float32(scale)
        assert_same(twice(x, kind), (2 * x).astype(kind))


@kinds
@pytest.mark.parametrize("step", [1, 2], ids=["", "strided"])
def test_every_number_is_converted(kind, step):
    """Of latents, whose passes are in float32: the ELBO's gradient by mu is -mu."""
    mu = np.arange(1 << 16, dtype=np.uint16).view(kind).reshape(64, 1024)[:, ::step]
    logvar, x = np.zeros(mu.shape, kind), np.zeros((64, 1), kind)
    for out in (None, (mu.copy(), logvar.copy(), x.copy())):
        with np.errstate(all="ignore"):
            _, grad = fastelbo.elbo_and_grad(x, mu, logvar, x, reduction="sum", out=out)
            assert_same(grad.mu, -mu)


@kinds
def test_dtypes_of_gradients(kind):
    """Of what came in half precision that, unless something is float64."""
    x, mu = np.ones((3, 5), np.uint8), np.zeros((3, 2), np.float32)
    outputs = np.ones((3, 5), kind)
    _, grad = fastelbo.elbo_and_grad(x, mu, mu.astype(kind), outputs)
    assert [g.dtype for g in grad] == [np.float32, kind, kind]
    _, grad = fastelbo.elbo_and_grad(x, mu.astype(np.float64), mu.astype(kind), outputs)
    assert {g.dtype for g in grad} == {np.dtype(np.float64)}
    _, (grad,) = fastelbo.SquaredError().log_prob_and_grad(
        x, outputs.astype(kind.newbyteorder()) if kind == np.float16 else outputs[:, ::-1]
    )
    assert grad.dtype == kind


@kinds
def test_what_is_multiplied_further_is_float32(kind):
    x, x_recon = np.full((4, 3), 0.6, kind), np.full((4, 3), 0.3, kind)
    _, (got,) = fastelbo.flow_matching_and_grad(x, 0.9, x_recon)
    wide = x_recon.astype(np.float32)
    _, (expected,) = fastelbo.flow_matching_and_grad(x, 0.9, wide)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


@kinds
def test_out(kind):
    x, outputs = np.ones((3, 700), np.uint8), np.full((3, 700), 0.5, kind)
    for likelihood in (fastelbo.Bernoulli(), fastelbo.Poisson(), fastelbo.NegativeBinomial(1.0)):
        value, (expected,) = likelihood.log_prob_and_grad(x, outputs)
        out = np.empty_like(outputs)
        _, (got,) = likelihood.log_prob_and_grad(x, outputs, out=(out,))
        assert got is out
        np.testing.assert_array_equal(got, expected)
        wide = np.empty(out.shape, np.float32)
        again, _ = likelihood.log_prob_and_grad(x, outputs, out=(wide,))
        assert abs(again - value) < 1e-6 * abs(value)
        np.testing.assert_array_equal(wide.astype(kind), expected)
        with pytest.raises(TypeError, match=f"has dtype float64, expected {kind} or float32"):
            likelihood.log_prob_and_grad(x, outputs, out=(out.astype(np.float64),))
        with pytest.raises(ValueError, match="overlaps an input"):
            likelihood.log_prob_and_grad(x, outputs, out=(outputs,))
    mu, logvar = np.zeros((2, 3, 4), kind)
    outs = np.empty_like(mu), np.empty_like(mu), out
    _, grad = fastelbo.elbo_and_grad(x, mu, logvar, outputs, out=outs)
    assert all(a is b for a, b in zip(grad, outs, strict=True))


@kinds
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson"])
def test_nothing_is_converted_in_memory(likelihood, kind):
    x, outputs = np.ones((60, 1200), kind), np.full((60, 1200), 0.5, kind)
    mu = np.zeros((60, 2), kind)
    out = np.empty_like(mu), np.empty_like(mu), np.empty_like(outputs)
    options = {"likelihood": likelihood, "out": out}
    assert peak_of(lambda: fastelbo.elbo_and_grad(x, mu, mu, outputs, **options)) < 30_000


@kinds
def test_what_lies_outside_is_named(kind):
    x = np.full((2, 3), 0.5, kind)
    x[1, 2] = 1.5
    with pytest.raises(ValueError, match=r"x\[1, 2\] = 1.5 lies outside the domain of Bernoulli"):
        fastelbo.Bernoulli().log_prob(x, x)
    rate = np.full((2, 3), 1.0, kind)
    rate[0, 1] = -1
    with pytest.raises(ValueError, match=r"rate\[0, 1\] = -1 lies outside"):
        fastelbo.Poisson(log_input=False).log_prob(np.ones((2, 3)).astype(kind), rate)
