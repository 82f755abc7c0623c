"""What the tests share: the table of tolerances, comparison, differences, memory layouts.

The build is chosen when fastelbo is imported: the whole suite runs once per FASTELBO_BUILD.
"""

import ast
import functools
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from fastelbo._catalogue import TOLERANCE as TOLERANCE
from fastelbo._catalogue._compare import errors
from tests.remembered import remember

remember()

#: Each that is computed in.
DTYPES = tuple(TOLERANCE)

#: Names of the memory layouts that an input may come in: see `lay_out`.
LAYOUTS = (
    "read-only",
    "memmap",
    "row-strided",
    "strided",
    "reversed",
    "fortran",
    "big-endian",
    "unaligned",
    "list",
)


def assert_close(actual, desired, dtype, scale=None):
    """`actual` is `desired` within the tolerance of `dtype`.

    The error is relative to max(|desired|, scale), element by element. Give `scale` (a number or
    an array) where terms of that magnitude cancel: the sum of their absolute values, say. Shapes
    must agree, NaN and infinities must be where they are expected, and one unit in the last place
    of a denormal is forgiven. Tuples are compared item by item.
    """
    if isinstance(desired, tuple):
        assert len(actual) == len(desired)
        scales = scale if isinstance(scale, tuple) else (scale,) * len(desired)
        for a, d, s in zip(actual, desired, scales, strict=True):
            assert_close(a, d, dtype, s)
        return
    shape, expected = np.shape(actual), np.shape(desired)
    assert shape == expected, f"shape {shape}, expected {expected}"
    found, tolerance = errors(actual, desired, dtype, scale), TOLERANCE[np.dtype(dtype)]
    wrong = ~(found <= tolerance)
    if wrong.any():
        worst = np.unravel_index(np.argmax(found), found.shape)
        raise AssertionError(
            f"{wrong.sum()} of {found.size} beyond {tolerance:g}, worst {found[worst]:.3g}: "
            f"{np.asarray(actual)[worst]}, expected {np.asarray(desired)[worst]}"
        )


def numerical_gradient(f, x, step=1e-3):
    """Gradient of the number f(x) by central differences of fourth order, in float64.

    Good to about 1e-10 of |f| where the fifth derivative is of the order of f.
    """
    x = np.array(x, dtype=np.float64)
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        h = step * max(1.0, abs(x[i]))
        moved = []
        for steps in (-2, -1, 1, 2):
            y = x.copy()
            y[i] += steps * h
            moved.append(f(y))
        gradient[i] = (moved[0] - 8 * moved[1] + 8 * moved[2] - moved[3]) / (12 * h)
    return gradient


def lay_out(array, layout, folder):
    """The same values as `array`, in memory of another layout; `folder` is for the memmap."""
    array = np.array(array)
    if layout == "read-only":
        array.flags.writeable = False
        return array
    if layout == "memmap":
        path = folder / f"{len(list(folder.iterdir()))}.bin"
        array.tofile(path)
        return np.memmap(path, dtype=array.dtype, mode="r", shape=array.shape)
    if layout == "row-strided":  # the last axis is contiguous, the others are not
        room = np.full((*array.shape[:-1], array.shape[-1] + 3), 77, dtype=array.dtype)
        room[..., : array.shape[-1]] = array
        return room[..., : array.shape[-1]]
    if layout == "strided":
        room = np.full((*array.shape[:-1], 2 * array.shape[-1]), 77, dtype=array.dtype)
        room[..., ::2] = array
        return room[..., ::2]
    if layout == "reversed":
        return array[..., ::-1].copy()[..., ::-1]
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "big-endian":
        return array.astype(array.dtype.newbyteorder(">"))
    if layout == "unaligned":
        room = np.empty(array.nbytes + 1, dtype=np.uint8)
        moved = room[1:].view(array.dtype).reshape(array.shape)
        moved[...] = array
        return moved
    if layout == "list":
        return array.tolist()
    raise ValueError(layout)


def fresh_python(*arguments, timeout=60, **environment):
    """A fresh interpreter that has ended, in time, and the text that it wrote.

    It imports what this one does; variables that are None are not in its environment.
    """
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={name: value for name, value in given.items() if value is not None},
    )


