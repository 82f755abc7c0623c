"""``python -m fastelbo bench``: fastelbo beside the code it replaces, in one process.

Every contender is checked against the reference before it is timed. Contenders of a case take
turns, a burst of calls each, round after round, so that whatever else the machine does hits all of
them alike; minima and medians are over all calls of all rounds.
"""

import argparse
import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import tracemalloc
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import fastelbo
from fastelbo import _builds
from fastelbo._cli import _common, baselines, bench_report, bench_vae
from fastelbo._cli._common import take_turns
from fastelbo._cli.cases import CASES, EXTRA, MAIN, STAGES, problem
from fastelbo._cli.contenders import Fastelbo, FastelboOut, Machine
from fastelbo._cli.count_baselines import COUNT_LIKELIHOODS, errors_by_theta
from fastelbo._cli.sizes import IN_RAM, STANDARD

DTYPES = ("float64", "float32")

#: Errors up to this, relative to the largest entry, are rounding: ours is what is promised, others
#: may sum in float32.
OURS = {"float64": 1e-13, "float32": 1e-6}
THEIRS = {"float64": 1e-10, "float32": 1e-4}


# Who takes part ---------------------------------------------------------------------------------


def contenders(threads, dtype, quick):
    """(contenders, {label: why it is absent}) for one dtype."""
    present, absent = [], {}
    for kind in baselines.ALL:
        if quick and issubclass(kind, baselines.TorchCompile):
            absent[kind.label] = "left out by --quick"
            continue
        try:
            present.append(kind(threads, dtype))
        except ImportError as error:
            absent[kind.label] = f"not installed ({error.name})"
    return present + ours(threads, dtype), absent


def ours(threads, dtype):
    """fastelbo on one thread and on all."""
    return [*(Fastelbo(n, dtype) for n in sorted({1, threads})), FastelboOut(threads, dtype)]


def alone(threads, dtype):
    """NumPy and fastelbo, for the profile and the builds."""
    return [baselines.NumPy(1, dtype), *ours(threads, dtype)[:-1]]


# How it is measured -----------------------------------------------------------------------------


def peak_memory(contender, call):
    """Bytes that a call needs at most on top of what was there, its results included.

    What NumPy allocates is traced exactly; of other frameworks the growth of the resident set is
    taken, after unused memory has been given back, or the size of the results where that is more:
    frameworks keep small buffers for the next call. None where the system does not tell.
    """
    results = sum(a.size for a in contender.numpy(call())) * contender.dtype.itemsize
    if contender.memory == "numpy":
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    try:
        return max(results, statistics.median(_resident_growth(call) for _ in range(3)))
    except (OSError, AttributeError, KeyError):
        return None


def _resident_growth(call):
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    before = _status()["VmRSS"]
    call()
    return max(0, _status()["VmHWM"] - before)


def _status():
    with open("/proc/self/status") as file:
        lines = (line.split() for line in file)
        return {words[0][:-1]: 1024 * int(words[1]) for words in lines if words[0].startswith("Vm")}


def worst_error(actual, desired):
    """The largest error, relative to the largest entry of its array; None is passed over."""
    worst = 0.0
    for a, d in zip(actual, desired, strict=False):
        if d is None:
            continue
        d = np.asarray(d, np.float64)
        if a.shape != d.shape:
            return np.inf
        error = np.max(np.abs(a - d)) / max(np.max(np.abs(d)), np.finfo(np.float64).tiny)
        worst = max(worst, float(error)) if error == error else np.inf
    return worst


@dataclass
class Row:
    """One contender in one case, times in seconds."""

    case: str
    size: tuple[int, int, int]
    dtype: str
    label: str
    threads: int
    minimum: float | None = None
    median: float | None = None
    calls: int = 0
    speedup: float | None = None  # over NumPy
    memory: float | None = None  # bytes
    of_bandwidth: float | None = None  # of what memory traffic alone reaches
    error: float = 0.0
    disagrees: bool = False

    @property
    def is_ours(self):
        return self.label.startswith("fastelbo")

    @property
    def is_traffic(self):
        return self.label.startswith("memory")


def measure(case, size, dtype, entrants, rounds, burst):
    """A row per contender that can compute the case, then those of the memory traffic alone."""
    arrays = problem(size, dtype, case.samples)
    arguments = [arrays[name] for name in case.arguments]
    desired = case.reference(*arguments)
    rows, calls = {}, {}
    for contender in entrants:
        call = contender.bind(case.name, arguments)
        if call is None:
            continue
        row = Row(case.name, size, dtype, contender.label, contender.threads)
        rows[row.label] = row
        row.error = worst_error(contender.numpy(call()), desired)
        own = isinstance(contender, Fastelbo)
        allowed = (OURS if own else THEIRS)[dtype] * case.inherited
        row.disagrees = not row.error <= (allowed if own else max(allowed, case.others))
        if not row.disagrees:
            row.memory = peak_memory(contender, call)
            calls[row.label] = call
    calls.update(_traffic(case, size, dtype, arguments, rows))
    for label, seconds in take_turns(calls, rounds, burst).items():
        rows[label].minimum = min(seconds)
        rows[label].median = statistics.median(seconds)
        rows[label].calls = len(seconds)
    _compare(case, arrays, rows.values())
    return list(rows.values())


