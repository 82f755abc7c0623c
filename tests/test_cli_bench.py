"""``fastelbo bench``: what it measures is right; how fast it is, is nobody's test."""

import argparse
import json

import numpy as np
import pytest

import fastelbo
from fastelbo import _builds, reference
from fastelbo._cli import (
    _common,
    baselines,
    bench,
    bench_report,
    bench_vae,
    cases,
    contenders,
    sizes,
)

SMALL = (3, 80, 5)
PEERS = ("SciPy", "PyTorch")
EFFORT = {"rounds": 1, "burst": 1e-4}


def run(*options):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args(options))


def only_ours(monkeypatch):
    """The frameworks take seconds to import and compile: leave them to the test of baselines."""
    monkeypatch.setattr(baselines, "ALL", (baselines.NumPy, baselines.NumPyGenerator))


def slow_if(slow, value):
    """A parameter whose test compiles for half a minute and more is left to --slow."""
    return pytest.param(value, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(
    "kind", [slow_if(issubclass(k, baselines.TorchCompile), k) for k in baselines.ALL]
)
def test_baselines_compute_the_same(kind, recwarn):
    for dtype in bench.DTYPES:
        try:
            contender = kind(1, dtype)
        except ImportError as error:
            pytest.skip(f"{error.name} is not installed")
        rows = [
            row
            for case in cases.CASES.values()
            for row in bench.measure(case, SMALL, dtype, [contender], **EFFORT)
            if not row.is_traffic
        ]
        assert rows
        for row in rows:
            assert not row.disagrees, row
            assert row.minimum > 0


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("kl_standard_normal", 2, reference.kl_standard_normal),
        ("kl_standard_normal_and_grad", 2, reference.kl_standard_normal_and_grad),
        ("kl_normal", 4, reference.kl_normal),
        ("kl_normal_and_grad", 4, reference.kl_normal_and_grad),
        ("reparameterize_backward", 4, reference.reparameterize_backward),
        ("gaussian", 3, reference.Gaussian("learned").log_prob),
        ("gaussian_and_grad", 3, reference.Gaussian("learned").log_prob_and_grad),
        ("squared_error", 2, reference.SquaredError().log_prob),
        ("importance_bound", 1, reference.importance_bound),
        ("importance_bound_and_grad", 1, reference.importance_bound_and_grad),
        ("cubo", 1, reference.cubo),
        ("cubo_and_grad", 1, reference.cubo_and_grad),
        ("vimco", 1, reference.vimco),
        ("vimco_and_grad", 1, reference.vimco_and_grad),
        ("reinforce", 1, reference.reinforce),
        ("reinforce_and_grad", 1, reference.reinforce_and_grad),
        ("effective_sample_size", 1, reference.effective_sample_size),
        ("normalized_weights", 1, reference.normalized_weights),
    ],
)
def test_the_numpy_that_users_write_is_right(name, count, expected):
    arrays = np.random.default_rng(4).standard_normal((count, 4, 3))
    actual = getattr(baselines.NumPy(), name)(*arrays)
    desired = _common.flat(expected(*arrays))
    assert len(actual) == len(desired)
    for a, d in zip(actual, desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-12)


@pytest.mark.parametrize("name", ["log_weights", "iwae", "iwae_and_grad"])
def test_the_numpy_of_importance_weights_is_right(name):
    rng = np.random.default_rng(4)
    x, mu, logvar = rng.standard_normal((3, 4, 3))
    z, x_recon = rng.standard_normal((2, 5, 4, 3))
    actual = getattr(baselines.NumPy(), name)(x, z, mu, logvar, x_recon)
    desired = _common.flat(getattr(reference, name)(x, z, mu, logvar, x_recon))
    for a, d in zip(actual, desired, strict=False):  # the reference gives the weights as well
        np.testing.assert_allclose(a, d, rtol=1e-12)


