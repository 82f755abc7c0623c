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
    np.savez(path, X=X, y=np.arange(40) % 3, other=np.zeros((40, 3), complex))
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


def test_as_a_module_it_imports_no_more_than_it_needs():
    code = (
        "import sys; from fastelbo._cli import main; code = main(['info']); "
        "assert not {'matplotlib', 'tqdm', 'sklearn', 'torch', 'fastelbo._cli.bench'} "
        "& set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    module = [sys.executable, "-m", "fastelbo", "info"]
    again = subprocess.run(module, capture_output=True, text=True, check=True)
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
    "domain": (lambda p: save(p, spoiled(1.5)), "X[7, 2] = 1.5 lies outside"),
}


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
    refused(capsys, ["--data", pictures, "--key", "y", "--output", out], "got shape (40,)")
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
        ("--hidden", "0"), ("--likelihood", "cauchy"), ("--seed", "-1"), ("--framework", "jax"),
    ],
)  # fmt: skip
def test_bad_options(option, value, out, capsys):
    refused(capsys, [option, value, "--output", out], option)
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
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == absent else find(name, *a)
    )
    name = {"sklearn": "scikit-learn"}.get(absent, absent)
    extra = "torch" if absent == "torch" else "demo"
    options = ["--framework", "torch", "--output", out]
    refused(capsys, options, name, f'pip install "fastelbo[{extra}]"')
    assert not out.exists()
