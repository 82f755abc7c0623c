"""What `bench` and `parity` share: text tables, progress, a process in another build."""

import difflib
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock

#: The dtypes that kernels compute in.
DTYPES = ("float64", "float32")


def unknown(names, known):
    """What is wrong with names of which some are not known; None if all are."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3) or known
            return f"unknown name {name!r}, did you mean {' or '.join(close)}?"
    return None


def table(header, rows, left=1):
    """Rows of strings under a header, as lines of text; the first `left` columns flush left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def progress(items, description):
    """The items, with a bar on stderr: tqdm's if it is installed and somebody watches."""
    items = list(items)
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return _count(items, description)
    return tqdm(items, description, leave=False, file=sys.stderr)


def _count(items, description):
    for i, item in enumerate(items, 1):
        print(f"\r{description} {i}/{len(items)} ", end="", file=sys.stderr, flush=True)
        yield item
    print("\r" + " " * 78 + "\r", end="", file=sys.stderr, flush=True)


class Load:
    """How many CPUs other programs have used since this was made."""

    def __init__(self):
        self._start = self._seconds()

    def others(self):
        """Of the CPUs of this machine; None where the system does not tell."""
        if self._start is None:
            return None
        since = [now - before for now, before in zip(self._seconds(), self._start, strict=True)]
        elapsed, everybody, ours = since
        return max(0.0, (everybody - ours) / elapsed)

    @staticmethod
    def _seconds():
        """(elapsed, in which CPUs were used, by us and our children), of some beginning on."""
        try:
            with open("/proc/stat") as file:
                user, nice, system, _, _, *more = map(int, file.readline().split()[1:])
        except (OSError, ValueError):
            return None
        everybody = (user + nice + system + sum(more[:3])) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), everybody, sum(os.times()[:4])


#: Bursts after whose time a contender whose calls take longer than one has had turns enough.
PATIENCE = 250


def take_turns(calls, rounds, burst):
    """{label: seconds of every call}, `rounds` bursts of `burst` seconds and three calls or more.

    What comes before a burst does not count: caches fill again, and worker threads of the previous
    contender, which wait for more by spinning, go to sleep (libgomp's after 6 to 17 ms).
    """
    seconds = {label: [] for label in calls}
    clock = time.perf_counter
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for label, call in calls.items():
                if sum(seconds[label]) > PATIENCE * burst:
                    continue
                start = clock()
                call()
                while clock() - start < 2.5 * burst:
                    call()
                start = before = clock()
                wanted = len(seconds[label]) + 3
                while before - start < burst or len(seconds[label]) < wanted:
                    call()
                    after = clock()
                    seconds[label].append(after - before)
                    before = after
    finally:
        if collecting:
            gc.enable()
    return seconds


#: What a child does besides: it ends when its parent, which holds the other end of its input, does.
_WATCH = (
    "import os, threading; "
    "threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start(); "
)


class Children:
    """Processes in builds of their own, which end with the block they are started in."""

    def __init__(self):
        self._running = set()
        self._lock = Lock()
        self._ended = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()

    def in_build(self, build, module, function, *, environment=None, **arguments):
        """``module.function(**arguments)`` in a fresh process that uses a build; results as JSON.

        `environment` is added to the process's own. What it prints is discarded.
        """
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        code = (
            f"{_WATCH}import json, sys; from {module} import {function} as f; "
            "result = f(**json.loads(sys.argv[1])); print(); print(json.dumps(result))"
        )
        environment = {
            **os.environ,
            **(environment or {}),
            "FASTELBO_BUILD": build,
            "PYTHONPATH": os.pathsep.join(paths),
        }
        output, error, code = self._run(
            [sys.executable, "-c", code, json.dumps(arguments)], environment
        )
        if code:
            raise RuntimeError(f"build {build} failed:\n{error}")
        return json.loads(output.splitlines()[-1])

    def _run(self, command, environment):
        """(stdout, stderr, exit code) of a child."""
        theirs, ours = os.pipe()
        try:
            with self._lock:
                if self._ended:
                    raise RuntimeError("its block has ended")
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=theirs,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                self._running.add(process)
            with process:
                output = process.communicate()
            with self._lock:
                self._running.discard(process)
            return *output, process.returncode
        finally:
            os.close(theirs)
            os.close(ours)


def in_build(build, module, function, **arguments):
    """The same for a single process."""
    with Children() as children:
        return children.in_build(build, module, function, **arguments)