@pytest.mark.parametrize("name", ["", "_and_grad"])
def test_the_numpy_of_pairs_is_right(name):
    rng = np.random.default_rng(4)
    z, mu, logvar = rng.standard_normal((3, 6, 3))
    for base, arrays in (
        ("mixture_log_prob", (z, rng.standard_normal(6), mu, logvar)),
        ("mmd", (z, mu)),
        ("mixture_of_experts", (z, mu.reshape(1, 6, 3), logvar.reshape(1, 6, 3))),
    ):
        actual = getattr(baselines.NumPy(), base + name)(*arrays)
        desired = _common.flat(getattr(reference, base + name)(*arrays))
        for a, d in zip(actual, desired, strict=True):
            np.testing.assert_allclose(a, d, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ["product_of_experts", "mopoe"])
def test_the_numpy_of_experts_is_right(name):
    mu, logvar = np.random.default_rng(4).standard_normal((2, 3, 4, 5))
    products = getattr(baselines.NumPy(), name)(mu, logvar)
    for a, d in zip(products, getattr(reference, name)(mu, logvar), strict=False):
        np.testing.assert_allclose(a, d, rtol=1e-12)
    gradients = getattr(baselines.NumPy(), f"{name}_backward")(*products, mu, logvar)
    desired = getattr(reference, f"{name}_backward")(*products, mu, logvar)
    for a, d in zip(gradients, desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-12, atol=1e-14)


