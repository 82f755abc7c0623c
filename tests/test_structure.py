"""Every public thing has all its parts under one name: what is missing is named."""

import ast
import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import fastelbo
from fastelbo import reference
from fastelbo._catalogue import CASES, ROWS
from fastelbo._named import LIKELIHOODS

ROOT = Path(__file__).resolve().parents[1]

#: Public names that compute nothing by themselves: settings, information, what others derive from;
#: the models made of all the others; and what trains models by itself, fastelbo's
#: (`rate_distortion`) or scikit-learn's trees (`dci`, whose formula is `dci_from_importance`): what
#: comes of their training is no function of arrays that NumPy could specify.
NO_ROW = {
    "BetaSchedule",
    "CountVAE",
    "FreeBits",
    "Geco",
    "LearningRateSchedule",
    "Likelihood",
    "SemiSupervisedVAE",
    "TrainingWarning",
    "VAE",
    "VAEOutlierDetector",
    "build_info",
    "dci",
    "get_include",
    "get_num_threads",
    "num_threads",
    "rate_distortion",
    "set_num_threads",
}
#: What is tested in one file, by name of that file.
TOGETHER = {
    **dict.fromkeys(("MixtureOfGaussians", "StandardNormal", "VampPrior"), "priors"),
    **dict.fromkeys(("amortization_gap", "generalization_gap", "refine_posterior"), "amortization"),
}
TORCH = importlib.util.find_spec("torch") is not None


def is_result(thing):
    """Whether it is a named tuple."""
    return inspect.isclass(thing) and issubclass(thing, tuple)


def public():
    """Public names that compute; f stands for f_and_grad, too."""
    names = (n for n in fastelbo.__all__ if not is_result(getattr(fastelbo, n)))
    return [n for n in names if n not in NO_ROW and base(n) == n]


def base(name):
    """f, of f_and_grad."""
    return name.removesuffix("_and_grad")


def stem(name):
    """What the test file of a name is called."""
    return TOGETHER.get(name, re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower())


def missing(name, root=ROOT):
    """The parts that a public thing of this name lacks."""
    row = ROWS.get(name)
    present = {
        "reference": callable(getattr(reference, name, None)),
        "row": row is not None and bool(row.cases),
        "bench": row is not None and bool(row.bench),
        "hand-worked test": (root / "tests" / f"test_{stem(name)}.py").is_file(),
        "README": f"`{name.removesuffix('_backward')}" in (root / "README.md").read_text(),
    }
    if TORCH:
        twins = importlib.import_module("fastelbo.torch")
        excused = row is not None and row.untwinned
        present["PyTorch twin"] = bool(excused) or hasattr(twins, name)
    return [part for part, is_there in present.items() if not is_there]


@pytest.mark.parametrize("name", public())
def test_every_public_thing_has_all_its_parts(name):
    assert missing(name) == []


def _without(part, monkeypatch, tmp_path):
    """A tree and modules in which Laplace lacks this part."""
    for kept in ("README.md", "tests/test_laplace.py"):
        target = tmp_path / kept
        target.parent.mkdir(exist_ok=True)
        target.write_text((ROOT / kept).read_text())
    if part == "reference":
        monkeypatch.delattr(reference, "Laplace")
    elif part == "row":
        monkeypatch.setitem(ROWS, "Laplace", _changed("Laplace", cases=()))
    elif part == "bench":
        monkeypatch.setitem(ROWS, "Laplace", _changed("Laplace", bench=()))
    elif part == "hand-worked test":
        (tmp_path / "tests/test_laplace.py").unlink()
    elif part == "README":
        readme = tmp_path / "README.md"
        readme.write_text(readme.read_text().replace("`Laplace`", ""))
    else:
        monkeypatch.delattr(importlib.import_module("fastelbo.torch"), "Laplace")


def _changed(name, **parts):
    return type(ROWS[name])(**{**vars(ROWS[name]), **parts})


@pytest.mark.parametrize(
    "part", ["reference", "row", "bench", "hand-worked test", "README", "PyTorch twin"]
)
def test_a_likelihood_without_one_of_its_parts_is_found(part, monkeypatch, tmp_path):
    if part == "PyTorch twin":
        pytest.importorskip("torch")
    _without(part, monkeypatch, tmp_path)
    assert missing("Laplace", tmp_path) == [part]


def test_nothing_is_left_behind():
    """No row of what is not public, no twin that is excused and there, no name twice."""
    assert set(ROWS) == set(public())
    assert sum(len(row.cases) for row in ROWS.values()) == len(CASES)
    if TORCH:
        twins = importlib.import_module("fastelbo.torch")
        assert not [row.name for row in ROWS.values() if row.untwinned and hasattr(twins, row.name)]


@pytest.mark.parametrize("name", [n for n in fastelbo.__all__ if base(n) in ROWS])
def test_gradients_have_cases(name):
    """f_and_grad beside f, log_prob_and_grad beside log_prob."""
    thing = getattr(fastelbo, name)
    if hasattr(thing, "log_prob_and_grad") or name != base(name):
        assert any(case.gives_gradients for case in ROWS[base(name)].cases)


@pytest.mark.parametrize("name", public())
def test_arguments_are_those_of_the_reference(name):
    """The same names in the same order, but for options that change no number."""
    changes_nothing = {"num_threads", "out"}
    ours, theirs = (
        [p for p in inspect.signature(getattr(module, name)).parameters if p not in changes_nothing]
        for module in (fastelbo, reference)
    )
    assert ours == theirs


