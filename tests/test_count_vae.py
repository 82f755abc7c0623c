"""CountVAE: single cells' counts, by facts worked by hand and on generated cells."""

import copy
import pickle

import numpy as np
import pytest

import fastelbo
from fastelbo import CountVAE, reference
from fastelbo._count_network import CountVisible, drawn_counts, likelihood_of_counts
from fastelbo._files import read_arrays
from fastelbo._sklearn import NotFittedError
from tests.conftest import fresh_python, numerical_gradient
from tests.example_scripts import loaded
from tests.test_vae_files import changed, write

SMALL = {"hidden": (8,), "latent_dim": 2, "epochs": 2, "batch_size": 16, "random_state": 0}
KINDS = ("nb", "zinb", "poisson")
sparse = pytest.importorskip("scipy.sparse")
pytestmark = pytest.mark.filterwarnings("ignore:the posterior has collapsed")


@pytest.fixture(scope="module")
def data():
    """(counts (40, 6), labels of batches)."""
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(1.0, 2.0, 6), (40, 6))
    X[:, 0] += 1
    return X, np.array(["b", "a", "c"])[rng.integers(3, size=40)]


@pytest.fixture(scope="module")
def model(data):
    return CountVAE(**SMALL).fit(data[0], batch=data[1])


def adata_of(data, **more):
    anndata = pytest.importorskip("anndata")
    X, batch = data
    names = [f"gene{i}" for i in range(X.shape[1])]
    found = anndata.AnnData(sparse.csr_matrix(X), **more)
    found.var_names, found.obs["lab"] = names, batch
    found.layers["counts"] = X.astype(np.uint8)
    return found


# What is computed -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_by_hand(data, kind):
    """Encoder, decoder and score, from the weights, in NumPy."""
    X, batch = data
    model = CountVAE(**{**SMALL, "likelihood": kind, "dtype": "float64"}).fit(X, batch=batch)
    network, one_hot = model._model, (batch[:, None] == ["a", "b", "c"]).astype(float)

    def layers(network, x):
        (first, last), (bias, end) = network.weights, network.biases
        return np.maximum(x @ first + bias, 0) @ last + end

    seen = np.hstack([np.log1p(X), one_hot])
    mu = layers(network.encoder, seen)[:, :2]
    np.testing.assert_allclose(model.transform(X, batch=batch), mu, rtol=1e-10, atol=1e-12)

    def parameters(z, one_hot, library):
        outputs = layers(network.decoder, np.hstack([z, one_hot]))
        shares = np.exp(outputs[:, :6])
        mean = library * shares / shares.sum(axis=1, keepdims=True)
        theta = [] if kind == "poisson" else [np.exp(network.log_theta)]
        return mean, *theta, *([outputs[:, 6:]] if kind == "zinb" else [])

    library = X.sum(axis=1, keepdims=True)
    mean, *others = parameters(mu, one_hot, library)
    options = {"batch": batch, "library_size": "observed"}
    np.testing.assert_allclose(model.normalized_expression(X, **options), mean, rtol=1e-9)
    to_b = parameters(mu, np.array([[0.0, 1.0, 0.0]]).repeat(40, axis=0), 1e4)
    found = model.normalized_expression(X, batch=batch, transform_batch="b", library_size=1e4)
    np.testing.assert_allclose(found, to_b[0], rtol=1e-9)
    rest = 1 / (1 + np.exp(others[-1])) if kind == "zinb" else 1.0
    found = model.inverse_transform(mu, batch=batch, library_size=library[:, 0])
    np.testing.assert_allclose(found, mean * rest, rtol=1e-9)

    # So little noise that q is a point: its reconstruction is log p(x|mu).
    network.encoder.weights[-1][:, 2:] = 0
    network.encoder.biases[-1][2:] = -60
    formula = getattr(reference, type(model.likelihood_).__name__)
    options = {"log_input": False} if kind == "poisson" else {}
    expected = formula(**options).log_prob(X, mean, *others, reduction="none")
    found, kl = model.score_parts(X, batch=batch)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(kl, 0.5 * ((mu**2).sum(axis=1) + 2 * (np.exp(-60) - 1 + 60)))
    np.testing.assert_array_equal(model.score_samples(X, batch=batch), found - kl)


