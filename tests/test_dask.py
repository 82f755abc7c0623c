"""fastelbo.dask: what dask computes chunk by chunk is what arrays in memory give."""

import os
import shutil
import signal
import tracemalloc

import numpy as np
import pytest

import fastelbo
from fastelbo import FreeBits, _training
from fastelbo._catalogue import CASES, OF_ELEMENTS, REDUCTIONS, TOLERANCE
from fastelbo.posterior import NoiseFrom
from tests.conftest import assert_close, fresh_python

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")

import dask.array as da  # noqa: E402

import fastelbo.dask as lazily  # noqa: E402
from fastelbo.dask import _rows  # noqa: E402

LIKELIHOODS = [n for n, case in CASES.items() if case.likelihood and not case.gives_gradients]
#: Of sums in float64, whatever the chunks; in float32 terms are what they are in memory.
MERGED = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): TOLERANCE[np.dtype(np.float32)]}


@pytest.fixture(autouse=True)
def threads(request):
    """Two threads, unless a test asks for the cluster."""
    if "client" in request.fixturenames:
        yield
        return
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def in_chunks(array, size):
    return array if array is None or np.ndim(array) == 0 else da.from_array(array, chunks=size)


def close(got, expected, dtype):
    """Within what chunks may change."""
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=MERGED[np.dtype(dtype)], atol=0)


# Likelihoods ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood(name):
    """Rows and features in chunks that no argument shares with another; masks; every reduction."""
    case = CASES[name]
    likelihood = case.likelihood.make(fastelbo)
    x, *parameters = case.draw(3, np.dtype(np.float64), B=7, D=(9,)).values()
    mask = np.random.default_rng(0).random(x.shape) < 0.7
    lazy = [in_chunks(x, (4, 5)), *(in_chunks(p, 3) for p in parameters)]
    masks = dict(zip(OF_ELEMENTS, (None, mask, None, mask), strict=True))
    got = dask.compute(
        *(
            lazily.log_prob(likelihood, *lazy, mask=in_chunks(some, 2), reduction=reduction)
            for reduction, some in masks.items()
        )
    )
    for value, (reduction, some) in zip(got, masks.items(), strict=True):
        expected = likelihood.log_prob(x, *parameters, mask=some, reduction=reduction)
        size = np.maximum(case.scales((x, *parameters), reduction=reduction)[0], np.abs(expected))
        assert np.shape(value) == np.shape(expected)
        assert (np.abs(value - expected) <= 1e-12 * size).all()


@pytest.mark.parametrize("name", LIKELIHOODS[::6])
def test_samples_and_images_of_either_dtype(name, dtype):
    case = CASES[name]
    likelihood = case.likelihood.make(fastelbo)
    x, *parameters = case.draw(1, dtype, B=5, D=(3, 4)).values()
    several = [
        np.stack([p, p[::-1]]) if "B" in axes else p
        for p, axes in zip(parameters, list(case.inputs.values())[1:], strict=True)
    ]
    for reduction in OF_ELEMENTS:
        got = lazily.log_prob(
            likelihood,
            in_chunks(x, 2),
            *(in_chunks(p, 2) for p in several),
            reduction=reduction,
        )
        expected = likelihood.log_prob(x, *several, reduction=reduction)
        assert got.dtype == np.asarray(expected).dtype
        assert got.shape == np.shape(expected)
        close(got.compute(), expected, dtype)


def test_parts_of_a_likelihood_follow_the_chunks():
    """A scale a feature, a total count a sample, a dispersion a feature."""
    rng = np.random.default_rng(0)
    x, p = rng.integers(0, 4, (6, 5)).astype(float), rng.random((6, 5)) + 0.5
    for likelihood in (
        fastelbo.Laplace(scale=np.arange(1.0, 6)),
        fastelbo.Binomial(np.arange(4, 10)[:, None]),
        fastelbo.NegativeBinomial(theta=np.arange(1.0, 6)),
    ):
        got = lazily.log_prob(likelihood, in_chunks(x, (4, 2)), in_chunks(p, 3)).compute()
        close(got, likelihood.log_prob(x, p), np.float64)
    scales = fastelbo.Laplace(scale=np.ones(4))
    with pytest.raises(ValueError, match=r"scale has shape \(4,\)"):
        lazily.log_prob(scales, in_chunks(x, 2), in_chunks(p, 2))


def test_a_sum_beyond_what_float64_holds():
    x = in_chunks(np.full((4, 1), 1.2e154), 1)
    assert lazily.log_prob("squared_error", x, 0 * x, reduction="sum").compute() == -np.inf


