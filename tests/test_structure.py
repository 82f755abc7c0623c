"""Every public function has a reference, tests, a parity check and a benchmark under one name."""

import ast
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import fastelbo
from fastelbo import reference
from fastelbo._cli import baselines, cases, parity

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
BENCHMARKS = ROOT / "asv_bench" / "benchmarks"

#: Public names that compute nothing by themselves: settings, information, what others derive from.
SETTINGS = {
    "FreeBits",
    "Likelihood",
    "build_info",
    "get_num_threads",
    "num_threads",
    "set_num_threads",
}
#: Made of all the others: it has tests, and `bench --vae`, but no formula of its own.
ESTIMATORS = {"VAE"}
#: What is tested and measured in one file, by name of that file.
TOGETHER = dict.fromkeys(("MixtureOfGaussians", "StandardNormal", "VampPrior"), "priors")


def is_result(thing):
    """Whether it is a named tuple."""
    return inspect.isclass(thing) and issubclass(thing, tuple)


def public_functions():
    """Public functions that compute, and classes that do: likelihoods, priors, StreamingBound."""
    return [
        name
        for name in fastelbo.__all__
        if name not in SETTINGS | ESTIMATORS and not is_result(getattr(fastelbo, name))
    ]


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def stem(name):
    """What the files of a function are called: those of `f_and_grad` are those of f."""
    return TOGETHER.get(name, snake(name).removesuffix("_and_grad"))


def camel(name):
    return "".join(part[0].upper() + part[1:] for part in name.split("_"))


def benchmark_classes(name, folder=BENCHMARKS):
    """The suites in the benchmark file of a function, or none."""
    path = folder / f"{stem(name)}.py"
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def missing(name):
    """What a public function of this name lacks."""
    present = {
        "reference": callable(getattr(reference, name, None)),
        "tests": (TESTS / f"test_{stem(name)}.py").is_file(),
        "parity": name in parity.REGISTRY,
        "benchmark": camel(name) in benchmark_classes(name),
        "baseline": hasattr(baselines.NumPy, snake(name)),
    }
    if hasattr(getattr(fastelbo, name, None), "log_prob_and_grad"):
        present["benchmark of the gradient"] = f"{name}AndGrad" in benchmark_classes(name)
        present["baseline of the gradient"] = hasattr(baselines.NumPy, f"{snake(name)}_and_grad")
    return [room for room, is_there in present.items() if not is_there]


@pytest.mark.parametrize("name", public_functions())
def test_every_public_function_is_in_every_room(name):
    assert missing(name) == []


@pytest.mark.parametrize("name", public_functions())
def test_every_public_function_is_in_bench(name):
    """A case, in a table of `bench --all` by itself or with its gradient, or among the stages."""
    tables = [names for _, names in (*cases.MAIN, *cases.EXTRA)]
    shown = set().union(*tables, *cases.STAGES.values())
    assert snake(name) in cases.CASES
    assert {snake(name), f"{snake(name)}_and_grad"} & shown


def test_a_new_function_would_be_missed():
    everything = ["reference", "tests", "parity", "benchmark", "baseline"]
    assert missing("no_such_function") == everything
    assert "elbo" in public_functions()
    assert {"Bernoulli", "StreamingBound", "VampPrior"} <= set(public_functions())


def test_nothing_is_left_behind():
    """No parity check and no benchmark of what is not public."""
    names = set(public_functions())
    of_torch = {name for name in parity.REGISTRY if name.startswith("torch.")}
    assert set(parity.REGISTRY) - of_torch <= names
    files = {path.stem for path in BENCHMARKS.glob("*.py")} - {"__init__", "common", "torch"}
    assert files == {stem(name) for name in names}


def test_parity_of_torch_is_of_all_that_is_public():
    module = pytest.importorskip("fastelbo.torch")
    names = {name for name in parity.REGISTRY if name.startswith("torch.")}
    computes_nothing = {"BetaTcvaeResult", "ElboResult", "FreeBits", "Likelihood"}
    computes_nothing |= {"TotalCorrelation"}
    assert names == {f"torch.{name}" for name in set(module.__all__) - computes_nothing}


@pytest.mark.parametrize("name", public_functions())
def test_arguments_are_those_of_the_reference(name):
    """The same names in the same order, but for options that change no number."""
    changes_nothing = {"num_threads", "out"}
    ours, theirs = (
        [p for p in inspect.signature(getattr(module, name)).parameters if p not in changes_nothing]
        for module in (fastelbo, reference)
    )
    assert ours == theirs


def imports_of(path):
    """The packages that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_environments_of_asv_have_what_suites_import():
    """NumPy's side, too; suites and contenders of other frameworks do without."""
    files = [*BENCHMARKS.glob("*.py"), *(ROOT / "fastelbo" / "_cli").glob("*baselines.py")]
    imported = {name for path in files for name in imports_of(path)}
    given = json.loads((BENCHMARKS.parent / "asv.conf.json").read_text())["matrix"]["req"]
    optional = {"fastelbo", "jax", "numba", "torch"}
    assert imported - set(sys.stdlib_module_names) - optional <= set(given)
    assert "scipy" in imported


@pytest.mark.parametrize(
    ("suite", "size", "shapes"),
    [
        ("NegativeBinomial", "vae", [(128, 5000)]),
        ("ZeroInflatedNegativeBinomial", "vae", [(128, 5000)]),
        ("MixtureLogProb", "vae", [(512, 40), (500,), (500, 40)]),
        ("VampPrior", "vae", [(512, 40), (500, 40)]),
        ("BetaTcvaeElbo", "RAM", [(1024, 784), (1024, 32)]),
        ("Mmd", "vae", [(512, 32), (512, 32)]),
        ("Iwae", "vae", [(128, 784), (64, 128, 20)]),
    ],
)
def test_benchmarks_have_the_sizes_that_matter(suite, size, shapes, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS.parent)
    module = importlib.import_module(f"benchmarks.{stem(suite)}")
    bench = getattr(module, suite)()
    bench.setup(size, "float32", 1)
    assert [a.shape for a in bench.arguments][: len(shapes)] == shapes


def test_benchmark_sizes_are_what_their_names_say():
    """In L1, in L2, and in neither: by what x and x_recon take in float64."""
    sizes = {}
    tree = ast.parse((BENCHMARKS / "common.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "SIZES":
            sizes = ast.literal_eval(node.value)
    taken = {name: 2 * 8 * batch * event for name, (batch, event, _) in sizes.items()}
    assert taken["L1"] <= 32 << 10 < taken["L2"] <= 1 << 20 < taken["vae"] < 32 << 20 < taken["RAM"]
    assert sizes["vae"] == (128, 784, 20)


def test_the_readme_names_everything():
    """Every public name but results and what is named with its value; every module in the map."""
    readme = (ROOT / "README.md").read_text()
    results = {n for n in fastelbo.__all__ if hasattr(getattr(fastelbo, n), "_fields")}
    for name in set(fastelbo.__all__) - results - {"Likelihood"}:
        assert f"`{name.removesuffix('_and_grad').removesuffix('_backward')}" in readme, name
    for path in (ROOT / "fastelbo").glob("[!_]*.py"):
        assert path.name in readme, path.name
