"""fastelbo.jax: every case against the specification, and the transforms of JAX."""

import inspect
import json
import math

import numpy as np
import pytest

import fastelbo
from fastelbo import reference
from fastelbo._catalogue import CASES, REDUCTIONS, ROWS, flatten
from fastelbo._catalogue.twins import jax_twins, jax_value_and_grad
from tests.conftest import assert_close, run_python

jax = pytest.importorskip("jax")
fj = pytest.importorskip("fastelbo.jax")
jnp = jax.numpy
_bridge = pytest.importorskip("fastelbo.jax._bridge")
_ffi = pytest.importorskip("fastelbo._ffi")

if hasattr(jax, "enable_x64"):
    with_x64 = jax.enable_x64
else:
    from jax.experimental import enable_x64 as with_x64

PAIRS = [pair for row in ROWS.values() for pair in jax_twins(row)]
#: The first of each row.
FIRST = [pair for row in ROWS.values() for pair in list(jax_twins(row))[:1]]
IN_JAX = [name for name, row in ROWS.items() if not (row.untwinned or row.not_in_jax)]


@pytest.fixture(autouse=True)
def x64():
    with with_x64(True):
        yield


def in_turn(pairs):
    """Each with one dtype, reduction and option."""
    for i, (case, gradient) in enumerate(pairs):
        several = [
            {},
            *[o for o in case.options if "num_threads" not in o and "reduction" not in o],
        ]
        options = dict(several[i % len(several)])
        if case.has_reduction:
            options["reduction"] = REDUCTIONS[i % 3]
        dtype = ("float64", "float32")[i // 3 % 2]
        yield pytest.param(case, gradient, options, dtype, id=case.name)


def agree(case, gradient, options, dtype, transform=lambda function: function):
    arrays = gradient.draw(3, dtype)
    values, slopes = jax_value_and_grad(case, gradient, arrays, options, transform)
    desired = flatten(gradient.reference(*arrays.values(), **options))
    scales = gradient.scales(arrays.values(), **options)
    found = [*values, *slopes]
    for i, (mine, theirs, scale) in enumerate(zip(found, desired, scales, strict=True)):
        assert mine.dtype == dtype
        if i >= len(values) or not case.draws_noise:
            assert_close(np.asarray(mine), theirs, dtype, scale)


@pytest.mark.parametrize(("case", "gradient", "options", "dtype"), list(in_turn(PAIRS)))
def test_values_and_gradients_are_those_of_the_specification(case, gradient, options, dtype):
    agree(case, gradient, options, dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["total_correlation", "beta_tcvae_elbo"])
def test_parts_of_the_aggregate_alone_in_every_reduction(name, reduction):
    case = CASES[name]
    arrays = case.draw(5, "float64").values()
    alone = jax.jit(lambda *arrays: flatten(case.call(fj, *arrays, reduction=reduction)))
    for _ in range(2):  # at the second call by the shortest way
        found = jax.block_until_ready(alone(*arrays))
    for mine, known in zip(
        found, flatten(case.reference(*arrays, reduction=reduction)), strict=True
    ):
        np.testing.assert_allclose(mine, known, rtol=1e-12)


@pytest.mark.parametrize("name", IN_JAX)
def test_rows_say_what_goes_without_python(name):
    """And without it values and gradients are the same, to the last bit; maps need none, either."""
    calls, row = [], ROWS[name]

    def answer(*arguments):
        calls.append(arguments)
        return _bridge._answer(*arguments)

    pairs = list(jax_twins(row)) or [(c, c) for c in row.cases if c.draws_noise]
    assert pairs or not row.native
    for case, gradient in pairs[:1]:
        arrays = gradient.draw(3, "float32", B=9)
        options = {"rng": jax.random.key(7)} if case.draws_noise else {}
        if case.has_reduction:
            options["reduction"] = REDUCTIONS[IN_JAX.index(name) % 3]
        free = [i for i, name in enumerate(arrays) if name in gradient.outs]

        def loss(*arrays, case=case, options=options):
            values = flatten(case.call(fj, *arrays, **options))
            return sum(v.sum() * (i + 1.0) for i, v in enumerate(values)), values

        rule = jax.value_and_grad(loss, free, has_aux=True) if free else loss
        given = list(arrays.values())
        try:
            _bridge._is_registered()
            _ffi.serve(answer)
            compiled = jax.jit(rule)
            first, second = (jax.block_until_ready(compiled(*given)) for _ in range(2))
            if row.native:
                jax.block_until_ready(jax.jit(jax.vmap(rule))(*[np.stack([a, a]) for a in given]))
        finally:
            _ffi.serve(_bridge._answer)
        assert row.native == (len({text for text, *_ in calls}) == len(calls))
        jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize(("case", "gradient", "options", "dtype"), list(in_turn(FIRST)))
def test_where_there_is_no_kernel(case, gradient, options, dtype):
    """What other platforms run."""
    agree(case, gradient, options, "float64", fj.plain())


def names_of(function):
    return [p for p in inspect.signature(function).parameters if p not in {"num_threads", "out"}]


@pytest.mark.parametrize("name", IN_JAX)
def test_arguments_are_those_of_fastelbo(name):
    mine, theirs = names_of(getattr(fj, name)), names_of(getattr(fastelbo, name))
    added = {"iwae": {"estimator"}, "vimco": {"log_q"}, "reinforce": {"log_q"}}
    assert name in fj.__all__
    assert [p for p in mine if p not in added.get(name, ())] == theirs


def test_nothing_is_excused_that_is_there():
    assert not [n for n, row in ROWS.items() if hasattr(fj, n) and n not in IN_JAX]


# Transforms -------------------------------------------------------------------------------------


def objective(name, dtype="float64", **options):
    """(a function of what has gradients and of the rest; both)."""
    case, gradient = CASES[name], CASES[f"{name}_and_grad"]
    arrays = gradient.draw(5, dtype)
    free = [jnp.asarray(arrays[n]) for n in gradient.outs]
    fixed = {n: a for n, a in arrays.items() if n not in gradient.outs}

    def call(*free):
        named = {**fixed, **dict(zip(gradient.outs, free, strict=True))}
        return flatten(case.call(fj, *[named[n] for n in arrays], **options))[0]

    return call, free


MAPPED = (
    "elbo-Bernoulli",
    "NegativeBinomial",
    "DiscretizedLogisticMixture",
    "iwae-Bernoulli",
    "kl_full_normal[shared]",
    "mixture_log_prob",
    "total_correlation",
)


@pytest.mark.parametrize("name", [n for n in MAPPED if n in CASES])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_vmap_is_a_loop(name, reduction):
    """Over everything; over the first alone; twice. Gradients, too."""
    if name == "total_correlation" and reduction == "none":
        return  # JAX's operations
    call, free = objective(name, reduction=reduction)

    def loss(*free):
        return (call(*free) ** 2).sum()

    rule = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(free)))))  # or op by op
    several = [jnp.stack([a, 0.9 * a, 1.1 * a]) for a in free]
    expected = [rule(*[s[i] for s in several]) for i in range(3)]
    expected = jax.tree.map(lambda *parts: jnp.stack(parts), *expected)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-300)  # noqa: E731
    jax.tree.map(close, jax.vmap(rule)(*several), expected)
    twice = [jnp.stack([s, s]) for s in several]
    jax.tree.map(lambda a, b: close(a[1], b), jax.vmap(jax.vmap(rule))(*twice), expected)
    axes = (0, *[None] * (len(free) - 1))
    alone = [rule(several[0][i], *free[1:]) for i in range(3)]
    alone = jax.tree.map(lambda *parts: jnp.stack(parts), *alone)
    jax.tree.map(close, jax.vmap(rule, axes)(several[0], *free[1:]), alone)