def _traffic(case, size, dtype, arguments, rows):
    """The calls that only move memory; adds their rows."""
    large = [a for a in arguments if a.shape == (size[0], size[1]) and a.dtype == dtype]
    calls = {}
    if len(large) != 2 or size[1] == size[2]:
        return calls
    kind = "read_and_write" if set(case.written) & {"x_recon", "logits"} else "read"
    for threads in sorted({row.threads for row in rows.values() if row.is_ours}):
        for streamed in (False, True) if kind == "read_and_write" else (False,):
            machine = Machine(threads, dtype, streamed)
            calls[machine.label] = machine.bind(kind, large)
            rows[machine.label] = Row(case.name, size, dtype, machine.label, threads)
    return calls


def _compare(case, arrays, rows):
    """Fill in what is relative to other rows."""
    numpy = next((row.minimum for row in rows if row.label == baselines.NumPy.label), None)
    moved = [arrays[name] for name in case.arguments + case.written]
    everything = sum(a.nbytes for a in moved)
    large = sum(a.nbytes for a in moved if a.shape == arrays["x"].shape)
    for row in rows:
        if row.minimum is None:
            continue
        if numpy:
            row.speedup = numpy / row.minimum
        alone = [r.minimum for r in rows if r.is_traffic and r.threads == row.threads]
        if alone and row.is_ours:
            row.of_bandwidth = (everything / row.minimum) / (large / min(alone))


def small_call(rounds):
    """{function: its time on a (1, 1, 1) problem in units of np.add on one element}."""
    one, two, out = np.ones(1), np.ones(1), np.empty(1)
    x = np.ones((1, 1))
    calls = {
        "np.add": lambda: np.add(one, two, out=out),
        "elbo": lambda: fastelbo.elbo(x, x, x, x),
        "elbo_and_grad": lambda: fastelbo.elbo_and_grad(x, x, x, x),
    }
    best = dict.fromkeys(calls, np.inf)
    for _ in range(10 * rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(200):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / 200)
    unit = best.pop("np.add")
    return {"np.add": unit, **{name: seconds / unit for name, seconds in best.items()}}