@pytest.mark.parametrize("prior", ["standard", "vamp"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_step_is_that_of_differences(data, kind, prior):
    X, batch = data
    shape = {"latent_dim": 2, "dtype": "float64", "prior": prior, "prior_components": 3}
    model = CountVAE(**{**SMALL, **shape, "likelihood": kind}).fit(X, batch=batch)
    network, rows = model._model, np.arange(7)
    cells = model._cells(X, batch)

    def climbed(flat):
        network.adam.parameters[...] = flat
        value, kl = network.step(cells, rows, model.likelihood_, 0.7, 0.0, 5, 0.0, 1)
        return value - 0.7 * kl

    flat = network.adam.parameters.copy()
    climbed(flat)
    found = network.adam.grads.copy()
    expected = numerical_gradient(climbed, flat, step=1e-5)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)
    assert kind == "poisson" or (np.abs(found[-6:]) > 1e-3).any()  # of log theta


def test_cells_without_a_count(data):
    """Means of 0: log p(0|0) = 0, whatever the dispersion and the further zeros."""
    X = np.vstack([data[0], np.zeros((1, 6), int)])
    for kind in KINDS:
        model = CountVAE(**SMALL, likelihood=kind).fit(X)
        reconstruction, kl = model.score_parts(X[-1:])
        assert reconstruction == 0
        assert kl > 0
        assert np.isfinite(model.transform(X)).all()
        shares = model.normalized_expression(X)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
        assert not model.normalized_expression(X, library_size="observed")[-1].any()
        assert not model.posterior_predictive(X[-1:], samples=3).any()


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_counts_have_the_moments_of_the_likelihood(kind):
    visible = CountVisible(likelihood_of_counts(kind), 2)
    mean, theta = np.tile([[3.0, 8.0]], (40_000, 1)), np.array([0.8, np.inf])
    outputs = [mean, theta, np.full_like(mean, -1.0)][: len(visible.likelihood.parameters)]
    counts = drawn_counts(visible, outputs, np.random.default_rng(0))
    variance = mean[0] + (0 if kind == "poisson" else mean[0] ** 2 / theta)
    kept = 1 / (1 + np.exp(-1.0)) if kind == "zinb" else 1.0
    expected = kept * mean[0], kept * (variance + mean[0] ** 2) - (kept * mean[0]) ** 2
    assert counts.dtype == np.int64
    np.testing.assert_allclose(counts.mean(axis=0), expected[0], rtol=0.03)
    np.testing.assert_allclose(counts.var(axis=0), expected[1], rtol=0.05)


def test_a_score_is_of_its_cell_alone(model, data):
    X, batch = data
    scores = model.score_samples(X, batch=batch)
    order = np.random.default_rng(1).permutation(40)[:9]
    np.testing.assert_array_equal(model.score_samples(X[order], batch=batch[order]), scores[order])
    assert model.score(X, batch=batch) == scores.mean()
    bounds = model.score_samples(X, batch=batch, samples=500, rng=3)
    assert bounds.mean() > scores.mean()
    np.testing.assert_array_equal(
        model.score_samples(X[order], batch=batch[order], samples=500, rng=3), bounds[order]
    )


# Where counts lie -------------------------------------------------------------------------------


def in_memory(X, folder):
    return [X, X.tolist(), X.astype(np.float32), X.astype(np.uint8), np.asfortranarray(X)]


def in_files(X, folder):
    np.save(folder / "X.npy", X.astype(np.uint16))
    return [np.load(folder / "X.npy", mmap_mode="r")]


def sparse_ones(X, folder):
    return [sparse.csr_array(X), sparse.csr_matrix(X.astype(np.float32)), sparse.csc_array(X)]


@pytest.mark.parametrize("places", [in_memory, in_files, sparse_ones])
def test_wherever_they_lie(model, data, places, tmp_path):
    X, batch = data
    for given in places(X, tmp_path):
        other = CountVAE(**SMALL).fit(given, batch=batch.tolist())
        assert other.history_ == model.history_
        for method in ("transform", "score_samples", "normalized_expression"):
            expected = getattr(model, method)(X, batch=batch)
            np.testing.assert_array_equal(getattr(other, method)(given, batch=batch), expected)


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("backed", [False, True])
def test_of_anndata(model, data, layer, backed, tmp_path):
    anndata = pytest.importorskip("anndata")
    adata = adata_of(data)
    if layer:
        adata.X = np.log1p(data[0])
    if backed:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    other = CountVAE(**SMALL, layer=layer, batch_key="lab").fit(adata)
    assert other.history_ == model.history_
    assert other.batches_.tolist() == ["a", "b", "c"]
    assert other.feature_names_in_.tolist() == adata.var_names.tolist()
    expected = model.transform(data[0], batch=data[1])
    np.testing.assert_array_equal(other.transform(adata), expected)
    some = model.transform(data[0][5:9], batch=data[1][5:9])  # BLAS may round other sizes otherwise
    np.testing.assert_array_equal(other.transform(adata[5:9]), some)
    np.testing.assert_array_equal(CountVAE(**other.get_params()).fit_transform(adata), expected)
    adata.obsm["X_fastelbo"] = other.transform(adata)
    assert adata.obsm["X_fastelbo"].shape == (40, 2)
    if backed:
        adata.file.close()


def test_anndata_is_not_imported():
    code = (
        "import sys, fastelbo\n"
        "fastelbo.CountVAE(epochs=1, hidden=4, beta=0).fit([[1, 9], [9, 1], [0, 3]])\n"
        "assert 'anndata' not in sys.modules\n"
    )
    done = fresh_python("-c", code)
    assert done.returncode == 0, done.stderr


# Batches and genes ------------------------------------------------------------------------------


def test_labels_of_batches(data):
    X, batch = data
    codes = np.unique(batch, return_inverse=True)[1]
    by_name = CountVAE(**SMALL).fit(X, batch=batch)
    by_number = CountVAE(**SMALL).fit(X, batch=10 * codes)
    assert by_number.batches_.tolist() == [0, 10, 20]
    assert by_number.history_ == by_name.history_
    only = by_number.transform(X[:3], batch=[20, 20, 20])
    np.testing.assert_array_equal(only, by_name.transform(X[:3], batch=["c"] * 3))
    assert CountVAE(**SMALL).fit(X).batches_ is None
    for kind in (object, np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else str):
        assert CountVAE(**SMALL).fit(X, batch=batch.astype(kind)).batches_.dtype == "U1"


def test_categories_may_be_unused(data):
    pd = pytest.importorskip("pandas")
    adata = adata_of(data)
    adata.obs["lab"] = pd.Categorical(data[1], categories=["c", "new", "a", "b"])
    model = CountVAE(**SMALL, batch_key="lab").partial_fit(adata)
    assert model.batches_.tolist() == ["a", "b", "c", "new"]
    assert model.partial_fit(adata[10:]).n_iter_ == 2
    own = model.transform(adata)
    adata.obs["lab"] = "new"
    assert (model.transform(adata) != own).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, X, b: m.transform(X), r"batch is missing: .*batches, \['a', 'b', 'c'\]"),
        (lambda m, X, b: m.transform(X, batch=["z", *b[1:]]), "batch 'z' is none of those"),
        (lambda m, X, b: m.transform(X, batch=[7] * 40), "batch 7 is none of those"),
        (
            lambda m, X, b: m.score_samples(X, batch=b[:9]),
            r"batch has shape \(9,\), expected \(40,",
        ),
        (lambda m, X, b: m.transform(X[:, :5], batch=b), "X has 5 features, but CountVAE is expe"),
        (lambda m, X, b: m.partial_fit(-X, batch=b), r"X\[0, 0\] = -\d+ is no count: give the raw"),
        (lambda m, X, b: m.transform(X + 0.5, batch=b), r"X\[0, 0\] = \d+\.5 is no count"),
        (lambda m, X, b: m.transform(sparse.csr_array(X * 1.5), batch=b), "is no count"),
        (lambda m, X, b: m.transform(X * np.nan, batch=b), "X contains NaN"),
        (lambda m, X, b: m.inverse_transform([[0, 0]]), "batch is missing"),
        (
            lambda m, X, b: m.sample(2, library_size=-1, batch="a"),
            r"library_size must be in \[0, 1e\+12\], got -1",
        ),
        (lambda m, X, b: m.sample(2, library_size=1e300, batch="a"), "library_size must be in"),
        (lambda m, X, b: m.sample(2, library_size=9, batch="a", rng=-1), r"rng must lie in \[0"),
        (lambda m, X, b: m.posterior_predictive(X, batch=b, rng="0"), "rng must be an int, .* '0'"),
        (lambda m, X, b: m.fit(iter([X])), "X is an iterable of batches, which fit and"),
        (lambda m, X, b: m.sample(2, library_size=[1] * 3, batch="a"), "library_size has shape"),
        (
            lambda m, X, b: m.normalized_expression(X, batch=b, transform_batch="z"),
            "transform_batch",
        ),
        (lambda m, X, b: m.fit(X, batch=[0.5] * 40), "batch must be .* got dtype float64: astype"),
        (lambda m, X, b: m.fit(X, batch=["a", None] * 20), r"batch\[1\] = None is no label: every"),
        (lambda m, X, b: m.fit(X, batch=[0, np.nan] * 20), r"batch\[1\] = nan is no label: every"),
        (
            lambda m, X, b: m.set_params(likelihood="normal").fit(X),
            'likelihood must be "nb" or "zi',
        ),
        (lambda m, X, b: m.set_params(layer=3).fit(X), "layer must be a str or None, got 3"),
        (lambda m, X, b: m.set_params(batch_key="lab").fit(X), "batch= has the labels"),
        (lambda m, X, b: CountVAE().fit(X).transform(X, batch=b), "fitted with batches"),
    ],
)
def test_what_does_not_fit(model, data, call, message):
    model, (X, batch) = copy.deepcopy(model), data
    before = model.history_, model.transform(X, batch=batch)
    with pytest.raises((TypeError, ValueError), match=message):
        call(model, X, batch)
    assert model.history_ == before[0]
    np.testing.assert_array_equal(model.transform(X, batch=batch), before[1])


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"layer": "raw"}, None, r"layer='raw' is none of adata.layers, \['counts'\]"),
        ({"batch_key": "donor"}, None, r"batch_key='donor' is no column of adata.obs.*\['lab'\]"),
        ({}, lambda a: setattr(a, "X", np.log1p(a.X.toarray())), r"adata.X\[0, 0\] = .* no count"),
        ({}, lambda a: setattr(a, "X", None), r"adata.X is None: layer= names one of \['counts'\]"),
        (
            {"batch_key": "new"},
            lambda a: a.obs.insert(0, "new", 0.5),
            "'new'.: must be integers or",
        ),
        ({"batch_key": "lab"}, lambda a: a.obs.lab.where(a.obs.lab != "a"), None),
    ],
)
def test_anndata_that_do_not_fit(data, options, change, message):
    adata = adata_of(data)
    if message is None:
        adata.obs["lab"] = change(adata)
        message = r"adata.obs\['lab'\] has no batch for cell '\d+'"
    elif change:
        change(adata)
    with pytest.raises((TypeError, ValueError), match=message):
        CountVAE(**SMALL, **options).fit(adata)