def test_numpy_from_buffers():
    x, mu, logvar, x_recon = np.random.default_rng(4).standard_normal((4, 4, 3))
    buffers = [a.tobytes() for a in (x, mu, logvar, x_recon)]
    actual = baselines.NumPy().elbo_from_buffers(*buffers, 4, 3, 3)
    assert actual[0] == pytest.approx(reference.elbo(x, mu, logvar, x_recon)[0], rel=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
def test_ours_compute_the_same(threads, dtype):
    for case in cases.CASES.values():
        contenders = bench.ours(threads, dtype.name)
        rows = bench.measure(case, SMALL, dtype.name, contenders, **EFFORT)
        mine = [row for row in rows if row.is_ours]
        assert len(mine) >= 1
        for row in mine:
            assert not row.disagrees, row
            assert row.calls > 0
            assert row.median >= row.minimum > 0
            assert 0 < row.memory < 2e5


def test_threads_are_those_of_the_label():
    """But for what LAPACK and NumPy compute."""
    ours = contenders.Fastelbo(1, "float64")
    for case in cases.CASES.values():
        arrays = cases.problem(SMALL, "float64", case.samples)
        call = ours.bind(case.name, [arrays[name] for name in case.arguments])
        if call.func.__module__.startswith("fastelbo._cli"):
            continue  # a method, which gives its options on
        lacks = case.name.startswith(("kl_full_normal", "standard_normal"))
        assert call.keywords.get("num_threads") == (None if lacks else 1), case.name


def test_traffic_is_measured_where_the_event_is_read():
    entrants = bench.alone(1, "float64")
    rows = bench.measure(cases.CASES["elbo_and_grad"], SMALL, "float64", entrants, **EFFORT)
    assert sum(row.is_traffic for row in rows) == 2  # plain and streamed stores
    assert all((row.of_bandwidth is not None) == row.is_ours for row in rows)
    assert all(row.speedup > 0 for row in rows)
    rows = bench.measure(cases.CASES["kl_standard_normal"], SMALL, "float64", entrants, **EFFORT)
    assert not any(row.is_traffic for row in rows)


class Wrong(baselines.NumPy):
    label = "wrong"

    def elbo(self, *arrays):
        return (super().elbo(*arrays)[0] * (1 + 1e-3),)


def test_a_wrong_row_is_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(baselines, "ALL", (baselines.NumPy, Wrong))
    assert run("--quick", "--size", "2", "8", "2", "--threads", "1") == 1
    out, err = capsys.readouterr()
    assert "wrong: elbo (2, 8, 2) float64 disagrees with the reference by 0.001" in err
    lines = [line.split() for line in out.splitlines() if line.startswith("wrong")]
    assert ["wrong", "-", "-", "-", "1.0e-03"] in [line[1:6] for line in lines]


def test_a_wrong_gradient_is_not_timed(monkeypatch):
    exact = fastelbo.elbo_and_grad

    def wrong(*args, **options):
        result, gradients = exact(*args, **options)
        gradients.x_recon[-1, -1] += 1e-3
        return result, gradients

    monkeypatch.setattr(fastelbo, "elbo_and_grad", wrong)
    case = cases.CASES["elbo_and_grad"]
    rows = bench.measure(case, SMALL, "float64", bench.ours(1, "float64"), **EFFORT)
    assert all(row.disagrees and row.minimum is None for row in rows if row.is_ours)


def test_json(monkeypatch, capsys):
    only_ours(monkeypatch)
    assert run("--quick", "--json", "--size", "2", "64", "3", "--stages") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["environment"]["build"] == fastelbo.build_info()["build"]
    assert {row["case"] for row in report["rows"]} == set(cases.MAIN[0][1])
    assert {row["dtype"] for row in report["rows"]} == set(bench.DTYPES)
    assert {row["case"] for row in report["stages"]} > {"reparameterize", "squared_error"}
    assert set(report["small_call"]) == {"np.add", "elbo", "elbo_and_grad"}


def test_tables_and_plot(monkeypatch, capsys, tmp_path):
    only_ours(monkeypatch)
    pytest.importorskip("matplotlib")
    path = tmp_path / "bench.png"
    assert run("--quick", "--size", "2", "64", "3", "--stages", "--plot", str(path)) == 0
    out = capsys.readouterr().out
    for text in ("fastelbo, 1 thread", "NumPy, default_rng", "traffic", "stages", "np.add"):
        assert text in out
    assert path.read_bytes().startswith(b"\x89PNG")


def test_only_some_cases(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    only_ours(monkeypatch)
    path = tmp_path / "bench.png"
    options = ("--quick", "--json", "--size", "3", "80", "5", "--plot", str(path))
    assert run("--only", "mmd", "kl_standard_normal", "mmd", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["case"] for row in report["rows"]} == {"mmd", "kl_standard_normal"}
    assert {tuple(row["size"]) for row in report["rows"]} == {SMALL}
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["mmd"], [(sizes.TWO_SETS, ["mmd"])]),
        (["elbo"], [(sizes.STANDARD, ["elbo"]), (sizes.IN_RAM, ["elbo"])]),
        (["elbo", "--quick"], [(sizes.STANDARD, ["elbo"])]),
        (["squared_error"], [(sizes.STANDARD, ["squared_error"])]),  # a stage: in no table
    ],
)
def test_only_takes_the_sizes_of_the_tables(options, expected):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    tables = bench.tables_of(parser.parse_args(["--only", *options]))
    assert [table for table in tables if table[1]] == expected


def test_unknown_cases_are_named(capsys):
    assert run("--only", "elbow", "mmd") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "unknown case 'elbow'" in line
    assert all(name in line for name in cases.CASES)


def test_errors_are_shown():
    """Beside the times, since the fastest form of a peer may be the least exact."""
    rows = [
        bench.Row("mmd", SMALL, dtype, "NumPy", 1, minimum=1e-6, median=1e-6, error=error)
        for dtype, error in (("float64", 1e-16), ("float32", 4.7e-6))
    ]
    text = bench_report.show(rows)
    header, _, line = text.splitlines()
    assert header.split().count("error") == 2
    assert "traffic" not in header
    times = ["1.0", "1.0", "-", "-"]
    assert line.split() == ["NumPy", *times, "1.0e-16", *times, "4.7e-06"]


@pytest.mark.parametrize(("case", "shown"), [("negative_binomial_and_grad", True), ("mmd", False)])
def test_what_float32_makes_of_counts(case, shown, monkeypatch, capsys):
    pytest.importorskip("torch")
    only_ours(monkeypatch)
    assert run("--quick", "--only", case, "--size", "3", "80", "5") == 0
    labels = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    for label in ("error of log p in float32", *(f"scvi-tools' formula, {x}" for x in PEERS)):
        assert (label in labels) == shown