@pytest.mark.parametrize("name", ["elbo-Bernoulli", "Weibull", "mixture_log_prob"])
def test_forward_mode_scan_and_checkpoint(name):
    call, free = objective(name, reduction="none")
    gradients = jax.grad(lambda *a: call(*a).sum(), argnums=range(len(free)))(*free)
    along = [jnp.cos(a) for a in free]
    pairing = sum((g * t).sum() for g, t in zip(gradients, along, strict=True))
    if name != "mixture_log_prob":  # whose gradients need what flows back
        _, slope = jax.jvp(call, free, along)
        np.testing.assert_allclose(slope.sum(), pairing, rtol=1e-12)

    def steps(scale):
        def step(carry, factor):
            value = jax.checkpoint(call)(*[factor * carry * a for a in free]).mean()
            return 1.0 + 0.1 * jnp.tanh(value), factor

        return jax.lax.scan(step, scale, jnp.array([0.9, 1.0]))[0]

    def unrolled(scale):
        for factor in (0.9, 1.0):
            scale = 1.0 + 0.1 * jnp.tanh(call(*[factor * scale * a for a in free]).mean())
        return scale

    found, expected = (jax.jit(jax.value_and_grad(f))(1.0) for f in (steps, unrolled))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_second_derivatives_are_refused_but_of_plain_operations():
    call, free = objective("elbo-Bernoulli")
    with pytest.raises(TypeError, match=r"cannot differentiate twice.*plain\(\)"):
        jax.hessian(call)(*free)
    hessian = jax.hessian(fj.plain()(call), argnums=2)(*free)
    logits = np.asarray(free[2]).ravel()
    spread = np.exp(-np.logaddexp(0, -logits) - np.logaddexp(0, logits)) / len(free[2])
    np.testing.assert_allclose(hessian.reshape(logits.size, -1), -np.diag(spread), atol=1e-14)
    with pytest.raises(TypeError, match=r"twice.*plain\(\)"):
        jax.grad(lambda *a: jax.grad(jax.jit(call))(*a).sum())(*free)