def test_anndata_of_dask(data):
    da = pytest.importorskip("dask.array")
    adata = adata_of(data)
    expected = CountVAE(**SMALL).fit(adata).transform(adata)
    lazy = da.from_array(data[0].astype(np.float32), chunks=(15, 6))
    for adata.X in (lazy, lazy.map_blocks(sparse.csr_matrix, meta=sparse.csr_matrix((0, 0)))):
        np.testing.assert_array_equal(CountVAE(**SMALL).fit(adata).transform(adata), expected)
    told_wrong = da.map_blocks(lambda block: block[:, 1:], lazy, chunks=lazy.chunks)
    with pytest.raises(OSError, match=r"X: rows 0 to 39 could not be read: what came has shape"):
        CountVAE(**SMALL).fit(told_wrong)


def test_genes_must_be_those_of_the_model(data):
    adata = adata_of(data)
    model = CountVAE(**SMALL).fit(adata)
    with pytest.raises(ValueError, match="batch_key is missing: the model was fitted to cells"):
        CountVAE(**SMALL).fit(data[0], batch=data[1]).transform(adata)
    with pytest.raises(TypeError, match="batch_key names the column"):
        model.transform(adata, batch=data[1])
    for genes, message in (
        (adata.var_names[::-1], "in another order; adata"),
        (adata.var_names[:-2], "'gene4', 'gene5' missing; adata"),
        (["gene0", "other", *adata.var_names[2:]], "'gene1' missing, 'other' unknown"),
    ):
        other = adata[:, : len(genes)].copy()
        other.var_names = genes
        with pytest.raises(ValueError, match=message):
            model.transform(other)
    mixed = adata[:, adata.var_names[::-1]]
    expected = model.transform(adata)
    np.testing.assert_array_equal(model.transform(mixed[:, model.feature_names_in_]), expected)


