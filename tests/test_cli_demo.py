"""`fastelbo`, `fastelbo info` and `fastelbo demo`."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from fastelbo import VAE, __version__, build_info
from fastelbo._cli import COMMANDS, main
from tests.conftest import fresh_python
from tests.test_vae_training import raising

needs_extras = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sklearn", "matplotlib", "tqdm")),
    reason="needs the demo extra",
)


def demo(*arguments):
    return main(["demo", *map(str, arguments)])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def pictures(tmp_path):
    """40 pictures of 5 x 6 pixels in an .npz, with labels."""
    path = tmp_path / "pictures.npz"
    X = np.random.default_rng(0).integers(0, 256, (40, 5, 6)).astype(np.uint8)
    y = np.array(["bag", "coat", "dress"])[np.arange(40) % 3]
    np.savez(path, X=X, y=y, other=np.zeros((40, 3), complex))
    return path


def refused(capsys, arguments, *words):
    """The command ends with code 2 and one line on stderr that has these words in it."""
    try:
        code = demo(*arguments)
    except SystemExit as exit:
        code = exit.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("fastelbo demo: ")
    for word in words:
        assert word in line


def without(monkeypatch, absent):
    """As if a module were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == absent else find(name, *a)
    )


# fastelbo ---------------------------------------------------------------------------------------


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastelbo {__version__}\n"
    assert main([]) == 2
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert name in shown
    for wrong in (["nonsense"], ["info", "--unknown"]):
        with pytest.raises(SystemExit) as exit:
            main(wrong)
        assert exit.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert "--" in capsys.readouterr().out