def test_data_have_gradients_of_plain_operations():
    x, zero = jnp.array([[0.5, 2.0]]), jnp.zeros((1, 2))
    slopes = jax.grad(fj.Gaussian("learned").log_prob, (0, 1))(x, zero, zero)
    np.testing.assert_allclose(slopes[0], -x, rtol=1e-15)
    np.testing.assert_allclose(slopes[1], x, rtol=1e-15)


def test_devices_threads_and_persistent_texts():
    """Two CPU devices run handlers at once, under shard_map and under jit of sharded arrays."""
    found, expected, rows = run_python(
        """
        import json, os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        from fastelbo.jax import Bernoulli, elbo, reparameterize
        how = {}
        try:
            from jax import shard_map
        except ImportError:  # whose check knows fewer primitives
            from jax.experimental.shard_map import shard_map
            how = {"check_rep": False}
        mesh = Mesh(np.array(jax.devices()), ("batch",))
        keys = jax.random.split(jax.random.key(0), 4)
        x, logits = (jax.random.uniform(k, (64, 900)) for k in keys[:2])
        mu, logvar = (jax.random.normal(k, (64, 9)) for k in keys[2:])
        def rows(x, mu, logvar, logits):
            options = {"beta": 1 + 0 * x[0, 0], "reduction": "none"}  # traced
            return elbo(x, mu, logvar, logits, likelihood=Bernoulli(), **options).elbo
        def shard(x, mu, logvar, logits):
            specs = {"in_specs": P("batch"), "out_specs": P("batch")}
            return shard_map(rows, mesh=mesh, **specs, **how)(x, mu, logvar, logits)
        def loss(f):
            return jax.jit(jax.value_and_grad(lambda *a: f(*a).mean(), argnums=(1, 2, 3)))
        arrays = x, mu, logvar, logits
        plain = loss(rows)(*arrays)
        mapped = loss(shard)(*arrays)
        placed = [jax.device_put(a, NamedSharding(mesh, P("batch"))) for a in arrays]
        automatic = loss(rows)(*placed)
        norm = lambda t: [float(jnp.abs(a).sum()) for a in jax.tree.leaves(t)]
        print(json.dumps([[norm(mapped), norm(automatic)], norm(plain),
                          len(jax.devices())]))
        """
    )
    assert rows == 2
    for several in found:
        np.testing.assert_allclose(several, expected, rtol=1e-5)


# Arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_numbers_outside_the_domain_are_errors_of_xla(compiled):
    log_prob = fj.Bernoulli().log_prob
    log_prob = jax.jit(log_prob) if compiled else log_prob
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"ValueError: x\[1, 2\] = 7 lies outside"):
        jax.block_until_ready(log_prob(jnp.zeros((2, 3)).at[1, 2].set(7.0), jnp.zeros((2, 3))))
    assert np.isfinite(log_prob(jnp.zeros((2, 3)), jnp.zeros((2, 3))))


def test_the_handler_trusts_nobody():
    """Programs that were made for something else are errors, not crashes."""
    _bridge._is_registered()
    text = json.dumps(["Function", ["kl_standard_normal", [], 0, 1], "values", [[2, 2], [0]]])
    for call, arrays in (
        ("nonsense", (jnp.ones((2, 2)),) * 2),
        (text, (jnp.ones((2, 2)), jnp.ones((3, 2)))),
        (text, (jnp.ones((2, 2), jnp.bfloat16),) * 2),
        (text, (jnp.ones((2, 2)),)),
    ):
        shape = (jax.ShapeDtypeStruct((), "float64"),)
        with pytest.raises(jax.errors.JaxRuntimeError, match="Error: "):
            jax.block_until_ready(_bridge.ffi_call("fastelbo", shape)(*arrays, call=call))