def run_python(code, *arguments, timeout=60, **environment):
    """What code prints in a fresh interpreter, as JSON; a warning is an error there."""
    code = ("-W", "error", "-c", textwrap.dedent(code))
    done = fresh_python(*code, *arguments, timeout=timeout, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    """Each dtype that is computed in."""
    return request.param


def together(**values):
    """Has one item of a test go through every combination of these arguments.

    An item takes milliseconds, so thousands of short ones take a minute. What fails has a note
    that says with which.
    """

    def decorate(test):
        @functools.wraps(test)
        def through_all(**given):
            for chosen in itertools.product(*values.values()):
                these = dict(zip(values, chosen, strict=True))
                try:
                    test(**given, **these)
                except BaseException as error:
                    error.add_note(f"with {', '.join(f'{n} = {v}' for n, v in these.items())}")
                    raise

        signature = inspect.signature(test)
        others = [p for name, p in signature.parameters.items() if name not in values]
        through_all.__signature__ = signature.replace(parameters=others)
        return through_all

    return decorate


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    """A function that lays an array out anew, once for every layout."""
    return lambda array: lay_out(array, request.param, tmp_path)


@pytest.fixture
def composite(monkeypatch):
    """A function that makes every tensor take fastelbo.torch's composites from now on, or not."""
    tensors = pytest.importorskip("fastelbo.torch._tensors")
    return lambda forced=True: monkeypatch.setattr(tensors, "always_composite", forced)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_setupnodes():
    """What is said before workers start, since plugins import NumPy before this file.

    Each has one thread of BLAS, and those of OpenMP sleep while they wait: they would spin, and
    keep each other from the processors. Inductor compiles in the worker, not in forks of a process
    that has threads, which may hang.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--record", metavar="FILE", help="write there what became of each test")
    parser.addoption(
        "--after",
        metavar="FILE",
        type=_outcomes,
        help="only what the run that wrote FILE could not test: what did not pass, or was not"
        " there, and what names a framework, which may say more where there is one",
    )


def _outcomes(path):
    """{a test that a run recorded: what became of it}, and likewise of files, of which several."""
    tests, files = {}, {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            outcome, test = line.rstrip("\n").split(" ", 1)
            tests[test] = outcome
            files.setdefault(test.split("::")[0], set()).add(outcome)
    return tests, files


FRAMEWORK = re.compile("torch|jax|numba")


@functools.cache
def naming_a_framework(path):
    """The names of the tests of a file that name one, and whether what tests share does."""
    source = path.read_text(encoding="utf-8")
    lines, named = source.splitlines(), set()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min(n.lineno for n in (node, *node.decorator_list)) - 1
            if FRAMEWORK.search("\n".join(lines[first : node.end_lineno])):
                named.add(node.name)
            del lines[first : node.end_lineno]
    return named, FRAMEWORK.search("\n".join(lines)) is not None


def pytest_ignore_collect(collection_path, config):
    """Files of which everything has passed, and nothing names a framework, are not even read."""
    if (before := config.getoption("--after")) and collection_path.suffix == ".py":
        outcomes = before[1].get(collection_path.relative_to(config.rootpath).as_posix())
        if outcomes == {"passed"} and naming_a_framework(collection_path) == (set(), False):
            return True
    return None


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
    if before := config.getoption("--after"):
        chosen, again = [], []
        for item in items:
            named, all_do = naming_a_framework(item.path)
            is_new = before[0].get(item.nodeid) != "passed"
            says_more = all_do or item.function.__name__ in named
            (chosen if is_new or says_more else again).append(item)
        items[:] = chosen
        config.hook.pytest_deselected(items=again)


def pytest_terminal_summary(terminalreporter, config):
    if path := config.getoption("--record"):
        with open(path, "w", encoding="utf-8") as lines:
            for outcome in ("passed", "skipped", "failed", "error"):
                for report in terminalreporter.stats.get(outcome, ()):
                    print(outcome, report.nodeid, file=lines)