def test_builds():
    measured = bench.measure_builds([(SMALL, ("elbo",))], 1, EFFORT)
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


@pytest.mark.parametrize("options", [["--threads", "0"], ["--size", "1", "-2", "3"]])
def test_bad_numbers(options, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(*options)
    assert exit_.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_absent_frameworks_are_named(monkeypatch):
    class Absent(baselines.Baseline):
        label = "absent"

        def __init__(self, threads=1, dtype=None):
            import no_such_framework  # noqa: F401

    monkeypatch.setattr(baselines, "ALL", (Absent, baselines.TorchCompile))
    present, absent = bench.contenders(1, "float64", quick=True)
    assert absent == {
        "absent": "not installed (no_such_framework)",
        "torch.compile": "left out by --quick",
    }
    assert all(isinstance(c, contenders.Fastelbo) for c in present)


def test_take_turns_and_memory():
    seconds = bench.take_turns({"a": lambda: None, "b": lambda: sum(range(100))}, 3, 1e-4)
    assert min(map(len, seconds.values())) >= 3
    contender = baselines.NumPy()
    used = bench.peak_memory(contender, lambda: (np.zeros(1 << 20),))
    assert 8 << 20 <= used < 9 << 20
    contender.memory = "process"
    used = bench.peak_memory(contender, lambda: (np.ones(1 << 22).sum(),))
    assert used is None or 24 << 20 < used < 48 << 20
    used = bench.peak_memory(contender, lambda: (np.broadcast_to(1.0, 1 << 22),))
    assert used is None or used >= 32 << 20  # as large as the results at least


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


@pytest.mark.parametrize("side", [slow_if(s == "torch.compile", s) for s in bench_vae.SIDES])
def test_both_sides_train_a_vae(side):
    pytest.importorskip("sklearn")
    if side != "fastelbo.VAE":
        pytest.importorskip("torch")
    result = bench_vae.train(side, 1, 3)
    assert len(result["seconds"]) == 2
    assert -60 < result["elbo"] < -25


@pytest.mark.parametrize("quick", [True, slow_if(True, False)])
def test_torch(quick):
    pytest.importorskip("torch")
    from fastelbo._cli import bench_torch

    report = bench_torch.measure(1, quick, **EFFORT)
    assert bool(report["absent"]) == quick
    for found in report["tables"]:
        assert len(found["rows"]) >= 2
        for row in found["rows"]:
            assert not row["disagrees"], (found["title"], row["label"])
            assert row["median"] >= row["minimum"] > 0
            assert row["speedup"] > 0
    steps = report["tables"][-1]["rows"]
    assert [row["label"] for row in steps[:2]] == ["PyTorch eager", "fastelbo.torch"]
    assert all(row["share"] > 0 for row in steps)
    text = bench_report.show_torch(report)
    for word in ("negative binomial, (128, 5000)", "784-400-20", "share of the loss"):
        assert word in text


def test_a_wrong_loss_is_not_timed(monkeypatch, capsys):
    pytest.importorskip("torch")
    from fastelbo._cli import bench_torch

    def wrong(*tensors):
        return bench_torch.squared_error(*tensors) * 1.001

    first, *rest = bench_torch.LOSSES
    monkeypatch.setattr(bench_torch, "LOSSES", [(*first[:2], wrong, *first[3:]), *rest])
    only_ours(monkeypatch)
    assert run("--quick", "--torch", "--size", "1", "1", "1", "--threads", "1") == 1
    out, err = capsys.readouterr()
    assert "fastelbo.torch: squared error + KL, (128, 784, 20) disagrees" in err
    assert ["fastelbo.torch", "wrong", "-", "-"] in [line.split() for line in out.splitlines()]


def test_torch_that_is_absent_is_named(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    report = bench.measure_torch(1, True, EFFORT)
    assert bench_report.show_torch(report) == "fastelbo.torch: PyTorch is not installed"


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