def test_denormals_and_infinite_options_reach_kernels():
    """XLA's threads flush the former, and JSON knows no infinity."""
    tiny = jnp.full((64, 4096), 1e-310)
    slope = jax.jit(jax.grad(lambda m: fj.SquaredError().log_prob(tiny, m, reduction="sum")))
    assert (np.asarray(slope(0 * tiny)) == 2e-310).all()
    x, mean = jnp.array([[3.0]]), jnp.array([[2.0]])
    by_limit = fj.NegativeBinomial(theta=math.inf).log_prob(x, mean)
    np.testing.assert_allclose(by_limit, fj.Poisson(log_input=False).log_prob(x, mean), rtol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit, lambda f: jax.jit(fj.plain()(f))], ids=["", "jit", "plain"]
)
def test_a_weight_of_zero_leaves_nothing_of_an_infinite_kl(transform, reduction):
    """Neither of a number nor of what is traced; NaN stays."""
    x = jnp.array([[1.0], [2.0], [3.0]])
    mu, logvar = jnp.array([[math.inf], [1.0], [0.5]]), jnp.array([[0.0], [1.0], [800.0]])

    def loss(mu, logvar, x_recon, beta=0.0):
        parts = fj.elbo(x, mu, logvar, x_recon, beta=beta, reduction=reduction)
        return parts.elbo.sum(), parts

    for given in ((), (0.0,), (jnp.zeros(()),)):
        rule = transform(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        (value, parts), slopes = rule(mu, logvar, 0 * x, *given)
        expected, gradients = reference.elbo_and_grad(
            x, mu, logvar, 0 * x, beta=0.0, reduction=reduction
        )
        np.testing.assert_allclose(value, np.sum(expected[0]), rtol=1e-15)
        for part, known in zip(parts[:3], expected[:3], strict=True):
            np.testing.assert_allclose(part, known, rtol=1e-15)
        for slope, gradient in zip(slopes, gradients, strict=True):
            np.testing.assert_array_equal(slope, gradient)
        assert np.isnan(rule(mu * np.nan, logvar, 0 * x, *given)[0][0])
    (value, _), _ = rule(mu, logvar, 0 * x, 1.0)
    assert value == -math.inf


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    x, mu = jnp.ones((3, 4), dtype), jnp.full((3, 2), 0.5, dtype)
    result = fj.elbo(x, mu, 0 * mu, 0.25 * x, noise=mu)
    assert {part.dtype.name for part in result} == {dtype}
    assert result.elbo == np.asarray(-4 * 0.75**2 - 0.25, dtype=jnp.dtype(dtype))
    assert jax.grad(lambda mu: fj.kl_standard_normal(mu, mu))(mu).dtype == dtype
    for name in ("NegativeBinomial", "iwae-Bernoulli", "total_correlation"):
        case = CASES[name]
        halves = [jnp.asarray(a).astype(dtype) for a in case.draw(5, "float32").values()]
        found = flatten(case.call(fj, *halves))
        exact = flatten(case.call(fj, *[a.astype(jnp.float32) for a in halves]))
        for mine, known in zip(found, exact, strict=True):
            assert mine.dtype == dtype
            assert mine == known.astype(dtype)


@pytest.mark.parametrize("prior", [None, fastelbo.StandardNormal()])
def test_the_doubly_reparameterized_gradient_weighs_what_comes_through_the_decoder(prior):
    case = CASES["iwae-Bernoulli_and_grad"]
    x, z, mu, logvar, _ = case.draw(5, "float64", L=3).values()
    decoder = np.random.default_rng(5).normal(size=(z.shape[-1], x.shape[-1]))
    options = {"likelihood": "bernoulli", "prior": prior, "estimator": "dreg"}

    def bound(z, mu, logvar, decoder):
        return 2 * fj.iwae(x, z, mu, logvar, lambda z: z @ decoder, **options)

    value, slopes = jax.jit(jax.value_and_grad(bound, (0, 1, 2, 3)))(z, mu, logvar, decoder)
    np.testing.assert_allclose(bound(z, mu, logvar, decoder), value, rtol=1e-12)
    expected, gradient = fastelbo.iwae_and_grad(x, z, mu, logvar, z @ decoder, **options)
    through = gradient.z + gradient.weights[..., None] * (gradient.x_recon @ decoder.T)
    by_decoder = np.einsum("kbl,kbd->ld", z, gradient.x_recon)
    for mine, known in zip((value, *slopes), (expected, through, 0, 0, by_decoder), strict=True):
        np.testing.assert_allclose(mine, 2 * known, rtol=1e-10, atol=1e-13)


def test_integers_and_masks():
    x = jnp.array([[0, 3], [1, 200]], jnp.uint8)
    mask = jnp.array([True, False])
    rate = jnp.array([[0.5, 1.0], [2.0, 3.0]])
    found = fj.Poisson().log_prob(x, rate, mask=mask, reduction="none")
    expected = reference.Poisson().log_prob(x, rate, mask=mask, reduction="none")
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_rows_that_share_a_scale_have_elbos_of_their_own():
    arrays = CASES["elbo"].draw(5, "float64").values()
    found = fj.elbo(*arrays, likelihood=fj.Gaussian("optimal"), reduction="none")
    theirs = fastelbo.Gaussian("optimal")
    expected = fastelbo.elbo(*arrays, likelihood=theirs, reduction="none")
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-12)


def test_elements_have_their_gradients():
    x, logits = CASES["Bernoulli"].draw(5, "float64").values()
    rule = jax.vjp(lambda a: fj.Bernoulli().log_prob(x, a, reduction="elementwise"), logits)[1]
    _, (slope,) = reference.Bernoulli().log_prob_and_grad(x, logits, reduction="sum")
    np.testing.assert_allclose(*rule(np.cos(x)), slope * np.cos(x), rtol=1e-12)


def test_a_series_may_be_masked_by_its_times():
    x = np.arange(12.0).reshape(2, 3, 2)
    seen = jnp.array([[True, False, True], [True, True, False]])
    arrays = jnp.arange(3.0), jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.zeros((2, 3, 2))
    found = fj.latent_ode_elbo(x, *arrays, mask=seen, reduction="none")
    np.testing.assert_allclose(found.elbo, [-(0 + 1 + 16 + 25), -(36 + 49 + 64 + 81)])