# Training and files -----------------------------------------------------------------------------


def test_separates_types_and_mixes_batches():
    """On generated cells: types by neighbours, batches by chance, totals as observed."""
    pytest.importorskip("sklearn")
    example = loaded("single_cells")
    X, kind, batch = example.generated_cells(600, 300, depth=2.0, differ=1.5)
    for likelihood in ("nb", "zinb"):
        options = {"batch_size": 32, "learning_rate": 3e-3, "random_state": 0}
        model = CountVAE(likelihood=likelihood, epochs=20, **options)
        Z = model.fit_transform(sparse.csr_array(X), batch=batch)
        assert example.accuracy(Z, kind) > 0.95
        assert example.accuracy(Z, batch) < np.bincount(batch).max() / 600 + 0.1
        observed = X.sum(axis=1)
        decoded = model.inverse_transform(Z, library_size=observed, batch=batch).sum(axis=1)
        assert decoded.sum() == pytest.approx(observed.sum(), rel=0.05)
        if likelihood == "nb":
            np.testing.assert_allclose(decoded, observed, rtol=1e-4)
        drawn = model.posterior_predictive(X, batch=batch, rng=0)
        assert drawn.sum() == pytest.approx(X.sum(), rel=0.05)


def test_dispersions_are_found():
    """Of genes that vary by nothing else."""
    rng = np.random.default_rng(0)
    theta = np.array([0.5, 2.0, 8.0])
    X = rng.poisson(20 * rng.gamma(theta, 1 / theta, (3000, 3)))
    X = np.hstack([X, rng.poisson(2000.0, (3000, 1))])  # so that shares tell nothing of the others
    model = CountVAE(hidden=4, latent_dim=1, beta=100.0, epochs=60, learning_rate=0.02)
    with pytest.warns(fastelbo.TrainingWarning, match="collapsed"):
        model.set_params(random_state=0).fit(X)
    np.testing.assert_allclose(model.theta_[:3], theta, rtol=0.15)
    assert CountVAE(**SMALL, likelihood="poisson").fit(X[:50]).theta_ is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"likelihood": "zinb", "prior": "vamp", "prior_components": 4, "batch_key": None},
        {"likelihood": "poisson", "prior": "mixture", "early_stopping": True, "dtype": "float64"},
    ],
)
@pytest.mark.parametrize("kind", ["names", "numbers", "none"])
def test_save_and_load(data, options, kind, tmp_path):
    X, batch = data
    given = {"names": batch, "numbers": np.unique(batch, return_inverse=True)[1], "none": None}
    batch = {"batch": given[kind]}
    model = CountVAE(**{**SMALL, **options}).fit(X, **batch)
    model.save(tmp_path / "model.npz")
    others = CountVAE.load(tmp_path / "model.npz"), pickle.loads(pickle.dumps(model))
    for other in (*others, copy.deepcopy(model)):
        assert other.get_params() == model.get_params()
        np.testing.assert_array_equal(other.batches_, model.batches_)
        np.testing.assert_array_equal(
            other.score_samples(X, **batch), model.score_samples(X, **batch)
        )
        assert other.history_ == model.history_
    for each in (model, *others):
        each.partial_fit(X, **batch)
    assert others[0].history_ == others[1].history_ == model.history_


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("batches",), [1, "a"]),
        (("batches",), ["b", "a", "c"]),
        (("batches",), ["a", "a", "b"]),
        (("batches",), []),
        (("batches",), ["a", "b"]),
        (("batches",), None),
        (("parameters", "likelihood"), "bernoulli"),
        (("scored_by", "likelihood", "class"), "Gaussian"),
        (("scored_by", "likelihood", "class"), "ZeroInflatedNegativeBinomial"),
        (("network", "features"), 7),
    ],
)
def test_files_that_are_damaged(model, tmp_path, at, value):
    refused(model, tmp_path / "model.npz", at, value, "cannot be loaded")