def test_an_optimal_scale_of_what_is_there():
    x, x_recon = np.random.default_rng(0).normal(size=(2, 6, 5))
    x[1, 2] = x[4, 0] = np.nan
    likelihood = fastelbo.Gaussian("optimal", missing="nan")
    got = lazily.log_prob(likelihood, in_chunks(x, 2), in_chunks(x_recon, 2))
    close(got.compute(), likelihood.log_prob(x, x_recon), np.float64)
    assert lazily.log_prob(likelihood, in_chunks(np.nan * x, 2), in_chunks(x, 2)).compute() == 0
    with pytest.raises(ValueError, match="needs a positive, finite mean squared error"):
        lazily.log_prob(likelihood, in_chunks(x, 2), in_chunks(x, 2)).compute()


# Objectives -------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
PRIOR = fastelbo.MixtureOfGaussians(RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)), np.zeros(4))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rng": 5, "beta": 2.0},
        {"noise": RNG.normal(size=(23, 3))},
        {"prior": PRIOR, "rng": 7},
        {"free_bits": 0.3},
        {"free_bits": FreeBits(0.9, granularity="total")},
        {"free_bits": FreeBits(0.2, granularity="sample", below="zero"), "rng": 3},
        {"free_bits": 50.0},
        {"mask": RNG.random((23, 10)) < 0.8, "likelihood": "gaussian"},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_elbo(options, dtype):
    """With the same noise, bit for bit, although every chunk draws its own part."""
    rng = np.random.default_rng(1)
    x, mu, logvar, x_recon = (rng.normal(size=(23, n)).astype(dtype) for n in (10, 3, 3, 10))
    if "noise" in options:
        options = {**options, "noise": options["noise"].astype(dtype)}
    lazy = {k: in_chunks(v, 6) if k in ("noise", "mask") else v for k, v in options.items()}
    for reduction in REDUCTIONS:
        got = lazily.elbo(
            in_chunks(x, (7, 4)),
            in_chunks(mu, (5, 2)),
            in_chunks(logvar, 3),
            in_chunks(x_recon, (9, 3)),
            reduction=reduction,
            **lazy,
        )
        expected = fastelbo.elbo(x, mu, logvar, x_recon, reduction=reduction, **options)
        *values, z = dask.compute(*got)
        for value, one in zip(values, expected, strict=False):
            assert np.shape(value) == np.shape(one)
            assert_close(value, one, dtype, 30)
        np.testing.assert_array_equal(z, expected.z)


def test_elbo_computes_in_the_dtype_that_all_have():
    x, mu = np.ones((4, 2), np.float32), np.full((4, 2), 0.1)
    got = lazily.elbo(*(in_chunks(a, 2) for a in (x, mu, mu, x / 3)), rng=1)
    expected = fastelbo.elbo(x, mu, mu, x / 3, rng=1)
    assert got.z.dtype == expected.z.dtype == np.float64
    assert float(got.elbo) == pytest.approx(expected.elbo, rel=1e-13)


def test_noise_of_some_rows(dtype):
    """A part of a batch draws what the whole would, in every pass that draws."""
    rng = np.random.default_rng(1)
    mu, logvar, grad = (rng.normal(size=(301, 7)).astype(dtype) for _ in range(3))
    rows, key = slice(130, 250), 1 << 63
    noise = NoiseFrom(key, 130 * 7)
    z = fastelbo.reparameterize(mu, logvar, rng=key)
    part = mu[rows], logvar[rows]
    np.testing.assert_array_equal(fastelbo.reparameterize(*part, rng=noise), z[rows])
    np.testing.assert_array_equal(fastelbo.elbo(mu[rows], *part, mu[rows], rng=noise).z, z[rows])
    whole = fastelbo.reparameterize_backward(grad, mu, logvar, None, rng=key)
    some = fastelbo.reparameterize_backward(grad[rows], *part, None, rng=noise)
    for one, all_of_them in zip(some, whole, strict=True):
        np.testing.assert_array_equal(one, all_of_them[rows])


# Bounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0, 1, -1, 0.5, 2, -3])
def test_importance_bound(alpha, dtype):
    log_w = np.random.default_rng(0).normal(-90, 3, (40, 13)).astype(dtype)
    log_w[3, 2] = -np.inf
    for reduction in REDUCTIONS:
        got = lazily.importance_bound(in_chunks(log_w, (7, 5)), alpha=alpha, reduction=reduction)
        close(got, fastelbo.importance_bound(log_w, alpha=alpha, reduction=reduction), dtype)


