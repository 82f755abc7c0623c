"""What ``python -m fastelbo parity --json`` has found, as the page on accuracy shows it.

``python -m fastelbo parity --quick --json > docs/measured/parity.json`` measures anew; the build
makes the command's own table of it.
"""

import json
from pathlib import Path

from fastelbo._cli.parity import Worst, text

FOLDER = Path(__file__).resolve().parents[1] / "measured"


def render(app):
    """Write the table, unless it is there."""
    rows = json.loads((FOLDER / "parity.json").read_text())["rows"]
    worst = [Worst(**{k: v for k, v in row.items() if k != "out_of_bounds"}) for row in rows]
    path, table = FOLDER / "parity.txt", text(worst)
    if not path.is_file() or path.read_text() != table:
        path.write_text(table)


def setup(app):
    """What Sphinx calls."""
    app.connect("builder-inited", render)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
