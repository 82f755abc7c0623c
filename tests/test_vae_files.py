"""The files of VAE: whole or not at all, loadable, and harmless."""

import copy
import errno
import io
import json
import os
import pickle
import signal
import stat
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastelbo import VAE, Bernoulli, FreeBits, Gaussian, SquaredError, StudentT, _files
from fastelbo._files import replacing
from tests.conftest import fresh_python
from tests.importance import peak_of
from tests.test_vae import QUICK
from tests.test_vae import bars as bars
from tests.test_vae import fitted as fitted


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"likelihood": "gaussian", "dtype": "float64", "hidden": 12},
        {"likelihood": Gaussian(np.linspace(0.5, 1, 16)), "free_bits": FreeBits(0.1, below="zero")},
        {"likelihood": Gaussian("learned"), "random_state": np.random.default_rng(2)},
        {"likelihood": Bernoulli(validate=False), "latent_dim": np.int64(2), "beta": np.float32(2)},
        {"likelihood": SquaredError(), "free_bits": 0.25, "hidden": [8, 4]},
        {"dtype": np.float64},
        {"dtype": np.dtype("float32")},
    ],
)
def test_save_and_load(bars, tmp_path, options):
    model = VAE(**{**QUICK, **options}).fit(bars)
    path = tmp_path / "model.npz"
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    other = VAE.load(path)
    np.testing.assert_array_equal(other.transform(bars), model.transform(bars))
    np.testing.assert_array_equal(other.score_samples(bars), model.score_samples(bars))
    assert other.history_ == model.history_
    assert other.n_features_in_ == 16
    assert type(other.likelihood) is type(model.likelihood)
    for each in (model, other):
        each.partial_fit(bars)
    np.testing.assert_array_equal(other.transform(bars), model.transform(bars))


class Narrow(VAE):
    """With a few of the parameters, and one of its own."""

    def __init__(self, *, hidden=(6,), epochs=1, more=1):
        super().__init__(hidden=hidden, epochs=epochs)
        self.more = more


def test_a_class_of_other_parameters(bars, tmp_path):
    model = Narrow(more=2).fit(bars)
    model.save(tmp_path / "model.npz")
    other = Narrow.load(tmp_path / "model.npz")
    assert other.more == 2
    np.testing.assert_array_equal(other.transform(bars), model.transform(bars))


def test_save_replaces_whole_or_not_at_all(fitted, tmp_path):
    path = tmp_path / "model.npz"
    path.write_text("old")

    class Own(SquaredError):
        pass

    odd = copy.deepcopy(fitted).set_params(likelihood=Own())
    with pytest.raises(TypeError, match="save knows no Own"):
        odd.save(path)
    broken = copy.deepcopy(fitted)
    broken._model.arrays = lambda: {"parameters": 1 / 0}
    with pytest.raises(ZeroDivisionError):
        broken.save(path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    fitted.save(str(path))
    assert VAE.load(str(path)).n_iter_ == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_dim": 3},
        {"hidden": np.array([5, 4])},
        {"prior": "mixture", "prior_components": 7},
        {"likelihood": StudentT("learned"), "dtype": "float64"},
        {"latent_dim": 9, "hidden": 4, "beta": 0.5, "random_state": None},
    ],
    ids=str,
)
def test_parameters_set_after_fit_are_for_the_next(bars, tmp_path, changes):
    model = VAE(hidden=(6,), latent_dim=2, epochs=1, random_state=0).fit(bars)
    expected = model.transform(bars)
    model.set_params(**changes).save(tmp_path / "model.npz")
    other = VAE.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(other.transform(bars), expected)
    for name, value in model.get_params().items():
        assert repr(other.get_params()[name]) == repr(value)
    assert other.fit(bars).transform(bars).shape == (300, model.latent_dim)


@pytest.mark.parametrize("changes", [{"latent_dim": 0}, {"hidden": "16"}, {"prior": "flow"}])
def test_saves_nothing_that_would_not_load(fitted, tmp_path, changes):
    model = copy.deepcopy(fitted).set_params(**changes)
    with pytest.raises((TypeError, ValueError), match=next(iter(changes))):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


# Writing ----------------------------------------------------------------------------------------


def test_threads_save_to_one_path(bars, tmp_path):
    path = tmp_path / "model.npz"
    models = [VAE(hidden=(h,), latent_dim=2, epochs=1).fit(bars) for h in (40, 300)]
    errors = []

    def work(model, barrier):
        try:
            barrier.wait()
            model.save(path)
        except Exception as error:
            errors.append(error)

    for _ in range(20):
        barrier = threading.Barrier(2)
        workers = [threading.Thread(target=work, args=(m, barrier)) for m in models]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert errors == []
        assert VAE.load(path).hidden in ((40,), (300,))
        assert os.listdir(tmp_path) == ["model.npz"]


