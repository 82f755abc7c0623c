"""Builds: which one is chosen, how to override that, and that all give the same numbers."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import fastelbo
from fastelbo import _builds
from tests.conftest import assert_close
from tests.functions import FUNCTIONS, flatten

RUNNABLE = _builds.available()


def python(code, build=None):
    environment = {k: v for k, v in os.environ.items() if k != "FASTELBO_BUILD"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if build is not None:
        environment["FASTELBO_BUILD"] = build
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )


INFO = "import fastelbo, json; print(json.dumps(fastelbo.build_info()))"


def test_build_info():
    info = fastelbo.build_info()
    assert info["build"] in info["builds"]
    assert info["builds"] == RUNNABLE
    assert info["threads"] >= 1
    assert info["numpy"] == np.__version__
    assert info["fastelbo"] == fastelbo.__version__
    assert set(info) == {"fastelbo", "build", "builds", "openmp", "threads", "numpy", "python"}


def test_baseline_is_always_there():
    assert "baseline" in RUNNABLE


@pytest.mark.parametrize("build", [None, ""])
def test_the_widest_is_the_default(build):
    done = python(INFO, build)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["build"] == RUNNABLE[-1]


@pytest.mark.parametrize("build", RUNNABLE)
def test_override(build):
    done = python(INFO, build)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["build"] == build


@pytest.mark.parametrize("build", ["sse9", "AVX2", "avx512 ", "baseline,avx2"])
def test_unknown_build(build):
    done = python(INFO, build)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert repr(build) in last
    assert "baseline" in last


def test_processor_that_cannot(monkeypatch):
    monkeypatch.setattr(_builds.processor, "processor_runs", lambda build: build == "baseline")
    monkeypatch.setenv("FASTELBO_BUILD", "avx2")
    assert _builds.available() == ("baseline",)
    with pytest.raises(ImportError, match=r"avx2.*(processor cannot|not compiled).*baseline"):
        _builds._choose()
    monkeypatch.delenv("FASTELBO_BUILD")
    assert _builds._choose() == "baseline"


def test_build_that_was_not_compiled(monkeypatch):
    monkeypatch.setattr(_builds, "_is_compiled", lambda build: build != "avx512")
    monkeypatch.setattr(_builds.processor, "processor_runs", lambda build: True)
    assert "avx512" not in _builds.available()
    monkeypatch.setenv("FASTELBO_BUILD", "avx512")
    with pytest.raises(ImportError, match=r"avx512.*not compiled"):
        _builds._choose()


def test_nothing_compiled(monkeypatch):
    monkeypatch.setattr(_builds, "_is_compiled", lambda build: False)
    monkeypatch.delenv("FASTELBO_BUILD", raising=False)
    with pytest.raises(ImportError, match="no compiled kernels"):
        _builds._choose()


def test_processor_is_asked():
    assert _builds.processor.processor_runs("baseline")
    assert not _builds.processor.processor_runs("sse9")
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            flags = next((line.split() for line in f if line.startswith("flags")), [])
        assert _builds.processor.processor_runs("avx2") == ({"avx2", "fma", "bmi2"} <= set(flags))
        assert _builds.processor.processor_runs("avx512") == (
            {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2"} <= set(flags)
        )


@pytest.mark.parametrize("build", RUNNABLE)
def test_every_build_agrees(build, dtype, monkeypatch):
    """Every function in every build that runs here, against the reference, in one process."""
    package = importlib.import_module(f"fastelbo._kernels.{build}")
    families = [module.name for module in pkgutil.iter_modules(package.__path__)]
    assert "likelihood" in families
    for family in families:
        kernels = importlib.import_module(f"{package.__name__}.{family}")
        monkeypatch.setattr(_builds.kernels(family), "__dict__", dict(vars(kernels)))
    for function in FUNCTIONS:
        arrays = function.draw(np.random.default_rng(1), dtype, 33, (7,), 20).values()
        got = flatten(function.public(*arrays))
        expected = flatten(function.reference(*arrays))
        assert_close(tuple(got), tuple(expected), dtype, tuple(function.scales(arrays)))
