"""The documentation: every public name is on a page, and its scripts for other libraries run."""

import importlib.util
import sys
from pathlib import Path

import pytest

from fastelbo._catalogue import ROWS
from tests.example_scripts import imports, output

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def api(monkeypatch):
    """What derives the reference."""
    monkeypatch.syspath_prepend(DOCS / "_ext")
    yield importlib.import_module("api")
    sys.modules.pop("api", None)


def test_every_public_name_is_on_one_page(api):
    for namespace in api.NAMESPACES:
        try:
            module = importlib.import_module(namespace)
        except ModuleNotFoundError:  # its framework is not there
            continue
        pages = api.pages(namespace)
        names = [name for page in pages for name in page.names]
        assert sorted(names) == sorted(getattr(module, "__all__", ROWS))
        lines = [line for page in pages for line in api.text(page).splitlines()]
        for name in names:
            assert sum(line.startswith("..") and line.endswith(f":: {name}") for line in lines) == 1
        assert len({page.file.lower() for page in pages}) == len(pages)


def test_relatives_are_found(api):
    for namespace in api.NAMESPACES:
        pytest.importorskip(namespace)
    assert {"fastelbo.elbo", "fastelbo.reference.elbo"} < set(api.relatives("fastelbo.torch.elbo"))
    assert "fastelbo.iwae_and_grad" in api.relatives("fastelbo.iwae")
    assert "fastelbo.mopoe_backward" in api.relatives("fastelbo.mopoe")


def clients():
    """The scripts whose libraries are there: these are large, and CI does not install them."""
    paths = sorted((DOCS / "howto").glob("*.py"))
    return [path for path in paths if all(map(importlib.util.find_spec, set(imports(path))))]


@pytest.mark.parametrize("path", clients(), ids=lambda path: path.stem)
def test_clients_agree_with_what_is_replaced(path, tmp_path):
    assert "fastelbo" in output(path, folder=tmp_path)