def test_environments_of_asv_have_what_suites_and_peers_import():
    """NumPy's side, too; suites and contenders of other frameworks do without."""
    folders = ("asv_bench/benchmarks", "fastelbo/_catalogue")
    files = [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    imported = set()
    for path in [*files, ROOT / "fastelbo/_cli/contenders.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    given = json.loads((ROOT / "asv_bench/asv.conf.json").read_text())["matrix"]["req"]
    optional = {"fastelbo", "jax", "numba", "torch"}
    assert imported - set(sys.stdlib_module_names) - optional <= set(given)
    assert "scipy" in imported


def test_benchmark_sizes_are_what_their_names_say():
    """In L1, in L2, and in neither: by what x and x_recon take in float64."""
    tree = ast.parse((ROOT / "asv_bench/benchmarks/rows.py").read_text())
    (sizes,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "SIZES"
    )
    own = {entry.case: entry.extents for entry in ROWS["elbo"].bench}["elbo-Bernoulli"]
    taken = {name: 2 * 8 * e["B"] * e["D"] for name, e in {**sizes, "own": own}.items()}
    assert taken["L1"] <= 32 << 10 < taken["L2"] <= 1 << 20 < taken["own"] < 32 << 20 < taken["RAM"]


@pytest.mark.parametrize(
    ("name", "extents"),
    [
        ("elbo", {"B": 128, "D": 784, "L": 20}),
        ("NegativeBinomial", {"B": 128, "D": 5000}),
        ("ZeroInflatedNegativeBinomial", {"B": 128, "D": 5000}),
        ("mixture_log_prob", {"B": 512, "M": 500, "L": 40}),
        ("VampPrior", {"B": 512, "M": 500, "L": 40}),
        ("beta_tcvae_elbo", {"B": 1024, "L": 32}),
        ("mmd", {"B": 512, "N": 512, "L": 32}),
        ("iwae", {"B": 128, "D": 784, "L": 20, "K": 64}),
    ],
)
def test_benchmarks_have_the_sizes_that_matter(name, extents):
    assert any(extents.items() <= dict(entry.extents).items() for entry in ROWS[name].bench)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in (getattr(fastelbo, name) for name in public())
        if isinstance(kind, type) and issubclass(kind, fastelbo.Likelihood)
    ],
)
def test_a_likelihood_that_needs_no_argument_has_a_name(kind):
    arguments = inspect.signature(kind).parameters.values()
    named = {type(make()) for make in LIKELIHOODS.values()}
    assert (kind in named) == all(a.default is not a.empty for a in arguments)


def test_functions_say_what_they_refuse():
    for name in fastelbo.__all__:
        thing = getattr(fastelbo, name)
        if inspect.isfunction(thing) and inspect.signature(thing).parameters and base(name) in ROWS:
            assert "Raises\n" in thing.__doc__, name


@pytest.mark.parametrize("name", [n for n in fastelbo.__all__ if n != base(n)])
def test_gradients_say_what_they_are_of_without_a_reduction(name):
    function = getattr(fastelbo, name)
    if "reduction" in inspect.signature(function).parameters:
        returned = re.search(r"Returns\n(.*?)\n\n", function.__doc__, re.S)[1]
        assert 'reduction="none"' in returned or "(1/B for the" in returned


def the_map():
    """The names of files that README's map gives."""
    (rooms,) = re.findall(r"## The map\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return set(re.findall(r"(?<![\w*])\w+\.(?:pyx|pxd|pxi|py|h)\b", rooms))


def test_the_map_names_every_module():
    named = the_map()
    obvious = {"__init__.py", "__main__.py", "_typing.py"}
    for path in (ROOT / "fastelbo").glob("*.py*"):
        if path.suffix in (".py", ".pyx") and path.name not in obvious:
            assert path.name in named, path.name


def test_what_the_map_names_is_there():
    there = {path.name for path in (ROOT / "fastelbo").rglob("*.[ph]*")}
    assert the_map() <= there


def test_no_file_is_too_long_to_read():
    for pattern in ("fastelbo/**/*.p*", "tests/*.py", "asv_bench/**/*.py", "setup.py"):
        for path in ROOT.glob(pattern):
            if path.suffix == ".pyc":
                continue
            lines = path.read_text().count("\n")
            assert lines <= 600, f"{path.relative_to(ROOT)} has {lines} lines"


def test_what_a_kernel_cimports_from_is_a_file():
    """Cython does not see that it depends on modules of a package, and would not compile again."""
    for path in (ROOT / "fastelbo").rglob("*.p[yx][xdi]"):
        for module in re.findall(r"^from (fastelbo[\w.]*) cimport", path.read_text(), re.M):
            declared = ROOT.joinpath(*module.split(".")).with_suffix(".pxd")
            assert declared.is_file(), f"{path.relative_to(ROOT)} cimports from {module}"


def imports_of(path):
    """The modules that a file imports when it is imported."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_imports_one_that_imports_it():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "fastelbo").rglob("*.py")
    }
    needs = {
        name: {n for n in imports_of(path) if n in files and n != name}
        for name, path in files.items()
        if not path.name.startswith("__init__")
    }
    while True:
        leaves = [name for name, wanted in needs.items() if not wanted & set(needs)]
        if not leaves:
            break
        for name in leaves:
            del needs[name]
    assert not needs, f"these import each other: {sorted(needs)}"