def test_info(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for word in (__version__, build_info()["build"], np.__version__):
        assert word in shown
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["build"] == build_info()["build"]


def test_interruption(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("fastelbo._cli.info.build_info", interrupted)
    assert main(["info"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough():
    """As `head` has: no traceback, and no failure."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fastelbo", "info"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_as_a_module_it_imports_no_more_than_it_needs():
    code = (
        "import sys; from fastelbo._cli import main; code = main(['info']); "
        "assert not {'matplotlib', 'tqdm', 'sklearn', 'torch', 'fastelbo._cli.bench'} "
        "& set(sys.modules); sys.exit(code)"
    )
    done, again = fresh_python("-c", code), fresh_python("-m", "fastelbo", "info")
    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    assert again.stdout == done.stdout


# fastelbo demo ----------------------------------------------------------------------------------


@needs_extras
def test_demo_on_digits(out, capsys):
    assert demo("--epochs", 8, "--output", out, "--seed", 3, "--beta", 0.5, "--latent-dim", 6) == 0
    shown = capsys.readouterr()
    for word in (
        "1797 samples",
        "64 - 256 - (6) - 256 - 64",
        "beta 0.5",
        "test ELBO",
        "IWAE, K = 500",
        "active units",
    ):
        assert word in shown.out
    assert "vae.png" in shown.out
    bounds = [line.split()[-2] for line in shown.out.splitlines() if "IWAE" in line]
    assert len(bounds) == 4
    assert sorted(bounds, key=float) == bounds  # they grow with K
    assert "8/8" in shown.err
    assert "KL=" in shown.err
    assert sorted(path.name for path in out.iterdir()) == ["vae.npz", "vae.png"]
    assert (out / "vae.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    model = VAE.load(out / "vae.npz")
    assert (model.n_iter_, model.latent_dim, model.beta) == (8, 6, 0.5)
    assert f"{model.n_parameters_:,}" in shown.out

    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert demo("--epochs", 8, "--output", out, "--seed", 3, "--beta", 0.5, "--latent-dim", 6) == 0
    again = VAE.load(out / "vae.npz")
    np.testing.assert_array_equal(again._model.adam.parameters, model._model.adam.parameters)
    assert (out / "vae.png").read_bytes() == first["vae.png"]


@needs_extras
@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.parametrize("kind", ["pictures", "table", "float pictures", "constant", "one class"])
def test_demo_on_files(tmp_path, out, pictures, kind, latent_dim, capsys):
    generator = np.random.default_rng(0)
    path, likelihood = tmp_path / "data.npy", "gaussian"
    if kind == "pictures":
        path, likelihood = pictures, "bernoulli"
    elif kind == "table":
        np.save(path, generator.standard_normal((30, 7)))
    elif kind == "float pictures":
        np.save(path, generator.random((11, 4, 4)))
    elif kind == "constant":
        np.save(path, np.full((20, 3), 0.5, np.float32))
        likelihood = "bernoulli"
    else:
        path = tmp_path / "data.npz"
        np.savez(path, some=generator.random((20, 16)))
        likelihood = "squared_error"
    options = ["--likelihood", likelihood, "--latent-dim", latent_dim, "--hidden", 9, 5]
    assert demo("--data", path, "--epochs", 1, "--output", out, *options) == 0
    assert sorted(p.name for p in out.iterdir()) == ["vae.npz", "vae.png"]
    assert VAE.load(out / "vae.npz").hidden == (9, 5)
    shown = capsys.readouterr().out
    assert path.name in shown
    assert "1 epoch, batches" in shown


@needs_extras
def test_quick(out, tmp_path):
    np.save(tmp_path / "data.npy", np.zeros((20, 4)))
    assert demo("--data", tmp_path / "data.npy", "--quick", "--output", out) == 0
    assert VAE.load(out / "vae.npz").n_iter_ == 20


@pytest.fixture
def figure(monkeypatch, out):
    """The figure of a demo with these options."""
    drawn = []

    def drawn_by(*options):
        from fastelbo._cli import _demo_figure

        make = _demo_figure.draw
        monkeypatch.setattr(
            _demo_figure, "draw", lambda **shown: drawn.append(make(**shown)) or drawn[-1]
        )
        assert demo(*options, "--epochs", 1, "--hidden", 8, "--output", out) == 0
        return drawn[-1]

    return drawn_by


def panel(figure, title):
    """The axes below this title, and what comes next: what has none belongs to it."""
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    return figure.axes[titles.index(title) :]


def named(axes):
    """The names of classes on it."""
    return [text for text in axes.texts if text.get_text()]


@needs_extras
def test_the_picture(figure, pictures):
    drawn = figure("--data", pictures, "--latent-dim", 2)
    first, *_ = panel(drawn, "Reconstruction")
    assert [text.get_text() for text in first.get_yticklabels()] == ["data", "rebuilt"]
    latent, *_ = panel(drawn, "Latent map")
    assert [text.get_text() for text in named(latent)] == ["bag", "coat", "dress"]
    filled, hollow = latent.collections
    assert (len(filled.get_offsets()), len(hollow.get_offsets())) == (32, 8)
    top, bottom, *_ = panel(drawn, "Training")
    labels = [line.get_label() for axes in (top, bottom) for line in axes.get_lines()]
    assert labels == ["ELBO, training", "ELBO, test", "KL"]
    for axes in (top, bottom):
        for line in axes.get_lines():
            assert line.get_marker() == "o", "one epoch is a point that is seen"
        (low, high), values = axes.get_ylim(), axes.get_lines()[0].get_ydata()
        assert low < values.min() <= values.max() < high
    units, *_ = panel(drawn, "Units")
    assert [text.get_text() for text in units.get_xticklabels()] == ["$z_{1}$", "$z_{2}$"]
    heights = [bar.get_height() for bar in units.patches]
    active = sum(height > 0.01 for height in heights)
    assert units.get_title(loc="right").startswith(f"{active} of 2 active")
    for bar, height in zip(units.patches, heights, strict=True):
        assert (bar.get_facecolor()[:3] == (1, 1, 1)) == (height <= 0.01)


@needs_extras
def test_one_latent_dimension_has_one_axis(figure, pictures, tmp_path):
    latent, *_ = panel(figure("--data", pictures, "--latent-dim", 1), "Latent map")
    assert [text.get_text() for text in latent.get_yticklabels()] == ["bag", "coat", "dress"]
    np.save(tmp_path / "table.npy", np.random.default_rng(0).random((40, 7)))
    latent, *_ = panel(figure("--data", tmp_path / "table.npy", "--latent-dim", 1), "Latent map")
    assert latent.get_ylabel() == "density"


@needs_extras
def test_labels_that_are_whole_numbers(figure, tmp_path):
    """As words or not, they come in their order."""
    X, y = np.random.default_rng(0).random((40, 7)), np.array(["10", "2", "-3", "2"] * 10)
    np.savez(tmp_path / "numbered.npz", X=X, y=y)
    latent, *_ = panel(figure("--data", tmp_path / "numbered.npz", "--latent-dim", 1), "Latent map")
    assert [text.get_text() for text in latent.get_yticklabels()] == ["-3", "2", "10"]


@needs_extras
def test_labels_that_name_each_row_are_none(figure, tmp_path):
    X = np.random.default_rng(0).random((80, 7))
    np.savez(tmp_path / "named.npz", X=X, y=[f"row {i}" for i in range(80)])
    latent, *_ = panel(figure("--data", tmp_path / "named.npz", "--latent-dim", 2), "Latent map")
    assert not named(latent)


def table(shown):
    """What the demo printed, by the names of the rows."""
    lines = (line.strip().split("  ", 1) for line in shown.splitlines())
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


@needs_extras
def test_torch_trains_as_numpy_does(out, capsys):
    """The same weights to begin with and the same noise: PyTorch's autograd and Adam, with the
    losses of fastelbo.torch, lead where those of fastelbo.VAE do."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    found = {}
    for framework in ("numpy", "torch"):
        options = ["--epochs", 6, "--output", out, "--beta", 0.5, "--hidden", 64, 32]
        assert demo(*options, "--framework", framework) == 0
        found[framework] = table(capsys.readouterr().out)
    assert set(found["numpy"]) == set(found["torch"])
    for row in ("test ELBO", "reconstruction", "KL", "IWAE, K = 1", "IWAE, K = 500"):
        values = [float(found[framework][row].split()[0]) for framework in found]
        assert values[1] == pytest.approx(values[0], abs=0.05), row
    assert found["torch"]["parameters"] == found["numpy"]["parameters"]
    assert torch.__version__ in found["torch"]["threads"]
    assert torch.get_num_threads() == threads
    assert sorted(path.name for path in out.iterdir()) == ["vae.npz", "vae.png", "vae.pt"]
    weights = torch.load(out / "vae.pt", weights_only=True)
    assert weights["decoder.4.weight"].shape == (64, 64)
    count = sum(w.numel() for w in weights.values())
    assert f"{count:,}" == found["torch"]["parameters"]


@needs_extras
@pytest.mark.parametrize("likelihood", ["gaussian", "squared_error"])
def test_torch_on_files(likelihood, out, tmp_path, capsys):
    pytest.importorskip("torch")
    np.save(tmp_path / "data.npy", np.random.default_rng(0).standard_normal((30, 7)))
    options = ["--data", tmp_path / "data.npy", "--epochs", 2, "--likelihood", likelihood]
    found = []
    for framework in ("numpy", "torch"):
        assert demo(*options, "--framework", framework, "--output", out) == 0
        found.append(float(table(capsys.readouterr().out)["test ELBO"].split()[0]))
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_an_epoch_cut_short_leaves_a_model_of_torch_as_it_was():
    pytest.importorskip("torch")
    from fastelbo._cli._demo_torch import Model

    X = np.random.default_rng(0).random((40, 7)).astype(np.float32)
    models = [Model(hidden=(8,), latent_dim=2, batch_size=10, random_state=0) for _ in range(2)]
    for model in models:
        model.partial_fit(X)
    cut = models[0].set_params(beta=raising(KeyboardInterrupt(), 6))
    with pytest.raises(KeyboardInterrupt):
        cut.partial_fit(X)
    np.testing.assert_array_equal(cut.transform(X), models[1].transform(X))
    for model in models:
        model.set_params(beta=1.0).partial_fit(X)
    np.testing.assert_array_equal(cut.transform(X), models[1].transform(X))


@needs_extras
def test_without_threadpoolctl(out, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "data.npy", np.zeros((20, 4)))
    options = ["--data", tmp_path / "data.npy", "--epochs", 1, "--output", out]
    assert demo(*options) == 0
    assert table(capsys.readouterr().out)["threads"].startswith("1 for the kernels")
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert demo(*options) == 0
    assert table(capsys.readouterr().out)["threads"] == "1 for the kernels"


def csv(path, X, words):
    lines = [",".join([*map(str, row), f'"{word}, a"']) for row, word in zip(X, words, strict=True)]
    names = [f"gene {i}" for i in range(X.shape[1])]
    table = "\n\n".join([",".join(['"gene\n"', *names[1:], "kind"]), *lines])
    path.write_text(f"\n{table}\n\n", "utf-8-sig")


def parquet(path, X, words):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(X).rename(columns=str)
    frame.insert(3, "kind", pandas.Categorical([f"{word}, a" for word in words]))
    frame.to_parquet(path)


def npz(path, X, words):
    np.savez(path, X=X, kind=[f"{word}, a" for word in words])


def sparse_npz(path, X, words):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    scipy_sparse.save_npz(path, scipy_sparse.coo_array(X))


def h5ad(path, X, words):
    anndata = pytest.importorskip("anndata")
    scipy_sparse = pytest.importorskip("scipy.sparse")
    cells = anndata.AnnData(scipy_sparse.csr_matrix(X.astype(float)))
    cells.obs["kind"] = [f"{word}, a" for word in words]
    cells.layers["half"] = X / 2
    cells.write_h5ad(path)


@needs_extras
@pytest.mark.parametrize("write", [csv, parquet, npz, sparse_npz, h5ad])
def test_counts_and_labels_of_files(write, figure, tmp_path, out, capsys):
    path = tmp_path / f"data.{write.__name__.removeprefix('sparse_')}"
    X = np.random.default_rng(0).poisson(0.8, (40, 9))
    words = np.array(["bee", "ant", "fly"])[np.arange(40) % 3]
    write(path, X, words)
    named_by = [] if write in (csv, sparse_npz) else ["--labels", "kind"]
    found = {}
    for framework in ("numpy", *(["torch"] if importlib.util.find_spec("torch") else [])):
        drawn = figure("--data", path, *named_by, "--framework", framework)
        latent, *_ = panel(drawn, "Latent map")
        classes = [] if write is sparse_npz else ["ant, a", "bee, a", "fly, a"]
        assert [text.get_text() for text in named(latent)] == classes
        found[framework] = table(capsys.readouterr().out)
        assert "40 samples of 9 values" in found[framework]["data"]
        assert "negative_binomial likelihood" in found[framework]["objective"]
        bound = float(found[framework]["test ELBO"].split()[0])
        assert bound == pytest.approx(float(found["numpy"]["test ELBO"].split()[0]), abs=0.02)
    model = VAE.load(out / "vae.npz")
    assert f"{model.n_parameters_:,}" == found["numpy"]["parameters"]
    assert (model.likelihood, model.n_features_in_) == ("negative_binomial", 9)


@needs_extras
def test_bytes_are_counts_where_they_are_to_be(tmp_path, figure, out, capsys):
    np.save(tmp_path / "data.npy", np.random.default_rng(0).poisson(0.8, (40, 9)).astype(np.uint8))
    figure("--data", tmp_path / "data.npy", "--likelihood", "poisson")
    model = VAE.load(out / "vae.npz")
    assert 0.4 < model.inverse_transform(np.zeros((1, 10))).mean() < 3  # not 0.8 / 255


TABLE = "a,b,c\n" + "1,2,x\n" * 20
BAD_TABLES = {
    "": "expected a line of names, a header, and a line a sample",
    "1,2\n3,4\n": "expected a line of names, a header, and a line a sample",
    "a,b\n": "expected 2 values a line, as the header has names, got 0 in the first",
    "a,b\n1,2,3\n": "expected 2 values a line, as the header has names, got 3 in the first",
    "a,b,c\nx,2,y\n": "expected numbers in column 'a': --labels names the one of labels",
    TABLE + "1,z,y\n": "expected numbers in all columns but labels: could not convert string 'z'",
    TABLE + "1\n": "expected numbers in all columns but labels: invalid column index",
    "a,b\n1,2\n": "expected at least 10 samples, got 1",
    TABLE + "1,2\n": "expected numbers in all columns but labels: invalid column index",
    "a;b\n1;2\n": "expected commas between values, got 'a;b'",
    "\xff": "no CSV file to read",
}


@needs_extras
@pytest.mark.parametrize("text", BAD_TABLES)
def test_bad_tables(text, tmp_path, out, capsys):
    path = tmp_path / "data.csv"
    path.write_text(text, "latin-1")
    refused(capsys, ["--data", path, "--output", out], f"{path}: {BAD_TABLES[text]}")
    assert not out.exists()


@needs_extras
def test_cells_without_counts(tmp_path, out, capsys):
    anndata = pytest.importorskip("anndata")
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(layers={"raw": np.ones((20, 3))}).write_h5ad(path)
    words = f"{path}: it has no X: --key names a layer, of ['raw']"
    refused(capsys, ["--data", path, "--output", out], words)
    refused(capsys, ["--data", path, "--key", "rare", "--output", out], "no layer 'rare'", "raw")


@needs_extras
def test_bad_labels_and_other_kinds(tmp_path, out, monkeypatch, capsys):
    path, rest = tmp_path / "data.csv", ["--output", out]
    path.write_text("a,b,c\n" + "".join(f"{i},2,name {i}\n" for i in range(100)))
    refused(capsys, ["--data", path, "--labels", "d", *rest], "no column 'd'; there are: a, b, c")
    refused(capsys, ["--data", path, "--labels", "c", *rest], "different words, got shape (100,)")
    refused(capsys, ["--labels", "c", *rest], "--labels names labels of a file: it needs --data")
    for end, *modules in ((".parquet", "pandas", "pyarrow"), (".h5ad", "anndata")):
        bad = tmp_path / f"data{end}"
        bad.write_bytes(bytes(40))
        if all(importlib.util.find_spec(needed) for needed in modules):
            refused(capsys, ["--data", bad, *rest], f"{bad}: no ", "damaged or of another kind")
        with monkeypatch.context() as patch:
            without(patch, modules[0])
            needed = f"needs {modules[0]}", f"pip install {modules[0]}"
            refused(capsys, ["--data", bad, *rest], *needed)
    assert not out.exists()


BAD_DATA = {
    "missing": (lambda p: None, "no such file"),
    "folder": (lambda p: p.mkdir(), "no such file"),
    "text": (lambda p: p.write_text("1,2\n3,4\n"), "no .npy or .npz to read"),
    "empty": (lambda p: p.write_bytes(b""), "no .npy or .npz to read"),
    "broken npz": (
        lambda p: p.write_bytes(b"PK\x03\x04" + bytes(40)),
        "it is damaged or of another kind",
    ),
    "pickle": (lambda p: save(p, np.array([{}, 1], dtype=object)), "it holds Python objects"),
    "text array": (lambda p: save(p, np.full((20, 3), "a")), "expected numbers"),
    "complex": (lambda p: save(p, np.zeros((20, 3), complex)), "expected numbers"),
    "vector": (lambda p: save(p, np.zeros(20)), "got shape (20,)"),
    "four axes": (lambda p: save(p, np.zeros((20, 2, 2, 3))), "got shape (20, 2, 2, 3)"),
    "no features": (lambda p: save(p, np.zeros((20, 0))), "got shape (20, 0)"),
    "few": (lambda p: save(p, np.zeros((9, 4))), "at least 10 samples"),
    "nan": (lambda p: save(p, spoiled(np.nan)), "nan at row 7, column 2"),
    "inf": (lambda p: save(p, spoiled(np.inf)), "inf at row 7, column 2"),
    "too large": (lambda p: save(p, spoiled(1e300)), "inf at row 7, column 2"),
    "domain": (lambda p: save(p, spoiled(1.5)), "data.npy[7, 2] = 1.5 lies outside"),
}


@needs_extras
@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix"])
def test_sparse_data_that_are_damaged(kind, tmp_path, out, capsys):
    sparse = pytest.importorskip("scipy.sparse")
    X = getattr(sparse, kind)(np.eye(20, 3))
    X.indices[1] = 1 << 20
    sparse.save_npz(tmp_path / "data.npz", X)
    refused(capsys, ["--data", tmp_path / "data.npz", "--output", out], "damaged or of another k")


def save(path, array):
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=True)


def spoiled(value):
    X = np.zeros((20, 4))
    X[7, 2] = value
    return X


@needs_extras
@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data(kind, tmp_path, out, capsys):
    write, words = BAD_DATA[kind]
    path = tmp_path / "data.npy"
    write(path)
    refused(capsys, ["--data", path, "--output", out], words)
    assert not out.exists()


@needs_extras
def test_bad_keys(pictures, out, tmp_path, capsys):
    refused(capsys, ["--data", pictures, "--key", "Z", "--output", out], "no array 'Z'", "X, y")
    refused(capsys, ["--data", pictures, "--key", "other", "--output", out], "complex128")
    refused(capsys, ["--data", pictures, "--key", "y", "--output", out], "expected numbers")
    np.savez(tmp_path / "two.npz", a=np.zeros((20, 3)), b=np.zeros((20, 3)))
    refused(capsys, ["--data", tmp_path / "two.npz", "--output", out], "no array 'X'", "a, b")
    np.save(tmp_path / "one.npy", np.zeros((20, 3)))
    refused(capsys, ["--data", tmp_path / "one.npy", "--key", "a", "--output", out], "--key")
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "-3"), ("--epochs", "0"), ("--epochs", "many"), ("--latent-dim", "0"),
        ("--latent-dim", "1.5"), ("--beta", "-1"), ("--beta", "nan"), ("--beta", "inf"),
        ("--beta", "much"), ("--hidden", "0"), ("--likelihood", "cauchy"), ("--seed", "-1"),
        ("--framework", "jax"),
    ],
)  # fmt: skip
def test_bad_options(option, value, out, capsys):
    wanted = "choose from" if option in ("--likelihood", "--framework") else "expected a"
    refused(capsys, [option, value, "--output", out], option, wanted)
    assert not out.exists()


