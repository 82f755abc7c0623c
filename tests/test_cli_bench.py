"""``fastelbo bench``: what it measures is right; how fast it is, is nobody's test."""

import argparse
import io
import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import fastelbo
from fastelbo import _builds
from fastelbo._catalogue import CASES, ROWS, Bench
from fastelbo._cli import (
    _common,
    bench,
    bench_half,
    bench_report,
    bench_vae,
    calls,
    contenders,
    measure,
)

SIZE = ("3", "80", "5")
SMALL = {"B": 3, "D": 80, "L": 5, "K": 4, "M": 6}
EFFORT = {"rounds": 1, "burst": 1e-4}


def run(*options):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args(options))


def only_ours(monkeypatch):
    """The frameworks take seconds to import and compile: leave them to the test of peers."""
    monkeypatch.setattr(contenders, "PEERS", (contenders.NumPy,))


@pytest.mark.parametrize("threads", [1, 2])
def test_ours_compute_the_same(threads, dtype):
    for entry in bench.EVERY:
        entrants = bench.ours(threads, dtype.name)
        rows = measure.measure(entry, dtype.name, entrants, **EFFORT, extents=SMALL)
        mine = [row for row in rows if row.is_ours]
        assert len(mine) >= 1
        for row in mine:
            assert not row.disagrees, row
            assert row.calls > 0
            assert row.median >= row.minimum > 0
            assert 0 < row.memory < 2e5


def test_threads_are_those_of_the_label():
    """But for what LAPACK and NumPy compute, which refuse it."""
    ours = contenders.Fastelbo(1, "float64")
    for entry in bench.EVERY:
        case = CASES[entry.case]
        call = ours.bind(case, case.draw(0, **SMALL))
        assert call.keywords.get("num_threads") == (1 if case.takes_threads else None), case.name
        if not case.takes_threads:
            with pytest.raises(TypeError, match="num_threads"):
                call(num_threads=1)


def test_ours_are_called_as_users_call_them():
    """Nothing of the catalogue is timed: the functions, and methods of likelihoods, themselves."""
    ours = contenders.Fastelbo(1, "float64")
    calls = {e.case: ours.bind(CASES[e.case], CASES[e.case].draw(0, **SMALL)) for e in bench.EVERY}
    assert calls["elbo_and_grad"].func is fastelbo.elbo_and_grad
    assert calls["Bernoulli"].func == calls["Bernoulli"].func.__self__.log_prob
    wrapped = {name for name, call in calls.items() if call.func == CASES[name].call}
    of_several = {"StreamingBound", "StandardNormal", "MixtureOfGaussians", "VampPrior"}
    assert {name.removesuffix("_and_grad") for name in wrapped} == {
        *of_several,
        "joint_posterior_backward",
    }


def test_traffic_is_measured_where_the_event_is_read():
    entrants = bench.alone(1, "float64")
    entry = Bench("elbo_and_grad", "", SMALL)
    rows = measure.measure(entry, "float64", entrants, **EFFORT)
    assert sum(row.is_traffic for row in rows) == 2  # plain and streamed stores
    assert all((row.of_bandwidth is not None) == row.is_ours for row in rows)
    assert all(row.speedup > 0 for row in rows)
    entry = Bench("kl_standard_normal", "", SMALL)
    rows = measure.measure(entry, "float64", entrants, **EFFORT)
    assert not any(row.is_traffic for row in rows)


class Wrong(contenders.NumPy):
    label = "wrong"

    def call(self, peer, case, arrays):
        exact = super().call(peer, case, arrays)
        return exact if case.gives_gradients or case.draws_noise else lambda: 1.001 * exact()


def test_a_wrong_row_is_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(contenders, "PEERS", (contenders.NumPy, Wrong))
    assert run("--quick", "--size", "2", "8", "2", "--threads", "1") == 1
    out, err = capsys.readouterr()
    assert "wrong: elbo (B 2, D 8, L 2) float64 disagrees with the reference by 0.001" in err
    lines = [line.split() for line in out.splitlines() if line.startswith("wrong")]
    assert ["wrong", "-", "-", "-", "1.0e-03"] in [line[1:6] for line in lines]


