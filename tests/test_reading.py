"""X read where it lies: whatever holds it, models are those of an array in memory, bit for bit."""

import copy

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, SemiSupervisedVAE, VAEOutlierDetector, _reading
from fastelbo._reading import Rows

OPTIONS = {"hidden": (8,), "latent_dim": 2, "batch_size": 32, "epochs": 2, "random_state": 0}
#: What reads sparse x itself, and what is given it dense.
SPARSE = ("negative_binomial", "zero_inflated_negative_binomial", "poisson", "squared_error")


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(0.4, (150, 20)).astype(np.uint8)


def as_sparse(kind):
    return lambda X, folder: getattr(pytest.importorskip("scipy.sparse"), kind)(X)


def in_pieces(X, folder):
    """CSR of ones that add up, each row backwards."""
    rows = [np.repeat(np.arange(X.shape[1]), row)[::-1] for row in X]
    columns, ends = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    sparse = pytest.importorskip("scipy.sparse")
    return sparse.csr_array((np.ones(len(columns)), columns, ends), X.shape)


def in_memmap(X, folder):
    path = folder / "x.dat"
    X.tofile(path)
    return np.memmap(path, X.dtype, "r", shape=X.shape)


def in_columns(X, folder):
    np.save(folder / "x.npy", np.asfortranarray(X))
    return np.load(folder / "x.npy", mmap_mode="r")


def in_hdf5(X, folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "x.h5", "w") as file:
        file["X"] = X
    return h5py.File(folder / "x.h5")["X"]


def in_zarr(X, folder):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(folder / "x.zarr"), shape=X.shape, chunks=(64, 20), dtype=X.dtype)
    array[:] = X
    return array


def in_h5ad(X, folder):
    anndata = pytest.importorskip("anndata")
    sparse = pytest.importorskip("scipy.sparse")
    anndata.AnnData(sparse.csr_matrix(X.astype(np.float32))).write_h5ad(folder / "x.h5ad")
    return anndata.read_h5ad(folder / "x.h5ad", backed="r").X


def in_dask(X, folder):
    return pytest.importorskip("dask.array").from_array(X, chunks=(64, 7))


PLACES = {
    "list": lambda X, folder: X.tolist(),
    "float32": lambda X, folder: X.astype(np.float32),
    "float16": lambda X, folder: X.astype(np.float16),
    "bfloat16": lambda X, folder: X.astype(pytest.importorskip("ml_dtypes").bfloat16),
    "big-endian": lambda X, folder: X.astype(">f8"),
    "columns": lambda X, folder: np.asfortranarray(X, np.float64),
    "strides": lambda X, folder: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "memmap": in_memmap,
    "columns in a memmap": in_columns,
    "HDF5": in_hdf5,
    "Zarr": in_zarr,
    "h5ad": in_h5ad,
    "CSR": as_sparse("csr_matrix"),
    "CSR of float64": lambda X, folder: as_sparse("csr_array")(X.astype(np.float64), folder),
    "CSR in pieces": in_pieces,
    "CSC": as_sparse("csc_array"),
    "COO": as_sparse("coo_matrix"),
}


def same(model, other):
    np.testing.assert_array_equal(model._model.adam.parameters, other._model.adam.parameters)
    assert model.history_ == other.history_


@pytest.mark.parametrize("place", PLACES)
def test_wherever_it_lies(counts, place, tmp_path):
    for likelihood in SPARSE[:1] if place not in ("CSR", "memmap") else SPARSE:
        options = {**OPTIONS, "likelihood": likelihood, "validation_fraction": 0.2}
        X = PLACES[place](counts, tmp_path)
        before = copy.deepcopy(X) if isinstance(X, np.ndarray) else None
        model, expected = VAE(**options).fit(X), VAE(**options).fit(counts)
        exact = not (likelihood == "poisson" and place == "CSR")  # whose sums are others
        if exact:
            same(model, expected)
        for method, given in (
            ("transform", {}),
            ("score_samples", {}),
            ("score_samples", {"samples": 3}),
        ):
            np.testing.assert_allclose(
                getattr(model, method)(X, **given),
                getattr(expected, method)(counts, **given),
                rtol=0 if exact else 1e-6,
            )
        model.set_params(refine_steps=1).partial_fit(X).transform(X)
        if before is not None:
            np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("dtype", ["Float32", "Float64", object])