def test_streaming_bound():
    first = np.random.default_rng(0).normal(-90, 3, (40, 13))
    second, third = first[:9] + 1, first[5:25] - 2
    memory = fastelbo.StreamingBound().update(first).update(second).update(third)
    stream = lazily.StreamingBound().update(in_chunks(first, (7, 5)))
    assert stream.update(in_chunks(second, (4, 3))) is stream
    stream.merge(lazily.StreamingBound().update(in_chunks(third, (6, 5))))
    assert repr(stream) == "StreamingBound(samples=69, batch=13)" == repr(memory)
    for reduction in REDUCTIONS:
        for alpha in (0, 1, -1):
            expected = memory.bound(alpha=alpha, reduction=reduction)
            close(stream.bound(alpha=alpha, reduction=reduction), expected, np.float64)
        expected = memory.standard_error(reduction=reduction)
        close(stream.standard_error(reduction=reduction), expected, np.float64)
    close(stream.effective_sample_size(), memory.effective_sample_size(), np.float64)
    assert stream.merge(lazily.StreamingBound()) is stream
    assert stream.samples == 69
    with pytest.raises(ValueError, match="no log weights yet"):
        lazily.StreamingBound().bound()
    with pytest.raises(ValueError, match=r"other has chunks of \(13,\) rows, expected \(5, 5, 3\)"):
        stream.merge(lazily.StreamingBound().update(first))
    with pytest.raises(ValueError, match=r"log_w has shape \(2, 3\), expected \(samples, 13\)"):
        stream.update(np.zeros((2, 3)))


# Models -----------------------------------------------------------------------------------------

X = np.random.default_rng(0).random((230, 12))


def vae(**options):
    defaults = {"latent_dim": 3, "hidden": (16,), "epochs": 2, "random_state": 0, "batch_size": 50}
    return fastelbo.VAE(**{**defaults, **options})