def test_a_wrong_gradient_is_not_timed(monkeypatch):
    exact = fastelbo.elbo_and_grad

    def wrong(*args, **options):
        result, gradients = exact(*args, **options)
        gradients.x_recon[-1, -1] += 1e-3
        return result, gradients

    monkeypatch.setattr(fastelbo, "elbo_and_grad", wrong)
    entry = Bench("elbo_and_grad", "", SMALL)
    rows = measure.measure(entry, "float64", bench.ours(1, "float64"), **EFFORT)
    assert all(row.disagrees and row.minimum is None for row in rows if row.is_ours)


def test_json(monkeypatch, capsys):
    only_ours(monkeypatch)
    assert run("--quick", "--json", "--size", "2", "64", "3", "--stages") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["environment"]["build"] == fastelbo.build_info()["build"]
    assert {row["case"] for row in report["rows"]} == {entry.case for entry in bench.MAIN}
    assert {row["dtype"] for row in report["rows"]} == set(bench.DTYPES)
    assert {row["case"] for row in report["stages"]} > {"reparameterize[drawn]", "SquaredError"}
    assert set(report["small_call"]) == {"np.add", "elbo", "elbo_and_grad"}


def test_tables_and_plot(monkeypatch, capsys, tmp_path):
    only_ours(monkeypatch)
    pytest.importorskip("matplotlib")
    path = tmp_path / "bench.png"
    assert run("--quick", "--size", "2", "64", "3", "--stages", "--plot", str(path)) == 0
    out = capsys.readouterr().out
    for text in ("fastelbo, 1 thread", "NumPy", "traffic", "stages", "np.add"):
        assert text in out
    assert path.read_bytes().startswith(b"\x89PNG")


def test_half_precision_is_timed_beside_float32(monkeypatch):
    """Of every storage, the values right; a wrong one is not timed."""
    entries = [Bench(name, "", SMALL) for name in ("elbo", "elbo[drawn]", "elbo_and_grad", "mmd")]
    rows = bench_half.measure(entries, 1, **EFFORT)
    assert {row["case"] for row in rows} == {"elbo", "elbo_and_grad"}
    assert [row["storage"] for row in rows] == 2 * list(bench_half.storages())
    assert all(row["minimum"] > 0 and row["speedup"] > 0 for row in rows)
    lines = bench_report.show_halves(rows).splitlines()[2:]
    assert ["uint8, float16" in line for line in lines].count(True) == 2
    monkeypatch.setattr(fastelbo, "elbo", lambda *arrays, **options: 1.0)
    (row, *_) = bench_half.measure(entries[:1], 1, **EFFORT)
    assert row["disagrees"]
    assert "minimum" not in row
    *_, line = bench_report.show_halves([row]).splitlines()
    assert line.split()[-3:-1] == ["-", "-"]


def test_wrong_half_precision_is_said(monkeypatch, capsys):
    row = {"case": "elbo", "size": "B 2", "storage": "uint8, float16", "error": 0.5}
    monkeypatch.setattr(bench_half, "measure", lambda *_, **__: [{**row, "disagrees": True}])
    only_ours(monkeypatch)
    assert run("kl_normal", "--quick", "--half", "--size", *SIZE) == 1
    said = "elbo (B 2) in uint8, float16 is wrong by 0.5 and was not timed"
    assert said in capsys.readouterr().err


def test_half_precision_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert list(bench_half.storages()) == [bench_half.WHOLE, "uint8, float16"]


