"""The API reference, derived: a page for each module whose names are public, and one index.

Nothing is listed here. What is public is what ``__all__`` says; pages are the modules that define
it, in the order of the catalogue's rows; titles are the modules' first lines.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import fastelbo
from fastelbo._catalogue import ROWS

#: fastelbo, its packages for other libraries, and the specification.
PACKAGES = [m.name for m in pkgutil.iter_modules(fastelbo.__path__) if m.ispkg and m.name[0] != "_"]
SPECIFICATION = "fastelbo.reference"
NAMESPACES = ["fastelbo", *sorted((f"fastelbo.{p}" for p in PACKAGES), key=SPECIFICATION.__eq__)]
FOLDER = Path(__file__).resolve().parents[1] / "api"


@dataclass
class Page:
    """The public names of a namespace that modules of one name define."""

    namespace: str
    module: str
    names: list

    @property
    def entry(self):
        """How lists of pages call it."""
        return self.module.rpartition(".")[2].lstrip("_").replace("_", " ")

    @property
    def file(self):
        """Its name, without .rst."""
        return f"{self.namespace}.{self.entry.replace(' ', '_')}"

    @property
    def title(self):
        """The first line of the module."""
        return first_line(sys.modules[self.module])


def first_line(thing):
    """The first line of a docstring, as a title: without its full stop and any markup."""
    line = re.sub(r":\w+:`([^`]+)`", r"\1", inspect.getdoc(thing).splitlines()[0])
    return line.rstrip(".").replace("``", "").replace("|", r"\|")


def public(namespace):
    """The public names of a namespace. The specification has those of the rows."""
    module = importlib.import_module(namespace)
    return getattr(module, "__all__", None) or list(ROWS)


def pages(namespace):
    """The pages of a namespace, those of rows first and in their order."""
    module, found = importlib.import_module(namespace), {}
    for name in sorted(public(namespace), key=rank):
        page = Page(namespace, getattr(module, name).__module__, [name])
        earlier = found.setdefault(page.file, page)
        if earlier is not page:
            earlier.names.append(name)
            earlier.module = max(earlier.module, page.module, key=len)  # its own before another's
    return list(found.values())


def rank(name):
    """By the first row that a name has a part in, and f before f_and_grad."""
    order = list(ROWS)
    base = name.removesuffix("_and_grad")
    return order.index(base) if base in order else len(order)


def heading(text, line="="):
    """A title of reStructuredText."""
    return f"{text}\n{line * len(text)}\n"


def is_own(namespace, name):
    """Whether a public name is defined below its namespace, and not in fastelbo's."""
    thing = getattr(importlib.import_module(namespace), name)
    return thing.__module__.startswith(f"{namespace}.")


def directive(namespace, name):
    """The documentation of one name."""
    thing = getattr(importlib.import_module(namespace), name)
    if not is_own(namespace, name):
        home = thing.__module__.partition(".")[0]
        kind = "class" if inspect.isclass(thing) else "func"
        return f".. {kind}:: {name}\n\n   The same as :{kind}:`{home}.{name}`.\n"
    if not inspect.isclass(thing):
        return f".. autofunction:: {name}\n"
    if issubclass(thing, tuple):
        return f".. autoclass:: {name}\n"
    outside = [c.__name__ for c in thing.__mro__ if not c.__module__.startswith("fastelbo")]
    return f".. autoclass:: {name}\n   :members:\n   :inherited-members: {', '.join(outside)}\n"


def text(page):
    """One page."""
    parts = [heading(page.title), f".. currentmodule:: {page.namespace}\n"]
    parts += [directive(page.namespace, name) for name in page.names]
    return "\n".join(parts)


def index():
    """The index of all."""
    parts = [
        heading("API reference"),
        "Every public name. Those of :mod:`fastelbo` are imported from there, whatever module\n"
        "defines them; each has its specification in plain NumPy in ``fastelbo.reference``.\n",
    ]
    for namespace in NAMESPACES:
        about = first_line(importlib.import_module(namespace))
        parts += [heading(namespace, "-"), f".. module:: {namespace}\n", about + ".\n"]
        found = pages(namespace)
        entries = "\n".join(f"   {page.entry} <{page.file}>" for page in found)
        parts += [f".. toctree::\n   :hidden:\n   :caption: {namespace}\n\n{entries}\n"]
        for page in found:
            names = "\n".join(f"   {name}" for name in page.names if is_own(namespace, name))
            parts += (
                []
                if not names
                else [
                    f".. rubric:: :doc:`{page.title} <{page.file}>`\n",
                    f".. currentmodule:: {namespace}\n",
                    f".. autosummary::\n   :nosignatures:\n\n{names}\n",
                ]
            )
    return "\n".join(parts)


def write(app):
    """Write the pages, and none that has not changed."""
    FOLDER.mkdir(exist_ok=True)
    wanted = {"index": index()}
    for namespace in NAMESPACES:
        wanted |= {page.file: text(page) for page in pages(namespace)}
    for path in FOLDER.glob("*.rst"):
        if path.stem not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = FOLDER / f"{name}.rst"
        if not path.is_file() or path.read_text() != content:
            path.write_text(content)


def relatives(qualified):
    """Names beside this one: value and gradient, the way back, the same in other namespaces."""
    namespace, _, name = qualified.rpartition(".")
    base = name.removesuffix("_and_grad").removesuffix("_backward")
    if namespace not in NAMESPACES:
        return {}
    found = {
        f"{namespace}.{other}": note
        for other, note in (
            (base, "the value"),
            (f"{base}_and_grad", "value and gradients in one call"),
            (f"{base}_backward", "the way back of gradients"),
        )
        if other in public(namespace)
    }
    notes = {"fastelbo": "of NumPy arrays", SPECIFICATION: "the specification, in plain NumPy"}
    for other in NAMESPACES:
        if other != namespace and base in public(other):
            found[f"{other}.{base}"] = notes.get(other, f"the same in {other}")
    found.pop(qualified, None)
    return found


def add_relatives(app, what, name, obj, options, lines):
    """Add the relatives of a public thing to the "See Also" of its docstring."""
    found = [
        f"{other} : {note}."
        for other, note in relatives(name).items()
        if not any(line.startswith(f"{other.rpartition('.')[2]} :") for line in lines)
    ]
    if not found:
        return
    if "See Also" in lines:
        after = lines.index("See Also") + 2
        lines[after:after] = found
    else:
        lines += ["", "See Also", "--------", *found, ""]


def complain_of_gaps(app, env):
    """A warning for a public name that no page documents."""
    from sphinx.util import logging

    documented = env.domains.python_domain.objects
    for namespace in NAMESPACES:
        for name in public(namespace):
            if f"{namespace}.{name}" not in documented:
                logging.getLogger(__name__).warning("%s.%s is on no page", namespace, name)


def skip_the_bases(app, what, name, obj, skip, options):
    """Leave out what scikit-learn and PyTorch add to classes of ours."""
    return (
        True if (getattr(obj, "__module__", None) or "").startswith(("sklearn", "torch")) else None
    )


def setup(app):
    """What Sphinx calls."""
    app.connect("builder-inited", write, priority=100)
    app.connect("autodoc-process-docstring", add_relatives, priority=100)
    app.connect("autodoc-skip-member", skip_the_bases)
    app.connect("env-check-consistency", complain_of_gaps)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
