"""The scripts in examples/, and how one is run."""

import ast
import contextlib
import importlib.util
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"


def imports(path):
    """The packages that a script imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def scripts(framework=None):
    """Names of the scripts that import this framework; by default of those that need none."""
    frameworks = {"jax", "torch"}
    wanted = {framework} - {None}
    paths = sorted(FOLDER.glob("*.py"))
    return [path.stem for path in paths if frameworks & set(imports(path)) == wanted]


def loaded(name):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def output(name, *options, folder="."):
    """What the script prints, run in `folder`; a script whose libraries are missing is skipped.

    It goes by its name in examples/, or by its path. It runs in this process, which has what takes
    most of the time of a new one: libraries are imported.
    """
    path = name if isinstance(name, Path) else FOLDER / f"{name}.py"
    for package in set(imports(path)) - {"fastelbo"}:
        pytest.importorskip(package)
    pyplot, printed = pytest.importorskip("matplotlib.pyplot"), io.StringIO()
    pyplot.switch_backend("Agg")
    with contextlib.ExitStack() as stack:
        stack.callback(pyplot.close, "all")
        if torch := sys.modules.get("torch"):
            stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(mock.patch.object(sys, "argv", [str(path), *options]))
        runpy.run_path(str(path), run_name="__main__")
    return printed.getvalue()


def draws(name, folder):
    """Run the script quickly: it prints figures, and leaves one picture where it says."""
    text = output(name, "--quick", "--output", f"{name}.png", folder=folder)
    assert any(character.isdigit() for character in text)
    assert (folder / f"{name}.png").stat().st_size > 10_000
    assert f"{name}.png" in text
    return text
