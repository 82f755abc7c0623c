"""Every public function has a reference, a parity check and an asv benchmark under one name."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import fastelbo
from fastelbo import reference
from fastelbo._cli import baselines, parity

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "asv_bench" / "benchmarks"

#: Public names that compute nothing: settings and information.
SETTINGS = {"build_info", "get_num_threads", "num_threads", "set_num_threads"}


def public_functions():
    """Public functions that compute, and likelihoods."""
    names = []
    for name in fastelbo.__all__:
        thing = getattr(fastelbo, name)
        is_likelihood = inspect.isclass(thing) and issubclass(thing, fastelbo.Likelihood)
        if (is_likelihood and thing is not fastelbo.Likelihood) or (inspect.isfunction(thing) and name not in SETTINGS):
            names.append(name)
    return names


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def camel(name):
    return "".join(part[0].upper() + part[1:] for part in name.split("_"))


def benchmark_classes(name, folder=BENCHMARKS):
    """The suites in the benchmark file of a function, or none; `f_and_grad` is in the file of f."""
    path = folder / f"{snake(name).removesuffix('_and_grad')}.py"
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def missing(name):
    """What a public function of this name lacks."""
    present = {
        "reference": callable(getattr(reference, name, None)),
        "parity": name in parity.REGISTRY,
        "benchmark": camel(name) in benchmark_classes(name),
        "baseline": hasattr(baselines.NumPy, snake(name)),
    }
    if isinstance(getattr(fastelbo, name, None), type):
        present["benchmark of the gradient"] = f"{name}AndGrad" in benchmark_classes(name)
        present["baseline of the gradient"] = hasattr(baselines.NumPy, f"{snake(name)}_and_grad")
    return [room for room, is_there in present.items() if not is_there]


@pytest.mark.parametrize("name", public_functions())
def test_every_public_function_is_in_every_room(name):
    assert missing(name) == []


def test_a_new_function_would_be_missed():
    assert missing("no_such_function") == ["reference", "parity", "benchmark", "baseline"]
    assert "elbo" in public_functions()
    assert "Bernoulli" in public_functions()


def test_nothing_is_left_behind():
    """No parity check and no benchmark of what is not public."""
    names = set(public_functions())
    assert set(parity.REGISTRY) <= names
    files = {path.stem for path in BENCHMARKS.glob("*.py")} - {"__init__", "common"}
    assert files == {snake(name).removesuffix("_and_grad") for name in names}


@pytest.mark.parametrize("name", public_functions())
def test_arguments_are_those_of_the_reference(name):
    """The same names in the same order, but for options that change no number."""
    ours = list(inspect.signature(getattr(fastelbo, name)).parameters)
    theirs = list(inspect.signature(getattr(reference, name)).parameters)
    extra = {"num_threads", "out", "x_dtype"}
    assert [p for p in ours if p not in extra] == theirs


@pytest.mark.parametrize("name", [n for n in dir(baselines.NumPy) if n in dir(reference)])
def test_the_numpy_that_users_write_is_right(name):
    """What speed is measured against computes the same; noise is random and left out."""
    rng = np.random.default_rng(3)
    if name.startswith("reparameterize"):
        pytest.skip("draws noise") if name != "reparameterize_backward" else None
    arrays = {p: rng.standard_normal((4, 3)) for p in _arguments(name)}
    expected = getattr(reference, name)(*arrays.values())
    actual = getattr(baselines.NumPy(), name)(*arrays.values())
    for a, e in zip(actual, _leaves(expected), strict=False):
        np.testing.assert_allclose(a, e, rtol=1e-12)


def _arguments(name):
    return [p for p in inspect.signature(getattr(baselines.NumPy, name)).parameters if p != "self"]


def _leaves(tree):
    if not isinstance(tree, tuple):
        return [tree]
    return [leaf for branch in tree for leaf in _leaves(branch)]


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
