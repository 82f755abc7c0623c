"""Builds: which one is chosen, how to override that, and that all give the same numbers."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastelbo
from fastelbo import _builds
from tests.conftest import fresh_python

RUNNABLE = _builds.available()
SETUP = Path(__file__).parent.parent / "setup.py"


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
    done = fresh_python("-c", INFO, FASTELBO_BUILD=build)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["build"] == RUNNABLE[-1]


@pytest.mark.parametrize("build", RUNNABLE)
def test_override(build):
    done = fresh_python("-c", INFO, FASTELBO_BUILD=build)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["build"] == build


@pytest.mark.parametrize("build", ["sse9", "AVX2", "avx512 ", "baseline,avx2"])
def test_unknown_build(build):
    done = fresh_python("-c", INFO, FASTELBO_BUILD=build)
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


def test_build_that_has_no_folder(monkeypatch):
    monkeypatch.setattr(_builds, "NAMES", (*_builds.NAMES, "avx1024"))
    monkeypatch.setenv("FASTELBO_BUILD", "avx1024")
    assert _builds.available() == RUNNABLE
    with pytest.raises(ImportError, match=r"avx1024.*not compiled.*baseline"):
        _builds._choose()


def test_nothing_compiled(monkeypatch):
    monkeypatch.setattr(_builds, "_is_compiled", lambda build: False)
    monkeypatch.delenv("FASTELBO_BUILD", raising=False)
    with pytest.raises(ImportError, match=r"not compiled.*pip install"):
        _builds._choose()
    absent = "import sys; sys.modules['fastelbo._processor'] = None; import fastelbo"
    done = fresh_python("-c", absent)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: fastelbo is not compiled")


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


# What is compiled ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setup():
    """setup.py as a module; nothing is compiled."""
    spec = importlib.util.spec_from_file_location("setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.BUILDS = {"baseline": [], "avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4"]}
    return module


@pytest.mark.parametrize(
    ("wanted", "runnable", "expected"),
    [
        (None, [], ["baseline"]),
        ("", ["avx2"], ["baseline", "avx2"]),
        (None, ["avx2", "avx512"], ["baseline", "avx512"]),
        ("all", [], ["baseline", "avx2", "avx512"]),
        ("avx512", [], ["avx512"]),
        ("avx2,baseline", ["avx512"], ["avx2", "baseline"]),
    ],
)
def test_chosen_builds(setup, wanted, runnable, expected):
    assert setup.chosen_builds(wanted, runnable.__contains__) == expected


def test_all_builds_where_the_compiler_cannot_tell(setup):
    assert setup.chosen_builds(None, lambda build: None) == ["baseline", "avx2", "avx512"]


@pytest.mark.parametrize("wanted", ["sse9", "AVX2", "avx2,sse9", "all,avx2", "avx2 "])
def test_unknown_build_is_not_compiled(setup, wanted):
    with pytest.raises(SystemExit, match=r"FASTELBO_BUILDS: unknown .*'baseline'.*'all'"):
        setup.chosen_builds(wanted, lambda build: True)


def test_compiler_tells_what_runs_here(setup):
    """setup.py asks what the installed package asks."""
    compiler = setup.Compiler()
    if not compiler.takes("int main(void) { return 0; }"):
        pytest.skip("no C compiler")
    for build in _builds.NAMES:
        assert compiler.runs(build) == _builds.processor.processor_runs(build)
    assert compiler.takes("int main(void) { return 2; }", ask="baseline") is None
    assert not compiler.takes("int main(void) { return undeclared; }")


def build_by(tmp_path, compiler):
    """What a build says that fails, its compiler being these lines of shell script."""
    script = tmp_path / "cc"
    script.write_text(f"#!/bin/sh\n{compiler}\n")
    script.chmod(0o755)
    done = subprocess.run(
        [sys.executable, SETUP, "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "CC": str(script)},
    )
    assert done.returncode == 1
    return (done.stdout + done.stderr).strip()


@pytest.mark.skipif(os.name != "posix", reason="compilers are shell scripts here")
def test_no_compiler(tmp_path):
    """One line that says what to install, before anything else is done."""
    said = build_by(tmp_path, "exit 127")
    assert "\n" not in said
    assert "no working C compiler: install gcc" in said


@pytest.mark.skipif(os.name != "posix", reason="compilers are shell scripts here")
def test_no_headers_of_python(tmp_path):
    said = build_by(tmp_path, 'for a; do grep -qs Python.h "$a" && exit 1; done; exit 0')
    assert "\n" not in said
    assert "no Python.h" in said
    assert "python3-dev" in said


# One result ---------------------------------------------------------------------------------------


AGREES = """
from fastelbo._catalogue import CASES, flatten
from tests.conftest import assert_close
for dtype in ("float32", "float64"):
    for function in CASES.values():
        arrays = function.draw(1, dtype, B=33, L=20).values()
        got, expected = flatten(function.public(*arrays)), flatten(function.reference(*arrays))
        assert_close(tuple(got), tuple(expected), dtype, tuple(function.scales(arrays)))
"""


@pytest.mark.parametrize("build", RUNNABLE)
def test_every_build_agrees(build):
    """Every function in every build that runs here, against the reference."""
    done = fresh_python("-c", AGREES, FASTELBO_BUILD=build)  # handles of passes are kept here
    assert done.returncode == 0, done.stderr