def test_the_mode_is_kept(fitted, tmp_path):
    path = tmp_path / "model.npz"
    before = os.umask(0o027)
    try:
        fitted.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    path.chmod(0o604)
    fitted.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_links_are_followed(fitted, tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "model.npz", tmp_path / "link.npz"
    link.symlink_to(Path("there") / "model.npz")
    for _ in range(2):  # to nothing, and to a file
        fitted.save(link)
        assert link.is_symlink()
        assert not target.is_symlink()
        VAE.load(target)
    assert os.listdir(target.parent) == ["model.npz"]


def test_only_regular_files_are_replaced(fitted, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, error, message in (
        (pipe, OSError, "not a regular file"),
        ("/dev/null", OSError, "not a regular file"),
        (tmp_path, IsADirectoryError, "it is a folder"),
        (".", IsADirectoryError, "it is a folder"),
        ("", IsADirectoryError, "no name of a file"),
        (f"{tmp_path}/new/", IsADirectoryError, "no name of a file"),
        (tmp_path / "missing" / "model.npz", FileNotFoundError, "there is no folder '.*missing'"),
        ("missing/model.npz", FileNotFoundError, "there is no folder 'missing'"),
        (pipe / "model.npz", NotADirectoryError, "Not a directory"),
    ):
        with pytest.raises(error, match=message) as caught:
            fitted.save(path)
        assert caught.value.filename == str(path)
    with pytest.raises(ValueError, match=r"path 'a\\x00b': embedded null byte"):
        fitted.save("a\0b")
    for method in (fitted.save, VAE.load):
        with pytest.raises(TypeError, match="path must be a str or path-like, got int"):
            method(3)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(tmp_path) == ["pipe"]
    for path in (pipe, "/dev/zero", tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|it is a folder"):
            VAE.load(path)


def overwrite(path, then):
    with replacing(path) as file:
        file.write(b"new")
        then()


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_errors_name_the_path_and_leave_nothing(failing, tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing != "write":
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left") as caught:
        overwrite(path, full if failing == "write" else lambda: None)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.npz"]


@pytest.mark.parametrize("error", [OSError("no number"), FileNotFoundError(2, "gone", "other")])
def test_errors_of_the_block_are_its_own(error, tmp_path):
    def fail():
        raise error

    with pytest.raises(OSError, match=r"no number|gone: 'other'") as caught:
        overwrite(tmp_path / "model.npz", fail)
    assert caught.value is error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_interruption_leaves_nothing(error, named, tmp_path, monkeypatch):
    """Nor where files have a name from the start, as on other systems."""
    if named:
        monkeypatch.setattr(_files, "DESCRIPTORS", "/nowhere")

    def interrupted():
        assert len(os.listdir(tmp_path)) == named
        raise error

    with pytest.raises(error):
        overwrite(tmp_path / "model.npz", interrupted)
    assert os.listdir(tmp_path) == []
    overwrite(tmp_path / "model.npz", lambda: None)
    assert os.listdir(tmp_path) == ["model.npz"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files have a name from the start")
def test_a_process_that_is_killed_leaves_nothing(tmp_path):
    path = tmp_path / "model.npz"
    path.write_text("old")
    script = """
import os, signal, sys
from fastelbo._files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"new")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = fresh_python("-c", script, path)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["model.npz"]
    assert path.read_text() == "old"


def test_names_as_long_as_they_may_be(fitted, tmp_path):
    path = tmp_path / ("m" * 251 + ".npz")
    fitted.save(path)
    assert VAE.load(path).n_iter_ == 3


def test_what_is_written_is_on_the_disk(fitted, tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd)) or fsync(fd))
    fitted.save(tmp_path / "model.npz")
    assert [stat.S_ISDIR(found.st_mode) for found in synced] == [False, True]
    assert synced[0].st_size == (tmp_path / "model.npz").stat().st_size


# Reading ----------------------------------------------------------------------------------------


@pytest.fixture
def stored(fitted, tmp_path):
    """(path, arrays, header) of a file."""
    path = tmp_path / "model.npz"
    fitted.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    return path, arrays, json.loads(arrays.pop("header").tobytes())


def write(path, header, arrays, savez=np.savez):
    text = header if isinstance(header, str) else json.dumps(header)
    savez(path, **{**arrays, "header": np.frombuffer(text.encode(), np.uint8)})


def refused(path, match="cannot be loaded"):
    with pytest.raises(ValueError, match=match) as caught:
        VAE.load(path)
    assert str(path) in str(caught.value)


def test_damaged_files(stored):
    path, *_ = stored
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path)
    for at in range(0, len(whole), 331):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:  # some bytes of a zip file mean nothing
            VAE.load(path)
        except ValueError as error:
            assert "cannot be loaded" in str(error)  # noqa: PT017


def test_other_files(stored, tmp_path):
    path, arrays, header = stored
    with pytest.raises(FileNotFoundError):
        VAE.load(tmp_path / "nowhere.npz")
    objects = np.array([{"a": 1}], dtype=object)
    for content in (np.zeros(3), objects):
        np.save(path.with_suffix(".npy"), content, allow_pickle=True)
        refused(path.with_suffix(".npy"), "a pickle" if content is objects else "another kind")
    path.write_bytes(pickle.dumps(objects))
    refused(path, "holds Python objects .a pickle.")
    np.savez(path, header=objects)
    refused(path, "holds Python objects .a pickle.")
    np.savez(path, np.zeros(3))
    refused(path)
    write(path, {**header, "version": 99}, arrays)
    refused(path, "its format is 99")
    write(path, {**header, "kind": "other"}, arrays)
    refused(path, "it is no fastelbo.VAE file")
    write(path, header, arrays)
    assert VAE.load(path).n_iter_ == 3


def changed(header, path, value):
    """The header with another value at a path of keys; ... takes it out."""
    header = copy.deepcopy(header)
    *parents, last = path
    inner = header
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return header


NESTED = {"class": "FreeBits", "arguments": {}}


@pytest.mark.parametrize(
    ("at", "values"),
    [
        (("odd",), [1]),
        (("steps",), [..., -1, 1.5, "3", None, True]),
        (("score_key",), [..., -1, 1 << 64, "a"]),
        (("feature_names",), [..., ["a"], [1] * 16, 16 * "a", {"a": 16}]),
        (("generator",), [..., {}, {"bit_generator": "PCG64"}, {"bit_generator": "MT19937"}]),
        (("generator", "state", "state"), [-1, 1 << 200, "a"]),
        (("history",), [..., [], {}, {"elbo": []}, {"elbo": 1, "kl": 1, "reconstruction": 1}]),
        (("history", "elbo"), [[1.0], ["a", "b", "c"], [[], [], []], [0.5, 0.5, None], {}]),
        (("parameters",), [..., {}, []]),
        (("parameters", "gamma"), [1]),
        (("parameters", "beta"), [..., -1, "a", None, [1]]),
        (("parameters", "hidden"), ["a", [0], [[8]], {"array": "parameters"}]),
        (("parameters", "latent_dim"), [0, "3", True, {}]),
        (("parameters", "free_bits"), [NESTED, {"class": "open", "arguments": {"file": "x"}}]),
        (("parameters", "likelihood"), [3, NESTED, {"class": "VAE", "arguments": {}}, "odd"]),
        (("network",), [..., {}]),
        (("network", "features"), [..., 15, 17, 0, -1, "16", 1 << 70]),
        (("network", "hidden"), [[15], [16, 16], [1 << 40], [-16], "16", [1 << 40, 1 << 40], {}]),
        (("network", "latent_dim"), [2, 1 << 60, None]),
        (("network", "dtype"), ["float64", "float16", "object", None, 3]),
        (("network", "prior"), ["mixture", "vamp", 3, NESTED, {"class": "StandardNormal"}]),
        (("network", "prior_components"), [0, -5, "a"]),
        (("scored_by",), [..., {}]),
        (("scored_by", "likelihood"), [3, NESTED, "gaussian-learned", {"array": "parameters"}]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_every_field_is_checked(stored, at, values):
    path, arrays, header = stored
    for value in values:
        write(path, changed(header, at, value), arrays)
        refused(path, "its parts do not fit")


def test_nesting_and_constants_of_json(stored):
    path, arrays, header = stored
    text = json.dumps(header)
    for beta in ("[" * 100_000 + "]" * 100_000, "NaN", "1" * 5000):
        write(path, text.replace('"beta": 1.0', f'"beta": {beta}'), arrays)
        refused(path)
    deep = NESTED
    for _ in range(300):
        deep = {"class": "FreeBits", "arguments": {"lam": deep}}
    write(path, changed(header, ("parameters", "free_bits"), deep), arrays)
    refused(path)


def test_members(stored):
    path, arrays, header = stored
    write(path, header, {**arrays, "more": np.zeros(3)})
    refused(path, "arrays: more unknown")
    for name in arrays:
        write(path, header, {n: a for n, a in arrays.items() if n != name})
        refused(path, "do not fit")
        for other in (arrays[name][1:], arrays[name].astype(np.float64), arrays[name][None]):
            write(path, header, {**arrays, name: other})
            refused(path, f"do not fit .{name}")


def test_members_that_share_their_bytes(stored):
    """By which a small file may stand for much."""
    path, _, _ = stored
    with zipfile.ZipFile(path, "a") as file:
        first = file.infolist()[0]
        file.filelist += [copy.copy(first) for _ in range(99)]
        file.comment = b"written anew"
    refused(path, "another kind .ValueError")


def test_no_member_takes_more_memory_than_the_file(stored):
    path, arrays, header = stored
    size = path.stat().st_size
    large = {**arrays, "parameters": np.zeros(1 << 25, np.float32)}
    write(path, header, large, np.savez_compressed)
    small = 20 * size + (1 << 20)
    assert path.stat().st_size < 1 << 18
    assert peak_of(lambda: refused(path)) < small
    # a member that says that it is larger than it is
    claims = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(claims, shape)
    write(path, header, arrays)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("more.npy", claims.getvalue())
    assert peak_of(lambda: refused(path)) < small