def test_only_some_cases(monkeypatch, capsys, tmp_path):
    """By the name of a public thing, or of one of its cases."""
    pytest.importorskip("matplotlib")
    only_ours(monkeypatch)
    path = tmp_path / "bench.png"
    options = ("--quick", "--json", "--size", *SIZE, "--plot", str(path))
    assert run("Laplace", "kl_normal_and_grad", "Laplace", *options) == 0
    report = json.loads(capsys.readouterr().out)
    cases = {"Laplace-learned", "Laplace-learned_and_grad", "kl_normal_and_grad"}
    assert {row["case"] for row in report["rows"]} == cases
    assert {row["size"] for row in report["rows"]} == {"B 3, D 80", "B 3, L 5"}
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["mmd"], [("mmd", 512), ("mmd_and_grad", 512)]),
        (["elbo_and_grad"], [("elbo_and_grad", 128), ("elbo_and_grad", 4096)]),
        (["elbo_and_grad", "--quick"], [("elbo_and_grad", 128)]),
    ],
)
def test_only_takes_the_sizes_of_the_tables(options, expected):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    entries = bench.entries_of(parser.parse_args(options))
    assert [(entry.case, extents["B"]) for entry, extents in entries] == expected


def test_every_row_is_in_some_table():
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    of_all = [entry for entry, _ in bench.entries_of(parser.parse_args(["--all"]))]
    assert of_all[: len(bench.MAIN)] == list(bench.MAIN)
    assert all(of_all.count(entry) == 1 for entry in bench.EVERY)
    assert {entry.case for entry in bench.MAIN} < {entry.case for entry in bench.EVERY}
    for row in ROWS.values():
        assert {entry.case for entry in row.bench} <= set(CASES)


def test_unknown_names_are_corrected(capsys):
    assert run("elbow", "mmd") == 2
    assert "unknown name 'elbow', did you mean elbo" in capsys.readouterr().err


def test_errors_are_shown():
    """Beside the times, since the fastest form of a peer may be the least exact."""
    rows = [
        measure.Time("mmd", "MMD", "B 3", dtype, "NumPy", 1, 1e-6, 1e-6, error=error)
        for dtype, error in (("float64", 1e-16), ("float32", 4.7e-6))
    ]
    text = bench_report.show(rows)
    header, _, line = text.splitlines()
    assert header.split().count("error") == 2
    assert "traffic" not in header
    times = ["1.0", "1.0", "-", "-"]
    assert line.split() == ["NumPy", *times, "1.0e-16", *times, "4.7e-06"]
    *_, line = bench_report.show([rows[0], replace(rows[1], label="JAX")]).splitlines()
    assert line.split() == ["JAX", *["-"] * 5, *times, "4.7e-06"]


def test_the_best_peer_is_named():
    """The fastest of those whose numbers are right."""
    seconds = {"NumPy": 9e-6, "Numba": 6e-6, "JAX": 1e-6, "fastelbo": 2e-6, "memory": 5e-7}
    times = [measure.Time("", "MMD", "", "float32", k, 1, s, s) for k, s in seconds.items()]
    times[2].disagrees = True
    measure._compare(CASES["elbo"], CASES["elbo"].draw(B=2, D=3, L=1), times)
    assert [time.ahead for time in times] == [None, None, None, pytest.approx(3), None]
    assert bench_report.show(times).endswith("best peer, float32: Numba; fastelbo 3.0x")


def test_calls_are_timed_as_their_rows_make_them():
    """The one call of each, of a likelihood of each form; tables have a line a function."""
    report = calls.measure(["Laplace", "kl_normal", "StreamingBound"], 1)
    forms = ["Laplace", "Laplace-learned", "kl_normal"]
    assert list(report) == [
        calls.UNIT,
        *[name + end for name in forms for end in ("", "_and_grad")],
    ]
    assert all(seconds > 0 for seconds in report.values())
    assert calls._call_of(CASES["Laplace"]).func.__self__.scale is not None
    assert calls._call_of(CASES["elbo_and_grad"]).func is fastelbo.elbo_and_grad
    assert calls._call_of(CASES["StreamingBound"]) is None
    assert all(call is None or call() is not None for call in map(calls._call_of, CASES.values()))
    report |= {"kl_normal": 1.26, "Laplace_and_grad": 3.0}
    del report["Laplace"]
    header, _, *lines = bench_report.show_calls(report).splitlines()
    assert header.endswith("value  and gradient")
    assert lines[0].split() == ["Laplace", "-", "3.0"]
    assert lines[2].split()[:2] == ["kl_normal", "1.3"]


