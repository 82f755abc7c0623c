"""Every public function against its reference, through the registry of ``fastelbo parity``."""

import argparse
import json
from functools import partial

import numpy as np
import pytest

import fastelbo
from fastelbo import _builds
from fastelbo._cli import _common, parity
from tests.conftest import TOLERANCE

#: Of classes: what is compared, and must be found where it is wrong.
METHODS = (
    "log_prob",
    "log_prob_and_grad",
    "backward",
    "bound",
    "effective_sample_size",
    "standard_error",
)


def run(*options):
    parser = argparse.ArgumentParser()
    parity.add_arguments(parser)
    return parity.run(parser.parse_args(options))


@pytest.mark.parametrize("name", parity.REGISTRY)
def test_agrees_with_the_reference(name, dtype):
    rows = parity.compare(name, dtype.name, (*parity.QUICK_SIZES, (31, 784, 33)))
    assert "reference" in [row.against for row in rows]
    for row in rows:
        assert row.checks >= 3
        assert row.error <= TOLERANCE[dtype], row


def test_bounds_are_those_of_the_other_tests():
    assert {np.dtype(d): bound for d, bound in parity.BOUND.items()} == TOLERANCE


@pytest.mark.parametrize("name", parity.REGISTRY)
def test_a_function_that_returns_zeros_is_found(name, monkeypatch):
    def zeros(tree):
        if isinstance(tree, tuple):
            return tuple(zeros(branch) for branch in tree)
        return None if tree is None else np.zeros_like(tree)

    def nothing(tree):
        if isinstance(tree, tuple):
            return tuple(map(nothing, tree))
        return None if tree is None else 0 * tree

    def broken(function):
        return lambda *args, **options: zeros(function(*args, **options))

    if name.startswith("torch."):
        module = pytest.importorskip("fastelbo.torch")
        name = name.removeprefix("torch.")
        thing, method = module, name
        if isinstance(getattr(module, name), type):
            thing = getattr(module, name)
            method = "log_prob" if hasattr(thing, "log_prob") else "forward"
        exact = getattr(thing, method)
        monkeypatch.setattr(thing, method, lambda *a, **options: nothing(exact(*a, **options)))
        (row, *_) = parity.compare(f"torch.{name}", "float64", ((3, 33, 31),))
        assert not row.raised
        assert row.is_out_of_bounds
        return
    thing = getattr(fastelbo, name)
    is_class = isinstance(thing, type)
    owner, names = (thing, set(METHODS) & set(dir(thing))) if is_class else (fastelbo, {name})
    assert names
    for each in names:
        with monkeypatch.context() as patch:
            patch.setattr(owner, each, broken(getattr(owner, each)))
            (row, *_) = parity.compare(name, "float64", ((3, 33, 31),))
        assert row.is_out_of_bounds, each
        assert not row.raised


def test_an_error_of_twice_the_bound_is_found(monkeypatch):
    exact = fastelbo.kl_standard_normal

    def inexact(*args, **options):
        return exact(*args, **options) * (1 + 2e-6)

    monkeypatch.setattr(fastelbo, "kl_standard_normal", inexact)
    (row, *_) = parity.compare("kl_standard_normal", "float32", ((3, 33, 31),))
    assert 1e-6 < row.error < 3e-6
    assert row.is_out_of_bounds


def test_what_raises_is_out_of_bounds(monkeypatch):
    monkeypatch.setattr(fastelbo, "elbo", partial(int, "no number"))
    (row,) = parity.compare("elbo", "float64", ((1, 1, 1),))
    assert row.is_out_of_bounds
    assert "TypeError" in row.raised or "ValueError" in row.raised


@pytest.mark.parametrize(
    ("actual", "desired", "scale", "expected"),
    [
        (1.0, 1.0, 0.0, 0.0),
        (1.5, 1.0, 0.0, 0.5),
        (1.5, 1.0, 5.0, 0.1),
        (np.nan, 1.0, 0.0, np.inf),
        (np.nan, np.nan, 0.0, 0.0),
        (np.inf, -np.inf, 0.0, np.inf),
        (0.0, 0.0, 0.0, 0.0),
        (1e-9, 0.0, 0.0, np.inf),
        (np.array([1.0, 8.0]), np.array([2.0, 8.0]), 0.0, 0.125),
        (np.ones(3), np.ones(4), 0.0, np.inf),
        ((1.0, None), (1.0, None), 0.0, 0.0),
        ((1.0, 7.0), (1.0, None), 0.0, 0.0),
        ((1.0, None), (1.0, 2.0), 0.0, np.inf),
        (1.0, (1.0,), 0.0, np.inf),
        ((1.5, (2.0,)), (1.0, (1.0,)), (5.0, (10.0,)), 0.1),
    ],
)
def test_error(actual, desired, scale, expected):
    assert parity.error(actual, desired, scale) == pytest.approx(expected)


def test_command(capsys):
    assert run("--quick", "kl_standard_normal", "reparameterize") == 0
    out = capsys.readouterr().out
    for build in _builds.available():
        assert f"{build} float32" in out
    assert "0 of" in out


def test_command_out_of_bounds(capsys, monkeypatch):
    monkeypatch.setattr(
        _common,
        "in_build",
        lambda build, *_, **__: [
            {"name": "elbo", "against": "reference", "dtype": "float32", "error": 2e-6, "checks": 1}
            | {"build": build, "raised": ""}
        ],
    )
    assert run("elbo", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [row["build"] for row in report["rows"]] == list(_builds.available())
    assert all(row["out_of_bounds"] for row in report["rows"])
    assert run("elbo") == 1
    assert "2.0e-06!" in capsys.readouterr().out


def test_command_rejects_unknown_functions(capsys):
    assert run("elbow") == 2
    assert "unknown function 'elbow'" in capsys.readouterr().err


def test_children_run_in_their_build():
    for build in _builds.available():
        assert _common.in_build(build, "fastelbo", "build_info")["build"] == build
    with pytest.raises(RuntimeError, match="no-such-build"):
        _common.in_build("no-such-build", "fastelbo", "build_info")


def test_slow_comparisons_have_fewer_rows():
    assert parity.sizes_of("elbo", parity.SIZES) == list(parity.SIZES)
    for name in ("torch.elbo", "NegativeBinomial", "ZeroInflatedNegativeBinomial"):
        sizes = parity.sizes_of(name, parity.SIZES)
        assert [size[1:] for size in sizes] == [size[1:] for size in parity.SIZES]
        assert all(rows >= 1 and rows * event <= parity.FEW for rows, event, _ in sizes)
