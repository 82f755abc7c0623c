"""Importing fastelbo loads little and changes nothing."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import fastelbo
from tests.conftest import fresh_python, run_python


def test_imports_little():
    """NumPy, the standard library and its own modules."""
    added = run_python(
        """
        import json, sys, numpy
        before = set(sys.modules)
        import fastelbo
        print(json.dumps(sorted(set(sys.modules) - before)))
        """
    )
    foreign = {name.split(".")[0] for name in added} - {"fastelbo"} - sys.stdlib_module_names
    cython = {name for name in foreign if name.startswith(("_cython_", "cython_runtime"))}
    assert foreign - cython <= {"numpy"}
    heavy = {"asyncio", "multiprocessing", "subprocess", "unittest", "http", "sqlite3", "tkinter"}
    assert not heavy & {name.split(".")[0] for name in added}
    others = [name for name in added if name.startswith("fastelbo.")]
    assert not [name for name in others if ".torch" in name or ".jax" in name or "_cli" in name]
    assert len(added) < 80


def test_loads_no_openmp_before_a_kernel_runs():
    """Or PyTorch, imported later, would find a libgomp that was told to spin as suits NumPy."""
    before, after = run_python(
        """
        import json, sys
        import fastelbo
        def linked():
            return [name for name in sys.modules if name == "fastelbo._runtime"
                    or name.startswith("fastelbo._kernels.") and name.count(".") == 3]
        before = linked()
        fastelbo.elbo([[1.0]], [[1.0]], [[0.0]], [[1.0]])
        print(json.dumps([before, linked()]))
        """
    )
    assert not before
    build = fastelbo.build_info()["build"]
    builds = {name.split(".")[2] for name in after if name.startswith("fastelbo._kernels.")}
    assert f"fastelbo._kernels.{build}.likelihood" in after
    assert builds == {build}, "kernels of one build, and of no other"


def test_changes_no_state():
    """Floating-point state, warnings, error handling, environment, threads: as before."""
    before, after, denormal = run_python(
        """
        import json, os, signal, sys, threading, warnings
        import numpy as np
        def state():
            return [np.geterr(), np.get_printoptions()["precision"], len(warnings.filters),
                    dict(os.environ), threading.active_count(), sys.getswitchinterval(),
                    sys.getrecursionlimit(), str(signal.getsignal(signal.SIGINT)), os.getcwd()]
        before = state()
        import fastelbo
        mu = np.zeros((200, 200))
        fastelbo.elbo(mu, mu, mu, mu, rng=1)
        after = state()
        tiny = np.array([np.finfo(np.float64).tiny]) / 4
        single = np.array([np.finfo(np.float32).tiny], np.float32) / np.float32(4)
        print(json.dumps([before, after, [float(tiny[0]), float(single[0] * np.float32(2))]]))
        """
    )
    assert before == after
    assert denormal == [np.finfo(np.float64).tiny / 4, float(np.finfo(np.float32).tiny) / 2]


def test_denormals_survive_in_every_thread():
    """No thread of the pool flushes denormals to zero, but while it multiplies by weights."""
    tiny = np.full((400, 1000), np.finfo(np.float64).tiny / 8)
    zeros, expected = np.zeros_like(tiny), 2 * tiny  # before anything could flush these, too
    z = np.linspace(0, 99, 40).reshape(10, 4)
    for threads in (1, 2, 8):
        fastelbo.total_correlation_and_grad(z, z, z, dataset_size=99, num_threads=threads)
        fastelbo.mixture_log_prob_and_grad(z, z, z, np.zeros(10), num_threads=threads)
        fastelbo.iwae_and_grad(tiny[:10], z[None], z, z, tiny[None, :10], num_threads=threads)
        _, (grad,) = fastelbo.SquaredError().log_prob_and_grad(
            tiny, zeros, reduction="sum", num_threads=threads
        )
        np.testing.assert_array_equal(grad, expected)


def test_public_names():
    assert sorted(fastelbo.__all__) == sorted(set(fastelbo.__all__))
    for name in fastelbo.__all__:
        assert getattr(fastelbo, name).__doc__, f"{name} has no docstring"
    assert set(fastelbo.__all__) <= set(dir(fastelbo))
    star = {}
    exec("from fastelbo import *", star)
    assert set(fastelbo.__all__) <= set(star)


def test_packages_that_are_not_imported_yet():
    names = ["dask", "jax", "reference", "torch"]
    told = run_python(
        f"""
        import json, fastelbo
        told = []
        for name in {names}:
            try:
                getattr(fastelbo, name)
            except AttributeError as error:
                told.append(str(error))
        print(json.dumps(told))
        """
    )
    assert told == [
        f"fastelbo.{name} is not imported yet: write import fastelbo.{name}" for name in names
    ]


def test_imports_without_scipy():
    """NumPy is the only dependency."""
    assert run_python(
        """
        import json, sys
        for name in ("scipy", "sklearn", "torch", "matplotlib", "tqdm", "jax", "numba"):
            sys.modules[name] = None
        import fastelbo
        result = fastelbo.elbo([[1.0]], [[0.0]], [[0.0]], [[1.0]], rng=1)
        print(json.dumps(result.elbo == 0.0))
        """
    )


@pytest.mark.parametrize("command", [("-c", "import fastelbo"), ("-m", "fastelbo", "info")])
def test_not_compiled(command, tmp_path, monkeypatch):
    """A clone without kernels says so, and what to do."""
    source = Path(fastelbo.__file__).parent
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(source, tmp_path / "fastelbo", ignore=ignored)
    monkeypatch.chdir(tmp_path)
    done = fresh_python(*command, PYTHONPATH=None)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert "fastelbo is not compiled" in lines[-1]
    assert f"{tmp_path}: run `pip install .`" in lines[-1]
    assert "circular" not in done.stderr
    assert command[0] == "-c" or len(lines) == 1
