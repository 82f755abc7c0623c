"""Who ``fastelbo bench`` measures fastelbo beside: all compute the same."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import digamma

from fastelbo._catalogue import CASES, flatten, numba_peers
from fastelbo._cli import bench, bench_report, bench_vae, contenders, measure

#: Whose tests compile for minutes.
COMPILED = (contenders.TorchCompile, contenders.Numba)
SMALL = {"B": 3, "D": 80, "L": 5, "K": 4, "M": 6}
EFFORT = {"rounds": 1, "burst": 1e-4}


def slow_if(slow, value):
    """A parameter whose test compiles for half a minute and more is left to --slow."""
    return pytest.param(value, marks=pytest.mark.slow if slow else ())


def error_of(contender, case, arrays):
    """Of what a contender makes of a case; None where it has no peer."""
    if (call := contender.bind(case, arrays)) is None:
        return None
    desired = case.shared(flatten(case.reference(*arrays.values())))
    return measure.error_of_largest(case.shared(contender.numpy(call())), desired)


@pytest.fixture
def traced_only(monkeypatch):
    """torch.compile that traces, and compiles nothing."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    return torch


@pytest.mark.parametrize(
    "kind",
    [slow_if(issubclass(k, COMPILED), k) for k in contenders.PEERS],
)
def test_peers_compute_the_same(kind, recwarn):
    entries = {entry.case: entry for entry in bench.EVERY}.values()
    for dtype in bench.DTYPES[issubclass(kind, contenders.Jax) :]:
        try:
            contender = kind(1, dtype)
        except ImportError as error:
            pytest.skip(f"{error.name} is not installed")
        rows = [
            row
            for entry in entries
            for row in measure.measure(entry, dtype, [contender], **EFFORT, extents=SMALL)
            if not row.is_traffic
        ]
        assert rows
        for row in rows:
            assert not row.disagrees, row
            assert row.minimum > 0


def test_numba_peers_are_right(monkeypatch):
    """As Python, for all that Numba needs half a minute to compile for."""
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    found = set()
    for case in CASES.values():
        for dtype in bench.DTYPES:
            peer, arrays = contenders.Numba(1, dtype), case.draw(0, dtype, **SMALL)
            if (error := error_of(peer, case, arrays)) is not None:
                found.add(case.name)
                assert error <= measure.THEIRS[dtype], (case.name, dtype)
    families = ("elbo", "elbo-Bernoulli", "NegativeBinomial", "iwae-Bernoulli", "mmd")
    families += ("total_correlation", "beta_tcvae_elbo", "mixture_log_prob")
    assert {f"{name}{suffix}" for name in families for suffix in ("", "_and_grad")} <= found


def test_numba_peers_take_large_counts(monkeypatch):
    """By differences of log Gamma, and of digamma, of which Numba has none."""
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    x = np.array([[0.0, 19.0, 20.0], [35.0, 1.0, 1000.0]])
    for name in ("NegativeBinomial", "NegativeBinomial_and_grad"):
        arrays = CASES[name].draw(0, B=2, D=3)
        assert error_of(contenders.Numba(1), CASES[name], {**arrays, "x": x}) < 1e-12
    for t in (0.01, 0.7, 5.9, 6.0, 300.0):
        np.testing.assert_allclose(numba_peers._digamma(t), digamma(t), rtol=1e-10)


def test_torch_compile_computes_the_same(traced_only, recwarn):
    contender = contenders.TorchCompile(1)
    for name in ("elbo", "elbo_and_grad", "kl_normal"):
        assert error_of(contender, CASES[name], CASES[name].draw(0, **SMALL)) < 1e-12


def test_functions_through_torch_compile_are_programs_of_their_own(traced_only, recwarn):
    """However many there are, since torch.compile keeps few for the same code."""
    one = traced_only.ones(())
    several = [
        contenders.compiled(traced_only, partial(traced_only.mul, n), fullgraph=True)
        for n in range(20)
    ]
    assert [call(one).item() for call in several] == list(range(20))


def test_programs_are_of_these_sizes():
    given = {}

    def compile(function, **options):
        given.update(options)
        return function

    call = contenders.compiled(SimpleNamespace(compile=compile), pow, fullgraph=True)
    assert call(2, 3) == 8
    assert given == {"dynamic": False, "fullgraph": True}


def check_tables(report, quick):
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
    for word in ("NegativeBinomial, B 128, D 5000", "784-400-20", "share of the loss"):
        assert word in text


@pytest.mark.parametrize("quick", [True, slow_if(True, False)])
def test_torch(quick, recwarn):
    pytest.importorskip("torch")
    from fastelbo._cli import bench_torch

    check_tables(bench_torch.measure(1, quick, **EFFORT), quick)


def test_torch_through_torch_compile(traced_only, recwarn):
    from fastelbo._cli import bench_torch

    report = bench_torch.measure(1, False, **EFFORT)
    check_tables(report, False)
    *losses, floor, steps = ([row["label"] for row in t["rows"]] for t in report["tables"])
    for labels in (*losses, steps):
        assert labels[2:] == ["torch.compile", "fastelbo.torch, torch.compile"]
    assert floor[-1] == "an operator of nothing, torch.compile"


def test_gradients_of_nothing_are_scaled(monkeypatch):
    torch = pytest.importorskip("torch")
    from fastelbo._cli import bench_torch

    leaves = [torch.ones(shape, requires_grad=True) for shape in ((2, 3), (4,))]
    monkeypatch.setattr(torch, "empty_like", torch.ones_like)
    value = bench_torch.NothingInGraph.apply(*leaves)
    assert value.shape == ()
    gradients = torch.autograd.grad(3.0 * value, leaves)
    assert [g.tolist() for g in gradients] == [[[3.0] * 3] * 2, [3.0] * 4]


@pytest.mark.parametrize("side", [slow_if(s == "torch.compile", s) for s in bench_vae.SIDES])
def test_both_sides_train_a_vae(side):
    pytest.importorskip("sklearn")
    if side != "fastelbo.VAE":
        pytest.importorskip("torch")
    result = bench_vae.train(side, 1, 3)
    assert len(result["seconds"]) == 2
    assert -60 < result["elbo"] < -25


def test_a_vae_through_torch_compile(traced_only, recwarn):
    pytest.importorskip("sklearn")
    through, eager = (bench_vae.train(side, 1, 2)["elbo"] for side in bench_vae.SIDES[1::-1])
    assert through == pytest.approx(eager, rel=1e-5)