@needs_extras
def test_a_key_without_a_file(out, capsys):
    refused(capsys, ["--key", "X", "--output", out], "--key", "needs --data")


@needs_extras
def test_unwritable_output(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.write_text("mine")
    refused(capsys, ["--output", taken], "cannot write to", "file")
    refused(capsys, ["--output", taken / "below"], "cannot write to")
    assert taken.read_text() == "mine"
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        refused(capsys, ["--output", locked], "cannot write to")


@needs_extras
def test_a_failure_leaves_nothing(tmp_path, out, monkeypatch, capsys):
    np.save(tmp_path / "data.npy", np.zeros((20, 4)))
    arguments = ["--data", tmp_path / "data.npy", "--epochs", 1, "--output"]

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert demo(*arguments, out / "below") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in said
    assert said.endswith("vae.png'")
    assert not out.exists()
    out.mkdir()
    (out / "vae.png").write_text("old")
    assert demo(*arguments, out) == 2
    assert [path.name for path in out.iterdir()] == ["vae.png"]
    assert (out / "vae.png").read_text() == "old"


@pytest.mark.parametrize("absent", ["sklearn", "matplotlib", "tqdm", "torch"])
def test_missing_extras(absent, monkeypatch, out, capsys):
    without(monkeypatch, absent)
    name = {"sklearn": "scikit-learn"}.get(absent, absent)
    extra = "torch" if absent == "torch" else "demo"
    options = ["--framework", "torch", "--output", out]
    refused(capsys, options, name, f'pip install "fastelbo[{extra}]"')
    assert not out.exists()
