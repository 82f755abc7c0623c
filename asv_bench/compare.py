"""Whether a branch is slower than main: both built, and measured in turns in one session.

``python asv_bench/compare.py`` compares HEAD with main: the times of `benchmarks/rows.py`, which
is this checkout's for both sides. It fails if one is above LIMIT, and stays there when measured
again. A side is a revision, which is built in a worktree of its own and kept for the next time, or
a folder in which fastelbo is built in place. Let nothing else run.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILT = HERE / "env" / "compare"
#: How much slower is too slow.
LIMIT = 1.1


def tree(side):
    """The folder of a side, built."""
    if (Path(side) / "fastelbo").is_dir():
        return Path(side).resolve()
    git = ["git", "-C", str(HERE)]
    commit = subprocess.run(
        [*git, "rev-parse", "--verify", f"{side}^{{commit}}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    folder = BUILT / commit[:12]
    if not (folder / "built").exists():
        if not folder.exists():
            subprocess.run([*git, "worktree", "add", "--detach", folder, commit], check=True)
        print(f"building {side} in {folder}", file=sys.stderr)
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", f"-j{os.cpu_count()}"]
        subprocess.run(build, cwd=folder, check=True)
        (folder / "built").touch()
    return folder


class Side:
    """A process that measures what it is told to."""

    def __init__(self, folder):
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, str(HERE / "compare.py"), "--serve"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        where = self._read()["where"]
        if Path(where).resolve().parents[1] != folder:
            raise RuntimeError(f"fastelbo of {where} was found, not that of {folder}")

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side has ended with {self.process.wait()}")
        return json.loads(line)

    def __call__(self, *arguments):
        """The shortest time of a call, in seconds; infinite where that side has no such case."""
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return self._read()["best"]


def serve():
    """Answer each line of arguments; arrays are made anew, since where they lie matters, too."""
    from benchmarks import rows

    import fastelbo

    print(json.dumps({"where": fastelbo.__file__}), flush=True)
    for line in sys.stdin:
        *parameters, burst = json.loads(line)
        best, bench = float("inf"), rows.Time()
        with contextlib.suppress(KeyError):
            bench.setup(*parameters)
            end = time.perf_counter() + burst
            while (start := time.perf_counter()) < end or best == float("inf"):
                bench.call()
                best = min(best, time.perf_counter() - start)
        print(json.dumps({"best": best}), flush=True)


def turns(sides, parameters, rounds, burst, best=(float("inf"),) * 2):
    """The shortest times of both sides, which take turns and take turns at being first."""
    best = list(best)
    for i in range(rounds):
        for j in (0, 1) if i % 2 else (1, 0):
            best[j] = min(best[j], sides[j](*parameters, burst))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("branch", nargs="?", default="HEAD")
    parser.add_argument("main", nargs="?", default="main")
    parser.add_argument("--bench", default="", help="a regular expression of cases")
    parser.add_argument("--size", default="own", help="of benchmarks/rows.py")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--burst", type=float, default=0.01, help="seconds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve()
    folders = [tree(args.main), tree(args.branch)]
    sys.path.insert(0, str(folders[0]))
    from benchmarks import rows

    sides, slower = [Side(folder) for folder in folders], []
    cases = [case for case in rows.BENCH if re.search(args.bench, case)]
    for case in cases:
        for dtype in rows.DTYPES:
            given = (case, args.size, dtype, args.threads), args.rounds, args.burst
            best = turns(sides, *given)
            for _ in range(3):
                if not best[1] > LIMIT * best[0]:
                    break
                best = turns(sides, *given, best)  # or was it noise?
            if float("inf") in best:
                print(f"{case:<50} {dtype} only one side has it")
                continue
            ratio = best[1] / best[0]
            mark = "  slower" if ratio > LIMIT else ""
            slower += [case] if mark else []
            was, now = (f"{1e6 * t:10.1f} us" for t in best)
            print(f"{case:<50} {dtype} {was} {now} {ratio:6.3f}{mark}", flush=True)
    print(f"{len(slower)} of {len(rows.DTYPES) * len(cases)} above {LIMIT:g}")
    return 1 if slower or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