def test_methods_take_dask_arrays():
    model = vae(dtype="float64").fit(X)
    lazy = in_chunks(X, (70, 5))
    codes, scores = model.transform(lazy), model.score_samples(lazy, samples=5, rng=1)
    assert codes.chunks == ((70, 70, 70, 20), (3,))
    np.testing.assert_allclose(codes, model.transform(X), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(scores, model.score_samples(X, samples=5, rng=1))
    np.testing.assert_array_equal(model.score_samples(lazy[:99]), model.score_samples(X[:99]))
    np.testing.assert_allclose(
        model.inverse_transform(codes), model.inverse_transform(codes.compute()), rtol=1e-12
    )
    assert model.score(lazy[:9]) == pytest.approx(model.score(X[:9]), rel=1e-14)


def test_what_is_lazy_is_of_the_model_as_it_was():
    model = vae().fit(X)
    lazy = model.transform(in_chunks(X, 100))
    # Chunk by chunk, as BLAS may round products of other sizes otherwise.
    expected = np.concatenate([model.transform(X[at : at + 100]) for at in range(0, len(X), 100)])
    model.partial_fit(X)
    np.testing.assert_array_equal(lazy, expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prior": "vamp", "prior_components": 5},
        {"prior": "mixture"},
        {"likelihood": "gaussian"},
        {"free_bits": 0.1},
        {"refine_steps": 2},
        {"beta": fastelbo.BetaSchedule(steps=6)},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_fit_is_that_in_memory(options):
    """Bit for bit where a minibatch is a slice; else but for the rounding of sums."""
    lazy = in_chunks(X, (70, 5))
    memory = vae(dtype="float64", **options).fit(X)
    model = vae(dtype="float64", **options)
    assert model.fit(lazy) is model
    assert type(model) is fastelbo.VAE
    assert model.history_ == memory.history_
    np.testing.assert_array_equal(weights(model), weights(memory))
    np.testing.assert_array_equal(model.score_samples(X[:5]), memory.score_samples(X[:5]))
    sliced = lazily.fit(vae(dtype="float64", **options), lazy, slice_rows=20)
    np.testing.assert_allclose(weights(sliced), weights(memory), rtol=0, atol=1e-12)
    np.testing.assert_allclose(sliced.history_["elbo"], memory.history_["elbo"], rtol=1e-12)


def weights(model):
    return model._model.adam.parameters


def test_a_fitted_model_goes_on_in_memory(tmp_path):
    model = vae().fit(in_chunks(X, 100))
    model.save(tmp_path / "model.npz")
    found = fastelbo.VAE.load(tmp_path / "model.npz").partial_fit(X)
    np.testing.assert_array_equal(weights(found), weights(model.partial_fit(X)))


def test_partial_fit_goes_on():
    """From where a model stands, in memory or on dask; one that fails stays there."""
    lazy = in_chunks(X, (70, 5))
    memory, model = vae().fit(X).partial_fit(X).partial_fit(X), vae().fit(lazy)
    assert model.partial_fit(lazy, y=None) is model
    before = weights(model).copy()
    with pytest.raises(ValueError, match="domain of Bernoulli"):
        model.partial_fit(3 * lazy)
    with pytest.raises(ValueError, match="X has 7 features"):
        model.partial_fit(lazy[:, :7])
    with pytest.raises(TypeError, match="beta"):
        model.set_params(beta=lambda step: 1.0 if step < 12 else "one").partial_fit(lazy)
    np.testing.assert_array_equal(weights(model), before)
    lazily.partial_fit(model.set_params(beta=1.0), lazy)
    np.testing.assert_array_equal(weights(model), weights(memory))
    assert model.history_ == memory.history_
    np.testing.assert_array_equal(weights(vae().partial_fit(lazy)), weights(vae().partial_fit(X)))


def test_memory_is_that_of_some_chunks(monkeypatch):
    """16 MB of x, of which two threads hold some MB; and training as many as it reads together."""
    monkeypatch.setattr(_rows, "POOL", 1 << 20)
    monkeypatch.setattr(_training, "SAMPLED", 100)
    x = da.random.default_rng(0).random((8000, 250), chunks=(250, 250))
    model = vae(epochs=1, batch_size=200, hidden=(4,))
    for call in (lambda: lazily.log_prob("bernoulli", x, x).compute(), lambda: model.fit(x)):
        tracemalloc.start()
        try:
            call()
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < x.nbytes / 3


# What is wrong ----------------------------------------------------------------------------------


def test_chunks_of_unknown_size():
    unknown = in_chunks(X, 100)[in_chunks(X, 100)[:, 0] > 0.5]
    for call in (
        lambda: lazily.log_prob("bernoulli", unknown, unknown),
        lambda: vae().fit(unknown),
        lambda: fastelbo.CountVAE().fit(unknown),
    ):
        with pytest.raises(ValueError, match=r"(x|X) has chunks of unknown size.*chunk_sizes"):
            call()
    with pytest.raises(ValueError, match="log_w has chunks of unknown size"):
        lazily.importance_bound(unknown)
    with pytest.raises(ValueError, match="Z has chunks of unknown size"):
        lazily.inverse_transform(vae().fit(X), unknown)


def ragged():
    """A dask array whose second chunk has a column too few."""
    parts = [X[:100], X[100:200, :11], X[200:]]
    return da.concatenate(
        [da.from_delayed(dask.delayed(part), (len(part), 12), X.dtype) for part in parts]
    )


def test_a_chunk_of_another_width():
    where = r"chunk \(1, 0\) has shape \(100, 11\), but dask has it down as \(100, 12\)"
    with pytest.raises(ValueError, match="x: " + where):
        lazily.log_prob("bernoulli", ragged(), in_chunks(X, 100)).compute()
    model = vae()
    with pytest.raises(ValueError, match="X: " + where) as caught:
        model.fit(ragged())
    assert "the model is as it was" in caught.value.__notes__[0]
    assert not hasattr(model, "_model")
    with pytest.raises(ValueError, match="X: " + where):
        vae().fit(X).transform(ragged()).compute()


def test_values_outside_the_domain_are_told_with_their_chunk():
    bad = X.copy()
    bad[150, 7] = 3
    lazy = in_chunks(bad, (100, 6))
    with pytest.raises(ValueError, match=r"in chunk \(1, 1\) of x, .* \[100, 6\]: x\[50, 1\] = 3 "):
        lazily.log_prob("bernoulli", lazy, lazy).compute()
    model = vae().fit(X)
    before = model.history_
    with pytest.raises(ValueError, match=r"in chunk \(1, 0\) of X, .*: X\[50, 7\] = 3 "):
        model.fit(lazy)
    assert model.history_ is before
    with pytest.raises(ValueError, match=r"in chunk \(1, 0\) of X, .*: X\[50, 7\] = 3 "):
        model.score_samples(lazy).compute()


class Frame:
    """As a data frame of dask to those who look only for its method."""

    def to_dask_array(self):
        raise NotImplementedError


LEARNED = fastelbo.Gaussian("learned")
OPTIMAL = fastelbo.ColumnLikelihood([(fastelbo.Gaussian("optimal"), slice(0, None))])


def test_shapes_and_options():
    lazy, mu, log_prob = in_chunks(X, 100), np.zeros((230, 2)), lazily.log_prob
    for call, error, words in (
        (lambda: lazily.log_prob("bernoulli", lazy, lazy[:, :3]), ValueError, "logits has shape"),
        (lambda: lazily.log_prob("bernoulli", lazy), TypeError, "takes 1 decoder output"),
        (lambda: lazily.log_prob("bernoulli", lazy[0, 0], lazy), ValueError, "x has shape"),
        (lambda: log_prob("categorical", lazy, lazy[:9, :, None]), ValueError, "axis of its"),
        (lambda: log_prob(LEARNED, lazy, lazy, lazy[:, :3]), ValueError, "log_scale has shape"),
        (lambda: log_prob(OPTIMAL, lazy, lazy), ValueError, "which all chunks give together"),
        (lambda: lazily.log_prob("bernoulli", lazy, lazy, mask=X[:2] > 0), ValueError, "mask has"),
        (lambda: lazily.log_prob("bernoulli", lazy, lazy, reduction="max"), ValueError, "reducti"),
        (lambda: lazily.elbo(lazy, mu[:9], mu[:9], lazy), ValueError, r"mu has shape \(9, 2\)"),
        (lambda: lazily.elbo(lazy, mu, mu[:, :1], lazy), ValueError, "logvar has shape"),
        (lambda: lazily.elbo(lazy, mu, mu, lazy, prior=PRIOR), ValueError, "rng or noise"),
        (lambda: lazily.elbo(lazy, mu, mu, lazy, beta=-1), ValueError, "beta must be"),
        (lambda: lazily.importance_bound(lazy[0]), ValueError, "log_w has shape"),
        (lambda: lazily.importance_bound(Frame()), TypeError, "log_w is a data frame"),
        (lambda: lazily.importance_bound(lazy[:0]), ValueError, "log_w is empty"),
        (
            lambda: lazily.StreamingBound().merge(fastelbo.StreamingBound()),
            TypeError,
            "other must be a StreamingBound of dask",
        ),
        (
            lambda: (
                lazily.StreamingBound()
                .update(lazy)
                .merge(lazily.StreamingBound().update(lazy[:, :3]))
            ),
            ValueError,
            "other has chunks of",
        ),
        (lambda: vae().fit(lazy[:, 0]), ValueError, "Expected 2D array"),
        (lambda: vae().fit(X).transform(lazy[:, :3]), ValueError, r"X has shape \(230, 3\)"),
        (lambda: vae().transform(lazy), ValueError, "not fitted"),
        (lambda: lazily.fit(vae(), lazy, slice_rows=0), ValueError, "slice_rows must be"),
        (
            lambda: lazily.fit(fastelbo.CountVAE(), lazy),
            TypeError,
            "model must be a VAE, got Count",
        ),
        (lambda: vae(latent_dim=0).fit(lazy), ValueError, "latent_dim must be"),
        (lambda: vae(early_stopping=True).fit(lazy), ValueError, "early_stopping and"),
        (lambda: vae(missing="nan").fit(lazy), ValueError, "missing='nan' fills in by means"),
    ):
        with pytest.raises(error, match=words):
            call()
    for likelihood in ("squared_error", "gaussian"):
        with (
            np.errstate(all="ignore"),
            pytest.warns(fastelbo.TrainingWarning, match="X is not scaled"),
            pytest.raises(FloatingPointError, match=r"epoch 1 .*not scaled, .* reach 1e\+30"),
        ):
            lazily.fit(vae(likelihood=likelihood), 1e30 * lazy, slice_rows=20)


def test_a_store_that_vanishes(tmp_path):
    """Zarr would read zeros, without a word."""
    zarr = pytest.importorskip("zarr")
    store = zarr.open(tmp_path / "x", mode="w", shape=X.shape, chunks=(100, 12), dtype=X.dtype)
    store[:] = X
    model, lazy = vae(), da.from_zarr(tmp_path / "x")
    inlined = da.from_zarr(store, inline_array=True)
    expected = vae().fit(X)
    np.testing.assert_array_equal(weights(lazily.fit(vae(), store)), weights(expected))

    def vanish(step):
        if step == 2:
            shutil.rmtree(tmp_path / "x")
        return 1.0

    with pytest.raises(FileNotFoundError, match=r"X: the store vanished while chunk \(\d, 0\) was"):
        model.set_params(beta=vanish, epochs=3).fit(lazy)
    assert not hasattr(model, "_model")
    for gone in (store, lazy, inlined + 1):
        with pytest.raises(FileNotFoundError, match=r"x: the store vanished while chunk \(\d, 0\)"):
            lazily.log_prob("squared_error", gone, in_chunks(X, 100)).compute()


def test_hdf5_and_memmaps(tmp_path):
    h5py = pytest.importorskip("h5py")
    X.tofile(tmp_path / "x.bin")
    mapped = np.memmap(tmp_path / "x.bin", X.dtype, "r", shape=X.shape)
    expected = fastelbo.Bernoulli().log_prob(X, X)
    close(lazily.log_prob("bernoulli", in_chunks(mapped, 50), X), expected, X.dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=X, chunks=(50, 12))
        close(lazily.log_prob("bernoulli", data, X), expected, X.dtype)


def test_threads_of_kernels_in_tasks(monkeypatch):
    """One in each thread of a worker, unless told."""
    seen = []
    plain = fastelbo.Bernoulli.log_prob

    def spy(self, *arrays, **options):
        seen.append(fastelbo.get_num_threads())
        return plain(self, *arrays, **options)

    monkeypatch.setattr(fastelbo.Bernoulli, "log_prob", spy)
    for num_threads in ({}, {"num_threads": 2}):
        lazily.log_prob("bernoulli", in_chunks(X, 100), X, **num_threads).compute()
    assert seen == [1] * 3 + [min(2, len(os.sched_getaffinity(0)))] * 3


def test_import_without_dask():
    """fastelbo does without; fastelbo.dask says what to install."""
    script = (
        "import sys, fastelbo; assert not {'dask', 'distributed'} & set(sys.modules)\n"
        "sys.modules['dask'] = None\n"
        "import fastelbo.dask"
    )
    done = fresh_python("-c", script)
    assert done.stderr.splitlines()[-1] == (
        'ModuleNotFoundError: fastelbo.dask needs dask: pip install "fastelbo[dask]"'
    )


# On a cluster -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    """Of two processes, on any free ports: beside others, it is not to warn."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_on_a_cluster(client):
    """The numbers of one process, in no more memory of any than chunks take."""

    def most_memory():
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])

    lazy, memory = in_chunks(X, 100), vae().fit(X)
    close(lazily.log_prob("bernoulli", lazy, lazy), fastelbo.Bernoulli().log_prob(X, X), X.dtype)
    close(lazily.importance_bound(lazy), fastelbo.importance_bound(X), X.dtype)
    np.testing.assert_array_equal(memory.score_samples(lazy[:9]), memory.score_samples(X[:9]))
    trained = lazily.fit(vae(), lazy.persist(), client=client)
    np.testing.assert_array_equal(weights(trained), weights(memory))
    large = da.random.default_rng(0).random((32_000, 250), chunks=(500, 250))
    client.wait_for_workers(2)
    before = client.run(most_memory)
    lazily.log_prob("bernoulli", large, large).compute()
    grown = [most - before[worker] for worker, most in client.run(most_memory).items()]
    assert max(grown) < large.nbytes / 2


def dies_at(folder, at):
    """A function of a chunk, which kills the process that reads the chunk so many chunks are
    read before."""

    def read(block):
        number = 0
        while True:
            try:
                os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                number += 1
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    return read


def survives(call, folder, at):
    """Whether `call` gives on a cluster, a worker of which dies, what it gives on threads."""
    with dask.config.set(scheduler="threads"):
        expected = call(in_chunks(X, 60))
    deadly = in_chunks(X, 60).map_blocks(dies_at(folder, at), dtype=X.dtype, meta=X[:0])
    got = call(deadly)
    assert (folder / str(at)).exists()
    np.testing.assert_array_equal(got, expected)


def test_training_survives_a_worker(client, tmp_path):
    """It dies when rows are read for the first steps, and others are kept by it."""
    model = vae(batch_size=100, epochs=1)
    survives(lambda x: weights(lazily.fit(model, x, slice_rows=50)), tmp_path, 7)


def test_what_is_computed_survives_a_worker(client, tmp_path):
    survives(lambda x: lazily.log_prob("bernoulli", x, 2 * x).compute(), tmp_path, 2)
