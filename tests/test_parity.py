"""The command ``fastelbo parity``: that it looks at everything, and finds what is wrong."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fastelbo
from fastelbo import _builds
from fastelbo._catalogue import CASES, ROWS
from fastelbo._cli import _common, parity

SIZE = ((3, 33, 31),)


def run(*options):
    parser = argparse.ArgumentParser()
    parity.add_arguments(parser)
    return parity.run(parser.parse_args(options))


def broken(case):
    """The case as if fastelbo computed zeros."""

    def zeros(tree):
        if isinstance(tree, tuple):
            return tuple(zeros(branch) for branch in tree)
        return None if tree is None else np.zeros_like(tree)

    def call(module, *arrays, **options):
        result = case.call(module, *arrays, **options)
        return zeros(result) if module is fastelbo else result

    return type(case)(**{**vars(case), "call": call})


@pytest.mark.parametrize("name", ROWS)
def test_a_function_that_returns_zeros_is_found(name, monkeypatch):
    row = ROWS[name]
    for case in row.cases[:2]:
        alone = type(row)(row.name, (broken(case),))
        with monkeypatch.context() as patch:
            patch.setitem(ROWS, name, alone)
            found = parity.compare(name, "float64", SIZE)
        for worst in found:
            assert worst.is_out_of_bounds or worst.at == "limits", (case.name, worst)
            assert not worst.raised


def test_agrees_with_the_reference():
    found = parity.compare("kl_standard_normal", "float32", parity.QUICK_SIZES)
    assert {(worst.of, worst.at) for worst in found} == {
        (of, at) for of in ("value", "gradient") for at in ("ordinary", "extremes", "limits")
    }
    for worst in found:
        assert worst.error <= worst.bound
        assert worst.at == "limits" or worst.error > 0
    calls = [(c, len(list(parity.variants(c)))) for c in ROWS["kl_standard_normal"].cases]
    ordinary = {worst.of: worst.checks for worst in found if worst.at == "ordinary"}
    assert ordinary["value"] == 2 * sum(n for _, n in calls)
    assert ordinary["gradient"] == 2 * sum(2 * n for c, n in calls if c.gives_gradients)


def test_others_agree_with_the_reference():
    pytest.importorskip("torch")
    found = {worst.against: worst for worst in parity.compare_others("StudentT", SIZE)}
    assert set(found) == {"SciPy", "PyTorch eager"}
    assert not any(worst.is_out_of_bounds for worst in found.values())


def test_others_that_are_not_installed_are_left_out(monkeypatch):
    for name in ("scipy", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    assert parity.compare_others("StudentT", SIZE) == []


@pytest.mark.parametrize(("framework", "other"), [("torch", "composite"), ("jax", "formulas")])
def test_adapters_agree_with_the_reference(framework, other):
    pytest.importorskip(framework)
    found = getattr(parity, f"compare_{framework}")("Laplace", "float64", SIZE)
    assert [(worst.against, worst.of) for worst in found] == [
        (against, of) for against in ("reference", other) for of in ("value", "gradient")
    ]
    assert not any(worst.is_out_of_bounds for worst in found)
    assert all(worst.checks for worst in found)


def test_an_error_of_twice_the_bound_is_found(monkeypatch):
    exact = fastelbo.kl_standard_normal
    monkeypatch.setattr(
        fastelbo,
        "kl_standard_normal",
        lambda *args, **options: exact(*args, **options) * (1 + 2e-6),
    )
    first, *others = parity.compare("kl_standard_normal", "float32", SIZE)
    assert 1e-6 < first.error < 3e-6
    assert first.is_out_of_bounds
    assert not any(w.is_out_of_bounds for w in others if w.of == "gradient")


def test_what_raises_is_out_of_bounds(monkeypatch):
    for name in ("kl_standard_normal", "kl_standard_normal_and_grad"):
        with monkeypatch.context() as patch:
            patch.setattr(fastelbo, name, partial(int, "no number"))
            worst = parity.compare("kl_standard_normal", "float64", SIZE)
        (raised,) = (w for w in worst if w.raised and w.at == "ordinary")
        assert raised.is_out_of_bounds
        assert f"{name}: " in raised.raised


def test_what_goes_backward_is_a_gradient():
    assert {w.of for w in parity.compare("reparameterize_backward", "float64", SIZE)} == {
        "gradient"
    }


def test_command(capsys):
    assert run("--quick", "kl_standard_normal") == 0
    out = capsys.readouterr().out
    for build in _builds.available():
        assert f"{build} float32" in out
    assert "0 of" in out


def test_command_out_of_bounds(capsys, monkeypatch):
    def found(_, build, *__, function, **___):
        row = {"name": "elbo", "against": "reference", "dtype": "float32", "error": 2e-6}
        row |= {"of": "value", "at": "ordinary"}
        row |= {"bound": 1e-6, "checks": 1, "build": build, "raised": "ValueError: no"}
        return [row] if function == "compare_build" else []

    monkeypatch.setattr(_common.Children, "in_build", found)
    assert run("elbo", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [row["build"] for row in report["rows"]] == list(_builds.available())
    assert all(row["out_of_bounds"] for row in report["rows"])
    assert run("elbo") == 1
    out = capsys.readouterr().out
    assert "2.0e-06!" in out
    for build in _builds.available():
        assert f"\nelbo ({build}, float32) raised ValueError: no\n" in out


def test_unknown_names_are_corrected(capsys):
    assert run("elbow") == 2
    assert "unknown name 'elbow', did you mean elbo" in capsys.readouterr().err


def test_children_run_in_their_build():
    for build in _builds.available():
        assert _common.in_build(build, "fastelbo", "build_info")["build"] == build
    with pytest.raises(RuntimeError, match="no-such-build"):
        _common.in_build("no-such-build", "fastelbo", "build_info")
    with _common.Children() as children:
        pass
    with pytest.raises(RuntimeError, match="its block has ended"):
        children.in_build("baseline", "fastelbo", "build_info")


def children_of(pid):
    """The processes that one has started, from whatever thread, as Linux tells."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in path.read_text().split()]
    return found


def ends(pid):
    """Whether a process is gone, or a zombie, within seconds."""
    for _ in range(200):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="asks Linux for children")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_children(how):
    """The command alone is told: a terminal would tell the children, too."""
    root = str(Path(fastelbo.__file__).parents[1])
    heeds = (  # SIGINT, which shells ignore in the background
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execv(sys.executable, [sys.executable, '-m', 'fastelbo', 'parity'])"
    )
    environment = {**os.environ, "PYTHONPATH": root}
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", heeds], **options) as process:
        try:
            for _ in range(600):
                if children_of(process.pid):
                    break
                time.sleep(0.05)
            time.sleep(1)
            children = children_of(process.pid)
            process.send_signal(how)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert children
    assert all(ends(child) for child in children)
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "fastelbo parity: interrupted" in said
        assert "Traceback" not in said


def test_nothing_is_larger_than_a_reference_can_make():
    for case in CASES.values():
        for batch, event, latent in parity.SIZES:
            extents = case.within(parity.MOST, B=batch, D=event, L=latent)
            for axes in (*case.inputs.values(), case.largest):
                sizes = [int(np.prod(extents[letter])) for letter in axes]
                assert np.prod(sizes, dtype=float) <= parity.MOST, case.name
