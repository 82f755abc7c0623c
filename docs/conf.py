"""How the documentation is made: `sphinx-build -nW docs docs/_build`, without network."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

import gallery  # noqa: E402
from docutils import nodes  # noqa: E402

import fastelbo  # noqa: E402

project = "fastelbo"
author = "the authors of fastelbo"
version = release = fastelbo.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
    "api",
    "gallery",
    "measured",
]
exclude_patterns = ["_build", "scripts", "tour/index.rst", "**.ipynb", "**.md5"]
nitpicky = True
suppress_warnings = [
    "myst.header",  # CONTRIBUTING.md begins in its middle
    "sphinx_gallery.duplicate_filename",  # a concept and an example may share a name
]
sphinx_gallery_conf = gallery.CONF

autosummary_generate = False
autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"fastelbo {release}"
html_sidebars = {page: [] for page in ("tour/tour", "*")}  # pages without any below
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def shorten_paths(app, doctree):
    """Differences of two files are headed by where these lie in the repository."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "udiff":
            block.rawsource = block.astext().replace(f"{HERE.parent}/", "")
            block.children = [nodes.Text(block.rawsource)]


def setup(app):
    """What Sphinx calls."""
    # Formulas are drawn by what lies beside the pages, as pictures: no network, no fonts.
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.connect("doctree-read", shorten_paths)