def test_frames_with_the_missing_values_of_pandas(dtype):
    pandas = pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    X[::4, 1] = X[1::7, 2] = np.nan
    frame = pandas.DataFrame(X).astype(dtype)
    frame = frame.where(~np.isnan(X), None if dtype is object else pandas.NA)
    options = {**OPTIONS, "likelihood": "gaussian"}
    model, expected = (VAE(**options, missing="nan").fit(A) for A in (frame, X))
    same(model, expected)
    np.testing.assert_array_equal(model.impute(frame), expected.impute(X.astype(np.float64)))
    with pytest.raises(ValueError, match=r"nan at row 0, column 1; missing=\"nan\" takes it"):
        VAE(**options).fit(frame)


def test_an_annotated_matrix_is_for_another_model(counts):
    anndata = pytest.importorskip("anndata")
    adata = anndata.AnnData(counts.astype(np.float32))
    for model in (VAE(**OPTIONS, likelihood="poisson").fit(adata.X), VAE(), SemiSupervisedVAE()):
        with pytest.raises(TypeError, match="X is no matrix, but of the class AnnData: pass the m"):
            model.fit(adata, counts[:, 0])


def test_masks_are_not_ignored(counts):
    masked = np.ma.masked_array(counts, counts == 1)
    model = VAE(**OPTIONS, likelihood="poisson").fit(np.ma.masked_array(counts))  # none of it is
    same(model, VAE(**OPTIONS, likelihood="poisson").fit(counts))
    y = np.ma.masked_array(np.arange(150) % 2, np.arange(150) > 9)
    for name, call in (
        ("X", lambda: model.fit(masked)),
        ("X, batch 1", lambda: model.fit([counts, masked])),
        ("X", lambda: model.transform(masked)),
        ("Z", lambda: model.inverse_transform(np.ma.masked_array(np.ones((1, 2)), [[0, 1]]))),
        ("x", lambda: fastelbo.refine_posterior(model, masked)),
        ("X", lambda: fastelbo.CountVAE(**OPTIONS).fit(masked)),
        ("batch", lambda: fastelbo.CountVAE(**OPTIONS).fit(counts, batch=y)),
        ("y", lambda: SemiSupervisedVAE(**OPTIONS, likelihood="poisson").fit(counts, y)),
    ):
        with pytest.raises(TypeError, match=rf"^{name}\b.* is a masked array, whose mask would"):
            call()


@pytest.mark.parametrize("place", ["memmap", "columns in a memmap", "HDF5", "Zarr", "h5ad"])
def test_slow_disks_and_stores_larger_than_what_is_read_at_once(
    counts, place, tmp_path, monkeypatch
):
    """What is asked for beforehand, and read together, is the same."""
    monkeypatch.setattr(_reading, "SLOW", -1)
    monkeypatch.setattr(_reading, "POOL", 1500)
    monkeypatch.setattr(_reading, "SPAN", 100)
    asked = []
    ask = _reading._Mapped._ask_for
    monkeypatch.setattr(
        _reading._Mapped, "_ask_for", lambda self, rows: asked.extend(rows) or ask(self, rows)
    )
    options = {**OPTIONS, "likelihood": "negative_binomial", "validation_fraction": 0.2}
    model = VAE(**options).fit(PLACES[place](counts, tmp_path))
    same(model, VAE(**options).fit(counts))
    # Of two epochs, all but the first minibatch of 32: 120 rows trained on, 30 held out.
    assert len(asked) == (2 * 150 - 32 if place == "memmap" else 0)


def test_rows_of_dask_in_another_order_than_told():
    da, rows = pytest.importorskip("dask.array"), pytest.importorskip("fastelbo.dask._rows")
    X = np.arange(80.0).reshape(20, 4)
    lazy = rows.Rows(da.from_array(X, chunks=(7, 4)), np.float64)
    lazy.expect(np.arange(20))
    for wanted in ([0, 1, 2], [9, 4, 5], [3, 4, 5], [19, 0]):
        found = np.take(lazy, np.array(wanted), 0, np.empty((len(wanted), 4)), "clip")
        np.testing.assert_array_equal(found, X[wanted])


@pytest.mark.parametrize("place", ["memmap", "CSR", "HDF5", "dask"])
def test_other_models_read_it_so(counts, place, tmp_path):
    in_place = {**PLACES, "dask": in_dask}[place]  # where VAE has training of its own
    X, y = in_place(counts, tmp_path), np.arange(len(counts)) % 3 - 1
    options = {**OPTIONS, "likelihood": "negative_binomial"}
    models = [SemiSupervisedVAE(**options, labelled_repeats=2).fit(A, y) for A in (X, counts)]
    same(*models)
    np.testing.assert_array_equal(models[0].predict_proba(X), models[1].predict_proba(counts))
    detectors = [VAEOutlierDetector(VAE(**options)).fit(A) for A in (X, counts)]
    assert detectors[0].offset_ == detectors[1].offset_
    found = [fastelbo.refine_posterior(models[0], A, steps=2, rng=0).elbo for A in (X, counts)]
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_nothing_is_copied_of_what_is_read_as_it_is():
    X = np.random.default_rng(0).normal(size=(50, 3))
    rows = Rows(X, np.float64)
    assert np.shares_memory(rows[10:20], X)
    some = rows.part(np.array([4, 2, 9]))
    np.testing.assert_array_equal(some[1:], X[[2, 9]])
    np.testing.assert_array_equal(some.take(np.array([2, 0]), out=np.empty((2, 3))), X[[9, 4]])