def test_noise_is_a_function_of_the_key():
    zero = jnp.zeros((300, 100), jnp.float32)
    draw = jax.jit(lambda key: fj.reparameterize(zero, zero, rng=key))
    first, second = jax.random.split(jax.random.key(3))
    eps = draw(first)
    assert (eps == draw(first)).all()
    assert (eps != draw(second)).mean() > 0.999
    assert abs(eps.mean()) < 0.02
    assert abs(eps.std() - 1) < 0.02
    keys = jnp.stack([first, second])
    both = jax.vmap(draw)(keys)
    assert (both[0] == eps).all()
    old = jax.random.PRNGKey(3)
    assert draw(old).shape == zero.shape
    with fj.plain():
        plain = fj.reparameterize(zero, zero, rng=first, samples=2)
    assert plain.shape == (2, 300, 100)
    assert abs(plain.std() - 1) < 0.02


def test_gradients_reach_mu_and_logvar_through_z():
    mu, logvar = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, -1.0]])
    noise = jnp.array([[0.3, 2.0]])
    slopes = jax.grad(lambda *a: fj.reparameterize(*a, noise=noise).sum(), (0, 1))(mu, logvar)
    np.testing.assert_allclose(slopes[0], 1.0)
    np.testing.assert_allclose(slopes[1], 0.5 * np.exp(0.5 * logvar) * noise, rtol=1e-15)


def test_posteriors_of_a_delta_vae_have_the_gradients_of_their_backward():
    case = CASES["delta_posterior"]
    mu, logvar = case.draw(5, "float64").values()
    flows = np.cos(mu), np.sin(logvar)
    found, back = jax.vjp(lambda *a: fj.delta_posterior(*a, delta=0.3), mu, logvar)
    expected = reference.delta_posterior(mu, logvar, delta=0.3)
    slopes = reference.delta_posterior_backward(*flows, mu, logvar, delta=0.3)
    for mine, known in zip((*found, *back(flows)), (*expected, *slopes), strict=True):
        np.testing.assert_allclose(mine, known, rtol=1e-12)


@pytest.mark.parametrize("name", ["vimco", "reinforce"])
@pytest.mark.parametrize("transform", [lambda function: function, fj.plain()])
def test_bounds_of_discrete_latents_hand_log_q_its_signal(name, transform):
    (log_w,) = CASES[name].draw(5, "float64").values()
    for reduction in REDUCTIONS:

        def bound(*arrays, reduction=reduction):
            return getattr(fj, name)(*arrays, reduction=reduction).sum()

        value, slopes = transform(jax.value_and_grad(bound, (0, 1)))(log_w, np.sin(log_w))
        expected, known = getattr(reference, f"{name}_and_grad")(log_w, reduction=reduction)
        for mine in (value, bound(log_w, np.sin(log_w))):
            np.testing.assert_allclose(mine, np.sum(expected), rtol=1e-12)
        np.testing.assert_allclose(slopes, known, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "name",
    [
        *("log_weights[Bernoulli]", "effective_sample_size", "normalized_weights"),
        *("product_of_experts", "product_of_experts[masked]", "mopoe[masked]"),
    ],
)
def test_what_fastelbo_gives_no_gradients_of_has_those_of_its_formulas(name):
    case = CASES[name]
    arrays = case.draw(5, "float64", E=3)
    free = [i for i, name in enumerate(arrays) if name not in ("x", "mask")]
    for options in ({}, *case.options):

        def loss(*given, options=options):
            values = flatten(case.call(fj, *given, **options))
            return sum(jnp.vdot(jnp.cos(jnp.arange(v.size)), v) for v in values), values

        rule = jax.grad(loss, free, has_aux=True)
        slopes, values = jax.jit(rule)(*arrays.values())
        known, _ = jax.jit(fj.plain()(rule))(*arrays.values())
        expected = flatten(case.reference(*arrays.values(), **options))
        for mine, theirs in zip((*values, *slopes), (*expected, *known), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-13)
        assert all((slope != 0).any() for slope in slopes)


