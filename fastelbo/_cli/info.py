"""``fastelbo info``: what this installation is and what it runs on."""

import json

from fastelbo import build_info


def add_arguments(parser):
    """The options of ``fastelbo info``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args):
    """Print ``build_info()``."""
    info = build_info()
    if args.json:
        print(json.dumps(info))
        return 0
    shown = {**info, "builds": ", ".join(info["builds"]), "openmp": info["openmp"] or "no: serial"}
    for name, value in shown.items():
        print(f"{name:<10}{value}")
    return 0