@pytest.mark.parametrize("told", [None, "", "cpu 1 2 3", "cpu of another kind"])
def test_a_system_that_does_not_tell(told, monkeypatch, tmp_path):
    path = tmp_path / "stat"
    if told is not None:
        path.write_text(told)
    monkeypatch.setattr(_common, "open", lambda _: path.open(), raising=False)
    assert _common.Load().others() is None


def test_a_busy_machine_is_said_to_be(monkeypatch):
    """CPUs that others use are those that neither this process nor the idle task has."""
    load = _common.Load()
    if load.others() is None:
        pytest.skip("this system does not tell")
    start, everybody, ours = load._start
    monkeypatch.setattr(load, "_seconds", lambda: (start + 2, everybody + 3, ours + 1))
    assert load.others() == pytest.approx(1)
    assert "other programs used 1.0 CPUs" in bench_report.show_busy(1.0)
    assert bench_report.show_busy(0.1) == bench_report.show_busy(None) == ""
    assert bench_report.times(0.004) == "0.004x"
    assert bench_report.times(1.25) == "1.2x"


@pytest.mark.parametrize(("name", "shown"), [("NegativeBinomial", True), ("mmd", False)])
def test_what_float32_makes_of_counts(name, shown, monkeypatch, capsys):
    pytest.importorskip("torch")
    only_ours(monkeypatch)
    assert run("--quick", name, "--size", *SIZE) == 0
    out = capsys.readouterr().out
    assert ("error of log p in float32" in out) == shown
    if shown:
        *_, (ours, *errors) = (
            line.split("  ") for line in out.splitlines() if line.startswith("fastelbo, 1 thread  ")
        )
        assert ours == "fastelbo, 1 thread"
        assert all(float(error) < 1e-6 for error in errors if error.strip())


def test_builds():
    entries = [(bench.EVERY[0], SMALL), (bench.MAIN[1], SMALL)]
    measured = bench.measure_builds(entries, 1, EFFORT)
    assert [build for build, _ in measured] == list(_builds.available())
    text = bench_report.show_builds(measured)
    for build, rows in measured:
        assert {row.label for row in rows} == {"NumPy", "fastelbo, 1 thread"}
        assert build in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "/no/such/folder/a.png"], "no such folder"),
        (["--plot", "chart.doc"], "expected a name that ends in .png"),
    ],
)
def test_bad_plots_are_known_beforehand(options, message, capsys):
    assert run(*options) == 2
    assert message in capsys.readouterr().err


