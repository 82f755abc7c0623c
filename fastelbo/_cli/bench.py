"""``python -m fastelbo bench``: fastelbo beside the code it replaces, in one process.

Every contender is checked against the reference before it is timed. Contenders of a case take
turns, a burst of calls each, round after round, so that whatever else the machine does hits all of
them alike; minima and medians are over all calls of all rounds.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

import fastelbo
from fastelbo import _builds
from fastelbo._catalogue import CASES, ROWS, Bench
from fastelbo._catalogue.sizes import IN_RAM, STANDARD
from fastelbo._catalogue.twins import jax_twins
from fastelbo._cli import _common, bench_half, bench_report, bench_vae, calls, contenders
from fastelbo._cli._common import DTYPES
from fastelbo._cli.contenders import Fastelbo, FastelboOut
from fastelbo._cli.measure import Time, measure

# Who takes part and what is computed -----------------------------------------------------------

#: The tables that are always shown, and those of --all: the entries of all rows.
MAIN = ROWS["elbo"].bench[:6]
EVERY = tuple(entry for row in ROWS.values() for entry in row.bench)
#: A whole and the stages it consists of: the profile.
STAGES = {
    "elbo[drawn]": ("reparameterize[drawn]", "kl_standard_normal", "SquaredError"),
    "elbo[drawn]_and_grad": (
        "reparameterize[drawn]",
        "kl_standard_normal_and_grad",
        "SquaredError_and_grad",
    ),
}


def peers(threads, dtype, quick):
    """(contenders, {label: why it is absent}) for one dtype."""
    present, absent = [], {}
    for kind in contenders.PEERS:
        if quick and issubclass(kind, contenders.TorchCompile):
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
    return [contenders.NumPy(1, dtype), *ours(threads, dtype)[:-1]]


# What else is measured --------------------------------------------------------------------------


#: Where the usual formula, a difference of two log-gammas, loses its digits in float32.
THETAS = (1.0, 1e2, 1e4, 1e6, 1e8)


def errors_by_theta():
    """{who: relative float32 errors of log p for each of THETAS}, on counts of mean 5."""
    case, found = CASES["NegativeBinomial"], {}
    rng = np.random.default_rng(0)
    x = rng.poisson(5.0, (64, 64)).astype(np.float32)
    mean = rng.uniform(3.0, 7.0, x.shape).astype(np.float32)
    for kind in (contenders.NumPy, contenders.PyTorch, Fastelbo):
        with contextlib.suppress(ImportError):
            contender = kind(1, "float32")
            for theta in THETAS:
                arrays = {"x": x, "mean": mean, "theta": np.full(x.shape[1], theta, np.float32)}
                (value,) = contender.numpy(contender.bind(case, arrays)())
                exact = case.reference(*arrays.values())
                found.setdefault(contender.label, []).append(abs(float(value) / exact - 1))
    return found


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
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these functions or cases: mmd, say"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, one size (30 s)")
    parser.add_argument(
        "--size", nargs=3, type=positive, metavar=("B", "D", "L"), help="measure this size only"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="arrays of this dtype only")
    parser.add_argument("--threads", type=positive, help="threads of everybody (default: all)")
    parser.add_argument("--stages", action="store_true", help="noise, KL, ... apart: the profile")
    parser.add_argument("--calls", action="store_true", help="what each call costs by itself")
    parser.add_argument("--half", action="store_true", help="half precision beside float32")
    parser.add_argument("--builds", action="store_true", help="every instruction set as well")
    parser.add_argument("--vae", action="store_true", help="an epoch of a VAE, and of PyTorch's")
    parser.add_argument("--torch", action="store_true", help="fastelbo.torch in PyTorch training")
    parser.add_argument("--jax", action="store_true", help="fastelbo.jax beside plain JAX")
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
    known = dict.fromkeys((*ROWS, *(entry.case for entry in EVERY)))
    problem = _common.unknown(args.names, known)
    if problem:
        print(f"fastelbo bench: {problem}", file=sys.stderr)
        return 2
    # One process compiles: a pool of them would still be starting while others are timed.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    with contextlib.suppress(ImportError):  # before kernels run: its threads wait as it wants
        importlib.import_module("torch")
    threads = args.threads or fastelbo.get_num_threads()
    effort = {"rounds": 3, "burst": 0.003} if args.quick else {"rounds": 12, "burst": 0.008}
    load = _common.Load()
    entries = entries_of(args)
    dtypes = (args.dtype,) if args.dtype else DTYPES
    rows, absent = measure_tables(entries, threads, args.quick, effort, dtypes)
    stages = measure_stages(threads, effort) if args.stages or args.all else []
    builds = measure_builds(entries, threads, effort) if args.builds or args.all else []
    halves = bench_half.measure(MAIN, threads, **effort) if args.half or args.all else []
    vae = bench_vae.measure(threads, args.quick) if args.vae or args.all else None
    torch = measure_torch(threads, args.quick, effort) if args.torch or args.all else None
    jax, missing = measure_jax(threads, args.quick, effort) if args.jax or args.all else ([], {})
    of_counts = any(row.case.startswith("NegativeBinomial") for row in rows)
    report = {
        "environment": environment(threads),
        "absent": {**absent, **missing},
        "rows": [asdict(row) for row in rows],
        "stages": [asdict(row) for row in stages],
        "builds": {build: [asdict(row) for row in rows] for build, rows in builds},
        "half": halves,
        "vae": vae,
        "negative_binomial_errors": errors_by_theta() if of_counts else None,
        "torch": torch,
        "jax": [asdict(row) for row in jax],
        "small_call": calls.measure(ROWS if args.calls or args.all else ["elbo"], effort["rounds"]),
        "busy": load.others(),
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print(bench_report.text(report, rows, stages, builds, jax, STAGES, THETAS))
    if args.plot:
        draw(rows if args.names else bench_report.four_cases(rows), report, args.plot)
    wrong = [row for row in (*rows, *stages, *jax) if row.disagrees]
    for row in wrong:
        print(
            f"{row.label}: {row.case} ({row.size}) {row.dtype} disagrees with the reference by "
            f"{row.error:.2g} and was not timed",
            file=sys.stderr,
        )
    lossy = [row for row in halves if row["disagrees"]]
    for row in lossy:
        print(
            f"{row['case']} ({row['size']}) in {row['storage']} is wrong by {row['error']:.2g} "
            "and was not timed",
            file=sys.stderr,
        )
    others = [row["label"] for row in vae["rows"] if row["disagrees"]] if vae else []
    tables = torch["tables"] if torch else []
    losses = [(t["title"], row["label"]) for t in tables for row in t["rows"] if row["disagrees"]]
    for title, label in losses:
        print(f"{label}: {title} disagrees with PyTorch in float64", file=sys.stderr)
    if others:
        print(f"{', '.join(others)}: trained to another ELBO than fastelbo.VAE", file=sys.stderr)
    return 1 if wrong or lossy or others or losses else 0


def entries_of(args):
    """What to measure: [(entry of the catalogue, extents)]."""
    entries = MAIN
    if args.names:
        chosen = [
            e for row in ROWS.values() for e in row.bench if {row.name, e.case} & {*args.names}
        ]
        entries = tuple(chosen)
    elif args.all:
        entries = MAIN + tuple(entry for entry in EVERY if entry not in MAIN)
    if args.size:
        extents = dict(zip("BDL", args.size, strict=True))
        once = {entry.case: entry for entry in reversed(entries)}  # sizes of a case are one now
        return [(entry, {**entry.extents, **extents}) for entry in reversed(once.values())]
    return [(entry, entry.extents) for entry in entries if not args.quick or is_quick(entry)]


def is_quick(entry):
    """Whether arrays are small enough for --quick."""
    return entry.extents.get("B", 0) < IN_RAM["B"]


def draw(rows, report, path):
    """Write the bar chart."""
    from fastelbo._cli import _bench_figure

    _bench_figure.draw(rows, bench_report.caption(report)).savefig(path, dpi=150)


def plot_problem(path):
    """Why a chart cannot be drawn there, or None: to be known before minutes of measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        return '--plot needs matplotlib: pip install "fastelbo[plot]"'
    if Path(path).suffix.lower() not in (".png", ".pdf", ".svg"):
        return f"--plot {path}: expected a name that ends in .png, .pdf or .svg"
    if not Path(path).absolute().parent.is_dir():
        return f"--plot {path}: there is no such folder"
    return None