def environment(threads):
    """What was measured on."""
    info = fastelbo.build_info()
    return {
        "processor": _processor(),
        "threads": threads,
        "build": info["build"],
        "fastelbo": info["fastelbo"],
        "python": info["python"],
        "versions": {
            name: sys.modules[name].__version__
            for name in ("numpy", "torch", "numba", "jax")
            if name in sys.modules
        },
    }


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            lines = (line.split(":", 1) for line in file)
            return next(line[1].strip() for line in lines if line[0].startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


# The command ------------------------------------------------------------------------------------


def add_arguments(parser):
    """The options of ``fastelbo bench``."""
    parser.add_argument("--quick", action="store_true", help="fewer rounds, one size (30 s)")
    parser.add_argument(
        "--size", nargs=3, type=positive, metavar=("B", "D", "L"), help="measure this size only"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="CASE", help="of all the tables, these cases: mmd, say"
    )
    parser.add_argument("--threads", type=positive, help="threads of everybody (default: all)")
    parser.add_argument("--stages", action="store_true", help="noise, KL, ... apart: the profile")
    parser.add_argument("--builds", action="store_true", help="every instruction set as well")
    parser.add_argument("--vae", action="store_true", help="an epoch of a VAE, and of PyTorch's")
    parser.add_argument("--torch", action="store_true", help="fastelbo.torch in PyTorch training")
    parser.add_argument("--all", action="store_true", help="everything there is to measure")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--plot", metavar="FILE.png", help="draw a bar chart as well")


def positive(text):
    """A whole number of at least 1, for argparse."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def run(args):
    """Measure and print. Returns 1 if some row disagrees with the reference, 2 for bad options."""
    if args.plot:
        problem = plot_problem(args.plot)
        if problem:
            print(f"fastelbo bench: {problem}", file=sys.stderr)
            return 2
    unknown = [name for name in args.only or () if name not in CASES]
    if unknown:
        known = ", ".join(CASES)
        print(f"fastelbo bench: unknown case {unknown[0]!r}, known are {known}", file=sys.stderr)
        return 2
    # One process compiles: a pool of them would still be starting while others are timed.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    with contextlib.suppress(ImportError):  # before kernels run: its threads wait as it wants
        importlib.import_module("torch")
    threads = args.threads or fastelbo.get_num_threads()
    effort = {"rounds": 3, "burst": 0.003} if args.quick else {"rounds": 12, "burst": 0.008}
    tables = tables_of(args)
    rows, absent = measure_tables(tables, threads, args.quick, effort)
    stages = measure_stages(threads, effort) if args.stages or args.all else []
    builds = measure_builds(tables, threads, effort) if args.builds or args.all else []
    vae = bench_vae.measure(threads, args.quick) if args.vae or args.all else None
    torch = measure_torch(threads, args.quick, effort) if args.torch or args.all else None
    of_counts = any(row.case.removesuffix("_and_grad") in COUNT_LIKELIHOODS for row in rows)
    report = {
        "environment": environment(threads),
        "absent": absent,
        "rows": [asdict(row) for row in rows],
        "stages": [asdict(row) for row in stages],
        "builds": {build: [asdict(row) for row in rows] for build, rows in builds},
        "vae": vae,
        "negative_binomial_errors": errors_by_theta() if of_counts else None,
        "torch": torch,
        "small_call": small_call(effort["rounds"]),
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print(bench_report.text(report, rows, stages, builds))
    if args.plot:
        bench_report.plot(rows if args.only else bench_report.four_panels(rows), args.plot)
    wrong = [row for row in (*rows, *stages) if row.disagrees]
    for row in wrong:
        print(
            f"{row.label}: {row.case} {row.size} {row.dtype} disagrees with the reference by "
            f"{row.error:.2g} and was not timed",
            file=sys.stderr,
        )
    others = [row["label"] for row in vae["rows"] if row["disagrees"]] if vae else []
    tables = torch["tables"] if torch else []
    losses = [(t["title"], row["label"]) for t in tables for row in t["rows"] if row["disagrees"]]
    for title, label in losses:
        print(f"{label}: {title} disagrees with PyTorch in float64", file=sys.stderr)
    if others:
        print(f"{', '.join(others)}: trained to another ELBO than fastelbo.VAE", file=sys.stderr)
    return 1 if wrong or others or losses else 0


def tables_of(args):
    """[(size, cases)] that the options ask for."""
    tables = MAIN + EXTRA if args.all or args.only else MAIN
    if args.only and args.size:
        return [(tuple(args.size), list(dict.fromkeys(args.only)))]
    if args.only:
        shown = {name for _, names in tables for name in names}
        tables += ((STANDARD, tuple(name for name in CASES if name not in shown)),)  # stages
        tables = [(size, [n for n in names if n in args.only]) for size, names in tables]
        return [(size, names) for size, names in tables if not (args.quick and size == IN_RAM)]
    if args.size:
        return [(tuple(args.size), names) for size, names in tables if size == STANDARD]
    return [(size, names) for size, names in tables if not args.quick or size == STANDARD]


def plot_problem(path):
    """Why a chart cannot be drawn there, or None: to be known before minutes of measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        return "--plot needs matplotlib: pip install matplotlib"
    if Path(path).suffix.lower() not in (".png", ".pdf", ".svg"):
        return f"--plot {path}: expected a name that ends in .png, .pdf or .svg"
    if not Path(path).absolute().parent.is_dir():
        return f"--plot {path}: there is no such folder"
    return None


def measure_tables(tables, threads, quick, effort):
    """The rows of the tables in their order, and who is absent and why."""
    jobs = [(size, name) for size, names in tables for name in names]
    rows, absent, present = [], {}, {}
    for dtype in DTYPES:
        present[dtype], absent = contenders(threads, dtype, quick)
    for size, name in _common.progress(jobs, "bench"):
        for dtype in DTYPES:
            rows += measure(CASES[name], size, dtype, present[dtype], **effort)
    return rows, absent


def measure_stages(threads, effort):
    """Rows of the stages and of their wholes, NumPy and fastelbo only."""
    names = dict.fromkeys(name for whole, parts in STAGES.items() for name in (*parts, whole))
    rows = []
    for name in _common.progress(names, "stages"):
        for dtype in DTYPES:
            rows += measure(CASES[name], STANDARD, dtype, alone(threads, dtype), **effort)
    return [row for row in rows if not row.is_traffic]


def measure_builds(tables, threads, effort):
    """[(build, its rows)], each build in a process of its own."""
    jobs = [
        (size, name)
        for size, names in tables
        for name in names
        if name in ("elbo_with_noise", "elbo", "elbo_and_grad")
    ]
    measured = []
    for build in _common.progress(_builds.available(), "builds"):
        rows = _common.in_build(
            build, "fastelbo._cli.bench", "measure_build", jobs=jobs, threads=threads, **effort
        )
        measured.append((build, [Row(**{**row, "size": tuple(row["size"])}) for row in rows]))
    return measured


def measure_torch(threads, quick, effort):
    """The tables of fastelbo.torch, or why there are none."""
    if importlib.util.find_spec("torch") is None:
        return {"tables": [], "absent": {"fastelbo.torch": "PyTorch is not installed"}}
    from fastelbo._cli import bench_torch

    return bench_torch.measure(threads, quick, **effort)


def measure_build(jobs, threads, rounds, burst):
    """Rows of the build in use, as dicts: what `measure_builds` runs."""
    rows = []
    for size, name in jobs:
        for dtype in DTYPES:
            entrants = alone(threads, dtype)
            rows += measure(CASES[name], tuple(size), dtype, entrants, rounds, burst)
    return [asdict(row) for row in rows if not row.is_traffic]
