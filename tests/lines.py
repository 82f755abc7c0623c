"""Which lines of fastelbo no test runs, of Python and of Cython: `.ci/coverage` has them run first.

python -m tests.lines TREE            # where coverage.py and gcov have left what they counted
"""

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.faults import write

FROM = re.compile(r'\s*/\* "(.+)":(\d+)$')


def of_python(tree):
    """{path: {line: whether it ran}}."""
    command = [sys.executable, "-m", "coverage", "json", "-q", "-o", "-"]
    told = subprocess.run(command, cwd=tree, check=True, capture_output=True).stdout
    return {
        path: dict.fromkeys(found["missing_lines"], False)
        | dict.fromkeys(found["executed_lines"], True)
        for path, found in json.loads(told)["files"].items()
    }


def sources(path):
    """What each line of C is made of: (file, line), or None; Cython says so in comments."""
    found, at = [None], None
    for line in path.read_text(encoding="utf-8").splitlines():
        if told := FROM.match(line):
            at = told[1], int(told[2])
        elif line.startswith("/* #### Code section"):
            at = None
        found.append(at)
    return found


def of_cython(tree):
    """Likewise. A line has run if any of the C that it becomes has: of a template, for any type."""
    ran = defaultdict(dict)
    for notes in sorted(tree.rglob("*.gcno")):
        command = ["gcov", "--json-format", "--stdout", notes]
        told = subprocess.run(command, cwd=tree, check=True, capture_output=True).stdout
        for file in json.loads(told)["files"]:
            if Path(file["file"]).name != f"{notes.stem}.c":
                continue
            made_of = sources(tree / file["file"])
            for line in file["lines"]:
                path, number = made_of[line["line_number"]] or ("", 0)
                if path.startswith("fastelbo/"):
                    ran[path][number] = ran[path].get(number, False) or line["count"] > 0
    return ran


def spans(numbers):
    """1, 2, 3, 7 as "1-3, 7"."""
    found = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--write", action="store_true", help="as a row of the page on reliability")
    args = parser.parse_args()
    told = []
    for language, files in (
        ("Python", of_python(args.tree)),
        ("Cython", of_cython(args.tree.resolve())),
    ):
        for path, lines in sorted(files.items()):
            if missing := [number for number, ran in lines.items() if not ran]:
                print(f"{path}: {spans(missing)}")
        every = [ran for lines in files.values() for ran in lines.values()]
        told.append(f"{sum(every):,} of {len(every):,} lines of {language}")
    told = f"at least {', '.join(told)}"  # what is killed does not say what it ran
    print(told)
    if args.write:
        write("coverage", "The tests, while it is counted which lines they run.", told)


if __name__ == "__main__":
    main()