# Batches ----------------------------------------------------------------------------------------


class Loader:
    """Gives (x, y) of a few rows as often as it is asked, as loaders do."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter([(x, None) for x in self.batches])


def test_batches_are_read_as_often_as_they_come(counts):
    options = {**OPTIONS, "likelihood": "poisson"}
    expected = VAE(**options).fit(counts)
    for X in ([counts], lambda: iter([counts]), Loader(counts), (counts,)):
        same(VAE(**options).fit(X), expected)
    parts = counts[:40], counts[40:47], counts[47:]
    several = VAE(**options).fit(list(parts))
    same(VAE(**options).fit(lambda: (part for part in parts)), several)
    step_by_step = VAE(**options)
    for part in parts * 2:
        step_by_step.partial_fit(part)
    weights = step_by_step._model.adam.parameters
    np.testing.assert_array_equal(weights, several._model.adam.parameters)
    sizes = np.array([len(part) for part in parts])
    for name in ("elbo", "kl"):
        means = np.reshape(step_by_step.history_[name], (2, 3)) @ sizes / len(counts)
        np.testing.assert_allclose(several.history_[name], means, rtol=1e-12)


def test_a_generator_is_one_epoch(counts):
    options = {**OPTIONS, "likelihood": "poisson"}
    once = VAE(**options).fit(part for part in (counts[:70], counts[70:]))
    assert once.n_iter_ == 1
    same(once, VAE(**{**options, "epochs": 1}).fit([counts[:70], counts[70:]]))
    once.partial_fit(part for part in [counts])
    assert once.n_iter_ == 2


def test_errors_of_batches_name_them_and_change_nothing(counts):
    options = {**OPTIONS, "likelihood": "poisson"}
    holed = counts.astype(float)
    holed[8, 3] = np.nan

    def vanishes():
        yield counts
        raise OSError("gone")

    wrong = {
        "X, batch 1: it has 3 features, but the first batch has 20": [counts, counts[:, :3]],
        "X, batch 1: X contains NaN or infinity: nan at row 8, column 3": [counts, holed],
        r"X, batch 0: X\[0, 0\] = -1 lies outside the domain": [counts[:9] * 0 - 1.0],
        "X is empty: it gives no batch: a generator": iter([]),
        "X is empty: it gives no batch$": lambda: [],
        "X, batch 1: X is empty: 0 sample": [counts, counts[:0]],
        "X, batch 1: gone": vanishes,
    }
    fitted = VAE(**options).fit(counts)
    for message, X in wrong.items():
        kind = OSError if X is vanishes else ValueError
        model = VAE(**options)
        with pytest.raises(kind, match=message):
            model.fit(X)
        assert vars(model) == vars(VAE(**options))
        model = copy.deepcopy(fitted)
        for method in (model.fit, model.partial_fit, model.set_params(warm_start=True).fit):
            with pytest.raises(kind, match=message):
                method(X if callable(X) else copy.copy(X))
            same(model, fitted)
    for method in (fitted.transform, fitted.score_samples):
        with pytest.raises(TypeError, match="X is an iterable of batches, which fit and"):
            method([counts])
    with pytest.raises(ValueError, match="hold rows out, of which an iterable"):
        VAE(**options, early_stopping=True).fit([counts])


def test_other_errors_of_batches_have_a_note(counts):
    def vanishes():
        yield counts
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone") as caught:
        VAE(**OPTIONS, likelihood="poisson").fit(vanishes)
    assert caught.value.__notes__ == ["in X, batch 1"]


def test_frames_in_batches_have_the_same_columns(counts):
    pandas = pytest.importorskip("pandas")
    names = [f"gene {i}" for i in range(20)]
    first, other = (pandas.DataFrame(counts, columns=of) for of in (names, names[::-1]))
    model = VAE(**OPTIONS, likelihood="poisson").fit([first, counts])
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"X, batch 1: its columns are \['gene 19', .*"):
            method([first, other])


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["memmap", "CSR", "HDF5"])
def test_errors_name_the_row_of_all(counts, place, tmp_path):
    X = np.tile(counts, (20, 1)).astype(np.float32)
    model = VAE(**OPTIONS, likelihood="poisson").fit(counts)
    for value, message in (
        (np.nan, "X contains NaN or infinity: nan at row 2345, column 7"),
        (-1, r"X\[2345, 7\] = -1 lies outside the domain of Poisson"),
        (0.5, r"X\[2345, 7\] = 0.5 lies outside the domain of Poisson"),
    ):
        X[2345, 7] = value
        (tmp_path / str(value)).mkdir()
        given = PLACES[place](X, tmp_path / str(value))
        for method in (VAE(**OPTIONS, likelihood="poisson").fit, model.fit, model.score_samples):
            with pytest.raises(ValueError, match=message):
                method(given)
    X[2345, 7] = np.nan
    with pytest.raises(ValueError, match="X contains NaN or infinity: nan at row 2345, column 7"):
        model.transform(X)
    X = X.astype(np.float64)
    X[2345, 7] = 1e39
    with pytest.raises(ValueError, match="inf at row 2345, column 7, or a number beyond"):
        model.transform(X)


def test_a_column_without_numbers():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": [None, 2], "kind": [0, "b"], "day": pandas.NaT})
    with pytest.raises(ValueError, match=r"'b' \(at row 1, column 1: of classes give the codes"):
        VAE(**OPTIONS).fit(frame)
    with pytest.raises(ValueError, match=r"convert string to float: 'b'$"):
        VAE(**OPTIONS).fit(frame["kind"])
    frame["kind"] = pandas.Timestamp(0)
    with pytest.raises(TypeError, match=r"X must hold real numbers.*\(at row 0, column 1\)"):
        VAE(**OPTIONS).fit(frame)


def test_sparse_parts_that_do_not_fit(counts):
    sparse = pytest.importorskip("scipy.sparse")
    X = sparse.csr_array(counts)
    X.indices[5] = 20
    for read in (X, sparse.csr_matrix(X, copy=False)):
        with pytest.raises(ValueError, match=r"X.indices\[5\] = 20, in row .*: X has 20 columns"):
            VAE(**OPTIONS, likelihood="poisson").fit(read)
    X = sparse.csc_array(counts)
    X.indices[5] = 1 << 20
    with pytest.raises(ValueError, match="indices"):
        VAE(**OPTIONS, likelihood="poisson").fit(X)


def test_stores_of_which_no_rows_can_be_read(counts, tmp_path):
    anndata = pytest.importorskip("anndata")
    sparse = pytest.importorskip("scipy.sparse")
    model = VAE(**OPTIONS, likelihood="poisson")
    with pytest.raises(TypeError, match="X must hold real numbers, got dtype complex128"):
        model.fit(in_hdf5(counts * 1j, tmp_path))
    anndata.AnnData(sparse.csc_matrix(counts * 1.0)).write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(TypeError, match=r"stored by columns, in the format 'csc'.*X\.to_memory"):
        model.fit(anndata.read_h5ad(tmp_path / "x.h5ad", backed="r").X)


def test_a_store_with_errors_of_its_own():
    class Damaged:
        shape, dtype, chunks = (150, 20), np.dtype(np.uint8), (64, 20)

        def __getitem__(self, rows):
            raise RuntimeError("wrong checksum")

    message = "X: rows 0 to 149 could not be read: RuntimeError: wrong checksum"
    with pytest.raises(OSError, match=message):
        VAE(**OPTIONS, likelihood="poisson").fit(Damaged())


def test_a_store_that_vanishes(counts, tmp_path):
    h5py = pytest.importorskip("h5py")
    X = in_hdf5(counts, tmp_path)
    model = VAE(**OPTIONS, likelihood="poisson").fit(X)
    kept = copy.deepcopy(model)
    model.set_params(callbacks=lambda *_: X.file.close(), warm_start=True)
    with pytest.raises(OSError, match=r"X: rows \d+ to \d+ could not be read"):
        model.fit(X)
    assert isinstance(X, h5py.Dataset)
    assert model.n_iter_ == 3
    for read in (kept.transform, kept.fit):
        with pytest.raises(OSError, match="X could not be read: its HDF5 file is closed"):
            read(X)


def test_a_store_of_zarr_that_vanishes(counts, tmp_path):
    import shutil

    X = in_zarr(counts, tmp_path)
    model = VAE(**OPTIONS, likelihood="poisson").fit(X)
    shutil.rmtree(tmp_path / "x.zarr")
    with pytest.raises(OSError, match="X: rows 0 to 149 could not be read: there is no <Array"):
        model.transform(X)