def measure_tables(entries, threads, quick, effort, dtypes):
    """The rows of the tables in their order, and who is absent and why."""
    rows, absent, present = [], {}, {}
    for dtype in dtypes:
        present[dtype], absent = peers(threads, dtype, quick)
    for entry, extents in _common.progress(entries, "bench"):
        for dtype in dtypes:
            rows += measure(entry, dtype, present[dtype], extents=extents, **effort)
    return rows, absent


def measure_stages(threads, effort):
    """Rows of the stages and of their wholes, NumPy and fastelbo only."""
    names = dict.fromkeys(name for whole, parts in STAGES.items() for name in (*parts, whole))
    rows = []
    for name in _common.progress(names, "stages"):
        for dtype in DTYPES:
            rows += measure(Bench(name, name, STANDARD), dtype, alone(threads, dtype), **effort)
    return [row for row in rows if not row.is_traffic]


def measure_builds(entries, threads, effort):
    """[(build, its rows)] of the ELBO, each build in a process of its own."""
    jobs = [(entry.case, extents) for entry, extents in entries if entry in MAIN]
    measured = []
    for build in _common.progress(_builds.available(), "builds"):
        rows = _common.in_build(
            build, "fastelbo._cli.bench", "measure_build", jobs=jobs, threads=threads, **effort
        )
        measured.append((build, [Time(**row) for row in rows]))
    return measured