def test_times_are_checked_unless_they_are_traced():
    one = jnp.ones((1, 2))
    with pytest.raises(ValueError, match=r"t = 1.0 lies outside \[0, 1\)"):
        fj.flow_matching(one, 1.0, one)
    with pytest.raises(ValueError, match="times"):
        fj.latent_ode_elbo(one, jnp.array([1.0, 0.0]), one, one, one)
    assert jax.jit(fj.flow_matching)(one, 0.5, 0 * one) == -8.0


def test_likelihoods_are_pytrees():
    x, mean = jnp.array([[0.0, 3.0]]), jnp.array([[1.0, 2.0]])
    theta = jnp.array([2.0, 5.0])
    likelihood = fj.NegativeBinomial(theta=theta)
    loss = jax.jit(lambda likelihood: likelihood.log_prob(x, mean))
    slope = jax.grad(loss)(likelihood)
    _, (_, expected) = reference.NegativeBinomial().log_prob_and_grad(x, mean, theta)
    assert isinstance(slope, fj.NegativeBinomial)
    np.testing.assert_allclose(slope.theta, expected, rtol=1e-12)
    np.testing.assert_allclose(loss(likelihood), likelihood.log_prob(x, mean), rtol=1e-15)
    mapped = jax.vmap(loss)(fj.NegativeBinomial(theta=jnp.stack([theta, 2 * theta])))
    np.testing.assert_allclose(mapped[0], loss(likelihood), rtol=1e-15)
    scaled = jax.grad(lambda s: fj.Gaussian(s).log_prob(x, mean))(2.0)
    np.testing.assert_allclose(scaled, (2 / 4 - 2) / 2, rtol=1e-12)
    assert jax.tree.structure(fj.Gaussian("learned")).num_leaves == 0
    assert "theta" in repr(likelihood)
    censored = fj.Weibull(observed=jnp.array([[True, False]]))
    passed = jax.jit(lambda w: w.log_prob(x + 1, mean, mean))(censored)
    np.testing.assert_allclose(passed, censored.log_prob(x + 1, mean, mean), rtol=1e-15)


def test_priors_are_pytrees_and_estimate_the_kl():
    """By a mixture of one component that is the standard normal, the KL is log q - log p of z."""
    x, mu, logvar = jnp.ones((2, 3)), jnp.array([[0.5], [1.0]]), jnp.array([[0.1], [-0.2]])
    noise = jnp.array([[0.3], [-1.0]])
    prior = fj.VampPrior(jnp.zeros((1, 1)), jnp.zeros((1, 1)))

    def loss(mu, logvar, prior):
        return fj.elbo(x, mu, logvar, x, prior=prior, noise=noise).elbo

    slopes = jax.jit(jax.grad(loss, (0, 1, 2)))(mu, logvar, prior)
    given = (np.asarray(a) for a in (x, mu, logvar, x))
    result, expected = fastelbo.elbo_and_grad(
        *given, noise=np.asarray(noise), prior=fastelbo.StandardNormal()
    )
    np.testing.assert_allclose(loss(mu, logvar, prior), result.elbo, rtol=1e-12)
    np.testing.assert_allclose(slopes[0], expected.mu, rtol=1e-12)
    np.testing.assert_allclose(slopes[1], expected.logvar, rtol=1e-12)
    z = np.asarray(mu + np.exp(logvar / 2) * noise)
    np.testing.assert_allclose(slopes[2].mu, z.mean(0, keepdims=True), rtol=1e-12)
    standard = jax.jit(loss)(mu, logvar, fj.StandardNormal())
    np.testing.assert_allclose(standard, result.elbo, rtol=1e-12)
    assert repr(fj.StandardNormal()) == "StandardNormal()"
    assert repr(prior) == "VampPrior(1 components, 1 dimensions)"