def test_files_of_another_likelihood(data, tmp_path):
    """Of as many outputs, none of which are means."""
    model = CountVAE(**SMALL, likelihood="poisson").fit(data[0])
    at, bernoulli = ("scored_by", "likelihood"), {"class": "Bernoulli", "arguments": {}}
    refused(model, tmp_path / "model.npz", at, bernoulli, "is not of counts by their means")


def refused(model, path, at, value, message):
    """A file of the model is not loaded once it has this value there."""
    model.save(path)
    header, arrays = read_arrays(path, "fastelbo.CountVAE", 1)
    header = {"kind": "fastelbo.CountVAE", "version": 1, **header}
    write(path, changed(header, at, value), arrays)
    with pytest.raises(ValueError, match=message):
        CountVAE.load(path)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_what_fails_in_a_first_epoch_changes_nothing(data, method):
    X, batch = data
    model = CountVAE(**SMALL, beta=lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        getattr(model, method)(X, batch=batch)
    with pytest.raises(NotFittedError):
        model.transform(X, batch=batch)
    before = model.set_params(beta=1.0).fit(X, batch=batch).transform(X, batch=batch)
    with pytest.raises(ZeroDivisionError):
        getattr(model.set_params(beta=lambda step: 1 / 0), method)(X, batch=batch)
    np.testing.assert_array_equal(model.transform(X, batch=batch), before)
    assert model.n_iter_ == 2


def test_shares_the_training_of_vae(data):
    """Warm starts, early stopping, callbacks, divergence: the code is that of VAE."""
    X, batch = data
    seen = []
    model = CountVAE(**SMALL, warm_start=True, callbacks=lambda m, f: seen.append(f["epoch"]))
    model.fit(X, batch=batch).fit(sparse.csr_array(X), batch=batch)
    assert seen == [1, 2, 3, 4]
    assert model.n_iter_ == 4
    with pytest.raises(ValueError, match=r"likelihood .* takes another network"):
        model.set_params(likelihood="zinb").fit(X, batch=batch)
    with pytest.raises(ValueError, match="batch 'd' is none of those"):
        model.set_params(likelihood="nb").fit(X, batch=["d"] * 40)
    stopped = CountVAE(**{**SMALL, "epochs": 200, "learning_rate": 0.1}, early_stopping=True)
    stopped.fit(X, batch=batch)
    assert stopped.n_iter_ < 200
    assert max(stopped.history_["val_elbo"]) > stopped.history_["val_elbo"][-1]
    fast = CountVAE(**{**SMALL, "learning_rate": 1e12, "epochs": 20})
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="learning_rate lower"):
        fast.fit(X)
    with pytest.raises(NotFittedError):
        fast.transform(X)


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_to_the_latents(data, kind):
    model = CountVAE(**{**SMALL, "likelihood": kind, "dtype": "float64"}).fit(data[0])
    decode, rows, rng = model._decoder_of(data[0]), np.arange(4), np.random.default_rng(1)
    z = rng.normal(size=(4, model.latent_dim))
    outputs, pullback = decode(z, rows)
    flows = [rng.normal(size=a.shape) for a in outputs]

    def objective(z):
        return sum((flow * a).sum() for flow, a in zip(flows, decode(z, rows)[0], strict=True))

    np.testing.assert_allclose(pullback(*flows), numerical_gradient(objective, z), rtol=1e-6)


