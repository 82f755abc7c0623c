"""How sphinx-gallery runs scripts: the tour, the concepts, and examples/ as they are.

Examples are told by their own options to be quick and where to draw; what they drew is what is
shown. ``FASTELBO_DOCS=full`` runs them as long as they want.
"""

import os
import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

HERE = Path(__file__).resolve().parents[1]
QUICK = [] if os.environ.get("FASTELBO_DOCS") == "full" else ["--quick"]
EXAMPLES = HERE.parent / "examples"
LABEL = ".. _sphx_glr_gallery_"

CONF = {
    "examples_dirs": [
        str(HERE / "scripts" / "tour"),
        str(HERE / "scripts" / "concepts"),
        str(EXAMPLES),
    ],
    "gallery_dirs": ["tour", "concepts", "gallery"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "gallery.ReadingOrder",
    "nested_sections": False,
    "reset_argv": "gallery.arguments",
    "image_scrapers": ("gallery.saved_picture", "matplotlib"),
    "abort_on_example_error": True,
    "default_thumb_file": str(HERE / "demo.png"),
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 3600,
    "capture_repr": ("_repr_html_", "__repr__"),
}


def arguments(gallery_conf, script_vars):
    """The command line of a script: none but for those in examples/."""
    path = Path(script_vars["src_file"])
    if path.parent != EXAMPLES:
        return []
    return QUICK + (["--output", f"{path.stem}.png"] if '"--output"' in path.read_text() else [])


class ReadingOrder:
    """Scripts in the order in which the introduction of their gallery names them, then by name."""

    def __init__(self, folder):
        self.header = Path(folder) / "GALLERY_HEADER.txt"

    def __call__(self, name):
        text = self.header.read_text()
        at = text.find(f":doc:`{Path(name).stem}`")
        return at if at >= 0 else len(text), name


def saved_picture(block, block_vars, gallery_conf):
    """The picture that a script has written beside itself, instead of those that it has open."""
    written = Path(block_vars["src_file"]).with_suffix(".png")
    if not written.is_file():
        return ""
    from matplotlib import pyplot

    pyplot.close("all")
    target = next(block_vars["image_path_iterator"])
    shutil.move(written, target)
    return figure_rst([target], gallery_conf["src_dir"])


def give_title(app, name, content):
    """Underline the first line of an example, which as a docstring is none, and say how it ran."""
    if name.startswith("gallery/") and name != "gallery/index":
        lines = content[0].splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith(LABEL)) + 1
        while not lines[at].strip():
            at += 1
        lines[at] = lines[at].rstrip(".")
        command = " ".join(["python", f"examples/{Path(name).name}.py", *QUICK])
        lines[at + 1 : at + 1] = ["=" * len(lines[at]), "", f"``{command}``:", ""]
        content[0] = "\n".join(lines)


def setup(app):
    """What Sphinx calls."""
    app.connect("source-read", give_title)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
