"""What goes wrong around a program, as often as one likes: fastelbo goes on, or says what happened.

    python -m tests.faults                  # all, as the page on reliability has it
    python -m tests.faults kill savers --share 0.1

Each fault is a function that makes it happen so many times, and says what it has seen; what it
finds raises. With the whole of each, and ``--write``, docs/measured/faults.json is written anew.
"""

import argparse
import contextlib
import errno
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import fastelbo
from fastelbo._catalogue import CASES, flatten
from fastelbo._openmp import runtime

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "measured" / "faults.json"
BATCHED = [name for name, case in CASES.items() if case.batched]
FAULTS = {}


def fault(times):
    """A fault by its function's name, with how often it is made."""

    def keep(function):
        FAULTS[function.__name__] = function, times
        return function

    return keep


def write(name, happens, found):
    """A row of the page on reliability."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    rows[name] = {"fault": happens, "found": found}
    RESULTS.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")


def same(got, expected):
    return all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(flatten(got), flatten(expected), strict=True)
    )


def problems(count, extents):
    """(a call of each of some cases with arrays, what it gives on one thread)."""
    made = []
    for name in BATCHED[:: max(1, len(BATCHED) // count)]:
        case = CASES[name]
        arrays = list(case.draw(0, np.float32, **extents).values())
        made.append((case.public, arrays, case.public(*arrays, num_threads=1)))
    return made


def forked():
    """What os.fork returns; Python and JAX warn that it leaves threads behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def python(code, *arguments, **options):
    """A fresh interpreter at work on some code."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from tests.faults import *\n{code}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


def model(hidden):
    rows = np.random.default_rng(0).random((20, 50))
    return fastelbo.VAE(hidden=(hidden,), latent_dim=2, epochs=1, random_state=0).fit(rows)


# Threads and processes ----------------------------------------------------------------------------


@fault(20_000)
def threads(times):
    """64 Python threads at once, of which each asks for 1 to 64 threads."""
    work = problems(20, {"B": 40, "D": (700,), "L": 100})
    before, cpus = runtime.govern(False), runtime.usable_cpus
    runtime.usable_cpus = lambda: 64  # more threads than there are processors really run

    def call(i):
        public, arrays, expected = work[i % len(work)]
        return same(public(*arrays, num_threads=1 + i % 64), expected)

    try:
        with ThreadPoolExecutor(64) as pool:
            right = sum(pool.map(call, range(times)))
    finally:
        runtime.govern(before)
        runtime.usable_cpus = cpus
    assert right == times
    return f"{times} calls: the bits of one thread"


@fault(300)
def fork(times):
    """fork while other threads are in the midst of parallel passes; the child computes, too."""
    work = problems(6, {"B": 100, "D": (700,), "L": 100})
    stop = threading.Event()

    def busy(i):
        public, arrays, _ = work[i % len(work)]
        while not stop.is_set():
            public(*arrays, num_threads=2)

    others = [threading.Thread(target=busy, args=(i,)) for i in range(4)]
    for other in others:
        other.start()
    try:
        for i in range(times):
            public, arrays, expected = work[i % len(work)]
            child = forked()
            if child == 0:
                signal.alarm(60)
                os._exit(not same(public(*arrays, num_threads=2), expected))
            assert os.waitpid(child, 0)[1] == 0, "a child hung, crashed, or was wrong"
    finally:
        stop.set()
        for other in others:
            other.join()
    return f"{times} children: none hung, all right"


@fault(500)
def interrupt(times):
    """SIGINT at any moment: of a pass, of training, while a file is written."""
    z = np.random.default_rng(0).normal(size=(700, 32))
    rows = np.random.default_rng(0).random((300, 20))
    fitted = model(30)
    passes = problems(10, {"B": 60, "D": (300,), "L": 40})

    def training():  # which keeps the last epoch, and warns that it was interrupted
        fastelbo.VAE(hidden=(9,), latent_dim=2, epochs=4, random_state=0).fit(rows)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.npz")
        calls = [
            lambda: fastelbo.total_correlation_and_grad(z, z, z, dataset_size=700),
            training,
            lambda: fitted.save(path),
            *[lambda p=p, a=a: p(*a, num_threads=2) for p, a, _ in passes],
        ]
        rng, interrupted = np.random.default_rng(0), 0
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        filters = warnings.filters[:]
        warnings.simplefilter("error", fastelbo.TrainingWarning)
        try:
            for i in range(times):
                call = calls[i % len(calls)]
                start = time.monotonic()
                call()
                longest = time.monotonic() - start
                timer = threading.Timer(
                    rng.random() * longest, signal.raise_signal, (signal.SIGINT,)
                )
                try:
                    timer.start()
                    while timer.is_alive():
                        call()
                    timer.join()
                    time.sleep(0.001)
                except (KeyboardInterrupt, fastelbo.TrainingWarning):
                    interrupted += 1
                timer.join()
                assert all(same(p(*a), e) for p, a, e in passes[i % 10 : i % 10 + 1])
                assert set(os.listdir(folder)) <= {path.name}
        finally:
            signal.signal(signal.SIGINT, before)
            warnings.filters[:] = filters
    assert interrupted == times
    return (
        f"{times} times: KeyboardInterrupt, or training that ends early and says so; no file in "
        "parts, and the next call is right"
    )


# Files --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def saving(path, *models):
    """A forked child that saves these again and again, and is killed in the end."""
    child = forked()
    if child == 0:
        try:
            while True:
                for each in models:
                    each.save(path)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL


@fault(200)
def kill(times):
    """kill -9 of a process that saves again and again."""
    models, rng, found, left = (model(40), model(400)), np.random.default_rng(0), set(), 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.npz")
        models[0].save(path)
        for _ in range(times):
            with saving(path, *models):
                time.sleep(rng.random() * 0.1)
            found.add(fastelbo.VAE.load(path).hidden)
            for other in set(Path(folder).iterdir()) - {path}:  # killed between its two names
                assert other.suffix == ".partial"
                left += 1
                other.unlink()
    assert found <= {(40,), (400,)}
    return f"{times} times: the file is whole; {left} times what was to replace it stayed beside it"


@fault(1000)
def savers(times):
    """Two processes that save to one path, while a third one loads."""
    found = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.npz")
        model(40).save(path)
        with saving(path, model(40)), saving(path, model(400)):
            for _ in range(times):
                found.add(fastelbo.VAE.load(path).hidden)
        others = set(Path(folder).iterdir()) - {path}  # of those that are killed in the end
        assert {other.suffix for other in others} <= {".partial"}
    assert found <= {(40,), (400,)}
    return f"{times} loads: each a whole file of one of them"


@fault(50)
def disk(times):
    """A disk that fills up at any byte of the file; a folder that is read-only."""
    fitted = model(40)

    def refused(path, *codes):
        before = path.read_bytes(), os.listdir(path.parent)
        try:
            fitted.save(path)
        except OSError as error:
            code, name = error.errno, error.filename
        else:
            code, name = 0, ""
        assert (code in codes, name) == (True, str(path)), (code, name)
        assert before == (path.read_bytes(), os.listdir(path.parent))

    def mount(*arguments):
        return subprocess.run(["mount", *map(str, arguments)], check=False).returncode == 0

    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder, "model.npz"), Path(folder, "other", "model.npz")
        fitted.save(path)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        for most in np.linspace(0, path.stat().st_size - 1, times).astype(int):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), before[1]))
            try:
                refused(path, errno.EFBIG)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        other.parent.mkdir()
        more = mount("-t", "tmpfs", "-o", "size=64k", "none", other.parent)  # of root alone
        if more:
            try:
                other.write_bytes(bytes(60 << 10))
                refused(other, errno.ENOSPC)
                mount("-o", "remount,ro", other.parent)
                refused(other, errno.EROFS, errno.EACCES)
            finally:
                subprocess.run(["umount", other.parent], check=True)
    more = ", a full file system and a read-only one" if more else ""
    return f"{times} sizes{more}: an OSError that names the path; what was there stays"


# Memory -------------------------------------------------------------------------------------------


#: Cases of kernels: LAPACK, of OpenBLAS, crashes where it has no memory.
OF_KERNELS = [case for case in CASES.values() if case.takes_threads]


@fault(len(OF_KERNELS))
def memory(times):
    """Memory that cannot be had: each case of a kernel with no more of it, or a little."""
    code = "print(without_memory(int(sys.argv[1]), int(sys.argv[2])))"
    refused = made = 0
    for first in range(0, times, 32):
        with python(code, first, min(first + 32, times), stdout=subprocess.PIPE) as done:
            told = done.stdout.read()
        assert done.returncode == 0, f"cases {first} to {first + 32}: exit {done.returncode}"
        refused, made = refused + int(told.split()[0]), made + int(told.split()[1])
    assert refused
    return (
        f"{made} calls of {times} cases: {refused} MemoryErrors, the others and the next are right"
    )


def without_memory(first, last):
    refused = made = 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    for case in OF_KERNELS[first:last]:
        arrays = case.given(case.draw(0, **case.within(1 << 17, B=512, D=(128,), L=64, N=256, K=4)))
        expected = case.public(*arrays)
        for room in (0, 1 << 16, 1 << 18, 1 << 20, 1 << 22):
            with open("/proc/self/statm") as file:
                now = int(file.read().split()[0]) * mmap.PAGESIZE
            resource.setrlimit(resource.RLIMIT_AS, (now + room, before[1]))
            made += 1
            try:
                got = case.public(*arrays)
            except MemoryError:
                refused, got = refused + 1, expected
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)
            assert case.draws_noise or same(got, expected), case.name
        assert case.draws_noise or same(case.public(*arrays), expected), case.name
    return f"{refused} {made}"


@fault(10_000_000)
def calls(times):
    """Memory over calls that are over in microseconds, of ten functions."""
    work = [(public, arrays) for public, arrays, _ in problems(10, {"B": 1, "D": (1,), "L": 1})]

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE

    def run(count):
        for i in range(count // len(work)):
            for public, arrays in work:
                public(*arrays)
                if i % 1000 == 0:
                    with contextlib.suppress(ValueError):  # which leaves nothing behind, either
                        public(*arrays, num_threads=0)

    run(times // 10)
    before = resident()
    run(times - times // 10)
    grown = resident() - before
    assert grown < 1 << 20, f"grew by {grown} bytes"
    return f"{times} calls: {max(0, grown) >> 10} KiB more after all than after a tenth"


@fault(1)
def truncated(times):
    """A memory map whose file is truncated behind our back."""
    code = "f = open(sys.argv[1], 'wb'); f.truncate(1 << 20); f.close()\n"
    code += "x = np.memmap(sys.argv[1], np.float32, 'r', shape=(64, 4096))\n"
    code += "os.truncate(sys.argv[1], 0)\n"
    ends = []
    with tempfile.TemporaryDirectory() as folder:
        for read in ("x.sum()", "fastelbo.SquaredError().log_prob(x, np.ones((64, 4096), 'f4'))"):
            with python(code + read, Path(folder, "x")) as done:
                ends.append(done.wait())
    assert ends == [-signal.SIGBUS] * 2
    return "it ends the process (SIGBUS), with fastelbo as with NumPy"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*FAULTS, []], metavar="FAULT")
    parser.add_argument("--share", type=float, default=1.0, help="of the times of each")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    args = parser.parse_args()
    for name in args.names or FAULTS:
        function, times = FAULTS[name]
        start = time.monotonic()
        found = function(max(1, round(times * args.share)))
        print(f"{name}: {found} ({time.monotonic() - start:.0f} s)", flush=True)
        if args.write:
            write(name, function.__doc__, found)


if __name__ == "__main__":
    main()