def test_a_plot_without_matplotlib_is_refused(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("--plot", "chart.png") == 2
    assert 'needs matplotlib: pip install "fastelbo[plot]"' in capsys.readouterr().err


@pytest.mark.parametrize("lines", [None, "", "processor : 0\n", "model name : Some CPU\n"])
def test_the_processor_is_named(lines, monkeypatch):
    """As /proc has it, or else as Python has it."""

    def opened(path):
        if lines is None:
            raise FileNotFoundError(path)
        return io.StringIO(lines)

    monkeypatch.setattr(bench, "open", opened, raising=False)
    monkeypatch.setattr(bench.platform, "processor", lambda: "of Python")
    assert bench._processor() == ("Some CPU" if lines and "model" in lines else "of Python")


@pytest.mark.parametrize("options", [["--threads", "0"], ["--size", "1", "-2", "3"]])
def test_bad_numbers(options, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(*options)
    assert exit_.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_absent_frameworks_are_named(monkeypatch):
    class Absent(contenders.Contender):
        label = "absent"

        def __init__(self, threads=1, dtype=None):
            import no_such_framework  # noqa: F401

    monkeypatch.setattr(contenders, "PEERS", (Absent, contenders.TorchCompile))
    present, absent = bench.peers(1, "float64", quick=True)
    assert absent == {
        "absent": "not installed (no_such_framework)",
        "torch.compile": "left out by --quick",
    }
    assert all(isinstance(c, contenders.Fastelbo) for c in present)


def test_take_turns_and_memory(monkeypatch):
    seconds = _common.take_turns({"a": lambda: None, "b": lambda: sum(range(100))}, 3, 1e-4)
    assert min(map(len, seconds.values())) >= 3
    monkeypatch.setattr(_common, "PATIENCE", 10)
    seconds = _common.take_turns({"slow": lambda: time.sleep(1e-3)}, 9, 1e-4)
    assert len(seconds["slow"]) == 3  # whose first turn took as long as ten
    contender = contenders.NumPy()
    used = measure.peak_memory(contender, lambda: (np.zeros(1 << 20),))
    assert 8 << 20 <= used < 9 << 20
    contender.memory = "process"
    used = measure.peak_memory(contender, lambda: (np.ones(1 << 22).sum(),))
    assert used is None or 24 << 20 < used < 48 << 20
    used = measure.peak_memory(contender, lambda: (np.broadcast_to(1.0, 1 << 22),))
    assert used is None or used >= 32 << 20  # as large as the results at least


@pytest.mark.parametrize("error", [FileNotFoundError, AttributeError, KeyError])
def test_memory_where_the_system_does_not_tell(error, monkeypatch):
    """Without /proc, malloc_trim, or the peak there: the dash of a table."""

    def growth(call):
        raise error

    contender = contenders.NumPy()
    contender.memory = "process"
    monkeypatch.setattr(measure, "_resident_growth", growth)
    assert measure.peak_memory(contender, lambda: (np.zeros(3),)) is None
    assert bench_report.mebibytes(None) == "-"


def test_results_of_another_shape_are_wrong():
    assert measure.error_of_largest([np.ones(3)], [np.ones(2)]) == np.inf
    assert measure.error_of_largest([np.ones(2), np.full(2, 3.0)], [[1, 1], [4, 2]]) == 0.25


@pytest.mark.parametrize("build", _builds.available())
def test_traffic_kernels(build):
    kernels = __import__(f"fastelbo._kernels.{build}.bandwidth", fromlist=["read"])
    rng = np.random.default_rng(1)
    for words in (0, 1, 63, 64, 65, 4097):
        a, b = rng.integers(0, 1 << 63, (2, words), dtype=np.uint64)
        whole = words // 64 * 64
        both = a[:whole] ^ b[:whole]
        for threads in (1, 2, 5):
            assert kernels.read(a, b, threads) == np.bitwise_xor.reduce(both)
            for streamed in (False, True):
                out = contenders._words(np.full(words, 7, np.uint64))
                kernels.read_and_write(a, b, out, streamed, threads)
                np.testing.assert_array_equal(out[:whole], both)
                assert (out[whole:] == 7).all()
    a.flags.writeable = False
    assert kernels.read(a, b, 1) == np.bitwise_xor.reduce(both)
    with pytest.raises(ValueError, match="threads"):
        kernels.read(a, b, 0)
    with pytest.raises(ValueError, match="aligned"):
        kernels.read_and_write(a, b, contenders._words(np.zeros(128, np.uint64))[1:], True, 1)


def test_table():
    text = _common.table(["name", "us"], [["a", "1.0"], ["bc", "12.0"]])
    assert text == "name    us\n----  ----\na      1.0\nbc    12.0"
    assert _common.progress(range(3), "x") == [0, 1, 2]


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress_where_somebody_watches(tqdm, monkeypatch, capsys):
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    else:
        pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(_common.progress(range(3), "builds")) == [0, 1, 2]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("builds: " if tqdm else "\rbuilds 2/3 ") in shown.err
    assert shown.err.endswith("\r")
    assert not shown.err.split("\r")[-2].strip()  # nothing is left of it


def test_a_wrong_loss_is_not_timed(monkeypatch, capsys):
    pytest.importorskip("torch")
    from fastelbo._cli import bench_torch

    exact = bench_torch.fastelbo.torch.ElboLoss.forward
    monkeypatch.setattr(bench_torch, "LOSSES", bench_torch.LOSSES[:2])
    monkeypatch.setattr(
        bench_torch.fastelbo.torch.ElboLoss, "forward", lambda *given: 1.001 * exact(*given)
    )
    only_ours(monkeypatch)
    assert run("--quick", "--torch", "--size", "1", "1", "1", "--threads", "1") == 1
    out, err = capsys.readouterr()
    assert "fastelbo.torch: elbo, B 128, D 784, L 20 disagrees" in err
    assert ["fastelbo.torch", "wrong", "-", "-"] in [line.split() for line in out.splitlines()]


def test_torch_that_is_absent_is_named(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    report = bench.measure_torch(1, True, EFFORT)
    assert bench_report.show_torch(report) == "fastelbo.torch: PyTorch is not installed"


def test_jax(monkeypatch, capsys):
    """Both sides of each case compute the same; one that is wrong is not timed."""
    pytest.importorskip("jax")
    entries = list(bench.entries_in_jax())
    small = [replace(entry, extents=SMALL) for entry in entries]
    monkeypatch.setattr(bench, "entries_in_jax", lambda: small)
    rows, missing = bench.measure_jax(1, True, EFFORT)
    assert not missing
    cases = {"elbo_and_grad", "NegativeBinomial_and_grad", "iwae_and_grad"}
    assert cases < {entry.case for entry in entries}
    mine = [row for row in rows if row.label == "fastelbo.jax"]
    plain = [row for row in rows if row.label == "JAX jit"]
    for several in (mine, plain):
        assert [row.case for row in several] == [entry.case for entry in entries]
    assert not any(row.disagrees for row in rows)
    assert all(row.best_peer == "JAX jit" and row.ahead > 0 for row in mine)
    exact = contenders.FastelboInJax._values

    def wrong(*given):
        return tuple(1.001 * value for value in exact(*given))

    monkeypatch.setattr(contenders.FastelboInJax, "_values", wrong)
    monkeypatch.setattr(bench, "entries_in_jax", lambda: small[:1])
    only_ours(monkeypatch)
    assert run("--quick", "--jax", "--size", "1", "1", "1", "--threads", "1") == 1
    out, err = capsys.readouterr()
    assert f"fastelbo.jax: {small[0].case}" in err
    assert ["fastelbo.jax", "wrong"] in [line.split()[:2] for line in out.splitlines()]


def test_quick_leaves_large_arrays_out():
    sizes = {bench.is_quick(entry) for entry in bench.entries_in_jax()}
    assert sizes == {True, False}


def test_jax_that_is_absent_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    rows, missing = bench.measure_jax(1, True, EFFORT)
    assert not rows
    assert missing == {"fastelbo.jax": "not installed (jax)"}


def test_a_vae_without_the_data_or_pytorch(monkeypatch):
    monkeypatch.setattr(_common, "in_build", lambda *_, **__: {"seconds": [0.01], "elbo": -20.0})
    monkeypatch.setitem(sys.modules, "torch", None)
    report = bench_vae.measure(1, quick=True)
    assert [row["label"] for row in report["rows"]] == ["fastelbo.VAE"]
    assert report["absent"] == {"PyTorch": "not installed"}
    monkeypatch.setitem(sys.modules, "sklearn", None)
    report = bench_vae.measure(1)
    assert report["rows"] == []
    assert "sklearn" in report["absent"]["VAE"]


def test_vae_that_trains_another_model_is_wrong(monkeypatch, capsys):
    pytest.importorskip("sklearn")

    def train(*_, side, epochs, **__):
        return {"seconds": [0.01] * epochs, "elbo": -20.0 if side == "fastelbo.VAE" else -30.0}

    only_ours(monkeypatch)
    monkeypatch.setattr(_common, "in_build", train)
    monkeypatch.setattr(bench_vae.importlib.util, "find_spec", lambda name: name)
    assert run("--quick", "--vae", "--size", "1", "1", "1", "--threads", "1") == 1
    out, err = capsys.readouterr()
    assert "PyTorch eager: trained to another ELBO" in err
    (line,) = [line for line in out.splitlines() if line.startswith("fastelbo.VAE")]
    assert line.split() == ["fastelbo.VAE", "10.0", "10.0", "1.0x", "-20.00"]
