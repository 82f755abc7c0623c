"""The documentation: every public name is on a page, and its scripts for other libraries run."""

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from fastelbo._catalogue import CASES, ROWS
from fastelbo._cli import bench
from fastelbo._cli.measure import Time, _compare
from tests.example_scripts import imports, output

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def extension(monkeypatch):
    """Imports what pages are made by."""
    monkeypatch.syspath_prepend(DOCS / "_ext")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == DOCS / "_ext":
            del sys.modules[name]


@pytest.fixture
def api(extension):
    """What derives the reference."""
    return extension("api")


def reports():
    """What bench would say, of contenders whose times are whole microseconds, in all cases."""
    speed_of = {"NumPy": 9.0, "Numba prange": 3.0, "JAX jit, GEMM": 1e9, "fastelbo, 2 threads": 2.0}
    speed_of["memory traffic alone, 2 threads"] = 1.0
    in_torch = {"PyTorch eager": 9.0, "fastelbo.torch": 2.0, "torch.compile": 5.0}

    def rows(case, dtype, size, times_of=speed_of):
        times = [Time(case, "", size, dtype, label, 2, 1e-6 * us) for label, us in times_of.items()]
        _compare(CASES["elbo"], CASES["elbo"].draw(B=2, D=3, L=1), times)
        return [asdict(time) for time in times]

    sizes = (("elbo", "B 2"), ("elbo_and_grad", "B 2"), ("elbo_and_grad", "B 4"))
    main = [
        row for case, size in sizes for dtype in bench.DTYPES for row in rows(case, dtype, size)
    ]
    others = [
        row for case in CASES if case.endswith("_and_grad") for row in rows(case, "float32", "")
    ]
    calls = {"np.add": 4e-7, **dict.fromkeys(CASES, 1.5)}
    common = {"environment": bench.environment(2), "busy": 0.04}
    losses = [{"label": label, "minimum": 1e-6 * us} for label, us in in_torch.items()]
    of_torch = {"tables": [{"title": "elbo", "rows": losses}, {"title": "", "rows": losses[:1]}]}
    of_jax = rows("elbo", "float32", "B 2", {"JAX jit": 5.0, "fastelbo.jax": 2.0})
    return [
        {**common, "rows": main},
        {**common, "rows": others, "small_call": calls},
        {**common, "rows": [], "torch": of_torch, "jax": of_jax},
    ]


def test_readme_has_what_was_measured(extension):
    """Blocks of README are replaced; every row of a table names the best peer."""
    speed = extension("speed")
    before = speed.README.read_text()
    text = speed.written(before, reports())
    assert speed.written(text, reports()) == text != before
    assert "other programs used 0.0 CPUs" in text
    table = speed.elbo_table(reports()).splitlines()
    assert table[-3:] == [
        "| **fastelbo** | **2** | **2** | **2** | **2** |",
        "| memory traffic alone | 1 | 1 | 1 | 1 |",
        "| ahead of the best peer |" + 4 * " 1.50x Numba prange |",
    ]
    lines = speed.cases_table(reports()).splitlines()[2:]
    assert set(speed.CASES) <= {line.split("`")[1] for line in lines}
    assert all(line.endswith(" | **0.002** | 1.50x Numba prange |") for line in lines)
    lines = speed.torch_table(reports()).splitlines()[2:]
    assert lines == ["| elbo | 9 | 2 | 5 | 4.50x | 2.50x |"]
    lines = speed.jax_table(reports()).splitlines()[2:]
    assert lines == ["| `elbo`, B 2 | 0.005 | **0.002** | 2.50x |"]
    with pytest.raises(ValueError, match="measured: torch"):
        speed.written("a text without", reports())
    if speed.MEASURED.is_file():
        assert speed.written(before, json.loads(speed.MEASURED.read_text())) == before


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
