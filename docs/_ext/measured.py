"""What was measured, as pages show it: the build makes tables of the files in docs/measured.

``python -m fastelbo parity --quick --json > docs/measured/parity.json`` and ``python -m
tests.vecmath --write`` measure the page on accuracy anew, ``python -m tests.faults --write``,
``python -m tests.fuzz --write``, ``.ci/coverage`` and ``.ci/sanitize write`` that on reliability.
"""

import csv
import io
import json
from pathlib import Path

from fastelbo._cli._common import table
from fastelbo._cli.parity import Worst, text

FOLDER = Path(__file__).resolve().parents[1] / "measured"


def of_vecmath(found):
    """A line a function and dtype, a column a build; where inputs differ, the fewest count."""
    builds = list(dict.fromkeys(row["build"] for row in found["rows"]))
    lines = {}
    for row in found["rows"]:
        key = row["name"], row["dtype"]
        line = lines.setdefault(key, {"unit": row["unit"], "bound": f"{row['bound']:.2g}"})
        line[row["build"]] = (
            f"{row['error']:.2g}" if row["unit"] != "ulp" else f"{row['error']:.3f}"
        )
        line["inputs"] = min(row["inputs"], line.get("inputs", row["inputs"]))
        line["against"] = row["against"]
    header = ["worst error", "dtype", "in", *builds, "bound", "inputs", "against"]
    cells = [
        [
            *key,
            line["unit"],
            *(line[b] for b in builds),
            line["bound"],
            f"{line['inputs']:,}",
            line["against"],
        ]
        for key, line in lines.items()
    ]
    return table(header, cells, left=3)


def of_faults(found):
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(["What happens", "What was seen"])
    writer.writerows([row["fault"], row["found"]] for row in found.values())
    return made.getvalue()


def tables():
    """The text of each table, by the name of its file."""
    rows = json.loads((FOLDER / "parity.json").read_text())["rows"]
    rows = [Worst(**{k: v for k, v in row.items() if k != "out_of_bounds"}) for row in rows]
    ours = [row for row in rows if row.against == "reference" and "." not in row.name]
    twins = [row for row in rows if "." in row.name]
    found = {
        "ordinary": [row for row in ours if row.at == "ordinary"],
        "limits": [row for row in ours if row.at != "ordinary"],
        "torch": twins,
        "others": [row for row in rows if row not in ours and row not in twins],
    }
    vecmath = json.loads((FOLDER / "vecmath.json").read_text())
    return {
        "vecmath.txt": of_vecmath(vecmath),
        **{f"parity_{name}.txt": text(chosen) for name, chosen in found.items()},
        "faults.csv": of_faults(json.loads((FOLDER / "faults.json").read_text())),
    }


def render(app):
    """Write the tables, unless they are there."""
    for name, table_text in tables().items():
        path = FOLDER / name
        if not path.is_file() or path.read_text() != table_text:
            path.write_text(table_text)


def setup(app):
    """What Sphinx calls."""
    app.connect("builder-inited", render)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