def measure_torch(threads, quick, effort):
    """The tables of fastelbo.torch, or why there are none."""
    if importlib.util.find_spec("torch") is None:
        return {"tables": [], "absent": {"fastelbo.torch": "PyTorch is not installed"}}
    from fastelbo._cli import bench_torch

    return bench_torch.measure(threads, quick, **effort)


def entries_in_jax():
    """Of all rows the gradients that fastelbo.jax has, and that users write in JAX.

    Not of what draws noise, which comes of other keys there.
    """
    for row in ROWS.values():
        pairs = [pair for pair in jax_twins(row) if not pair[0].draws_noise]
        names = {gradient.name for case, gradient in pairs if "jax" in case.peers}
        yield from (entry for entry in row.bench if entry.case in names)


def measure_jax(threads, quick, effort):
    """Rows of fastelbo.jax and of plain JAX, both under jit, in float32; and why there are none."""
    try:
        sides = [kind(threads, "float32") for kind in (contenders.Jax, contenders.FastelboInJax)]
    except ImportError as error:
        return [], {contenders.FastelboInJax.label: f"not installed ({error.name})"}
    rows = []
    with fastelbo.num_threads(threads):
        for entry in _common.progress(entries_in_jax(), "jax"):
            if not quick or is_quick(entry):
                rows += measure(entry, "float32", sides, **effort)
    return rows, {}


def measure_build(jobs, threads, rounds, burst):
    """Rows of the build in use, as dicts: what `measure_builds` runs."""
    rows = []
    for name, extents in jobs:
        for dtype in DTYPES:
            rows += measure(Bench(name, name, extents), dtype, alone(threads, dtype), rounds, burst)
    return [asdict(row) for row in rows if not row.is_traffic]