def test_reproducible_whatever_the_threads(data):
    X, batch = data
    wide = np.tile(X, (8, 40))
    runs = [
        CountVAE(**{**SMALL, "batch_size": 320}, num_threads=n).fit(wide, batch=np.tile(batch, 8))
        for n in (1, 2)
    ]
    np.testing.assert_array_equal(runs[0]._model.adam.parameters, runs[1]._model.adam.parameters)
    drawn = [run.sample(3, library_size=[9, 9, 0], batch=["a", "b", "a"], rng=1) for run in runs]
    np.testing.assert_array_equal(*drawn)
    assert not drawn[0][2].any()
    again = [run.posterior_predictive(wide[:2], batch=batch[:2], samples=3, rng=1) for run in runs]
    np.testing.assert_array_equal(*again)
    assert again[0].shape == (3, 2, 240)


def test_what_others_make_of_the_model(model, data):
    """Refined posteriors and pictures."""
    X, _ = data
    plain = CountVAE(**SMALL).fit(X)
    found = fastelbo.refine_posterior(plain, X, steps=20, rng=0)
    assert (fastelbo.amortization_gap(plain, X, reduction="none", rng=0) > 0).all()
    assert (found.elbo > plain.score_samples(X) - 0.1).all()
    with pytest.raises(ValueError, match="batch is missing"):
        fastelbo.refine_posterior(model, X)
    figure = pytest.importorskip("matplotlib.figure").Figure()
    plain.plot_reconstructions(X, 3, figure.subplots())
    adata = adata_of(data)
    of_adata = CountVAE(**SMALL, batch_key="lab").fit(adata)
    of_adata.plot_latent(adata, data[1], figure.subplots())
