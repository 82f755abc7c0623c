"""Every public name of fastelbo has a twin in fastelbo.torch, with the same arguments."""

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastelbo
from fastelbo._catalogue import ROWS

ft = pytest.importorskip("fastelbo.torch")
composites = pytest.importorskip("fastelbo.torch.composites")

#: Of a twin: arguments that only it has, and that only fastelbo has.
ADDED = {"iwae": {"estimator"}, "vimco": {"log_q"}, "reinforce": {"log_q"}}
LEFT_OUT = {"num_threads", "out"}


def with_twin():
    """What is public and computes, unless its row says why there is no twin."""
    return [name for name, row in ROWS.items() if not row.untwinned] + ["FreeBits", "Likelihood"]


def missing(name, module=ft):
    """What fastelbo.torch lacks of a public name of fastelbo."""
    twin = getattr(module, name, None)
    if twin is None or name not in module.__all__:
        return ["twin"]
    is_likelihood = inspect.isclass(twin) and issubclass(twin, ft.Likelihood)
    has_formula = hasattr(twin, "elements") or twin is ft.ColumnLikelihood  # that of its blocks
    if is_likelihood and twin is not ft.Likelihood and not has_formula:
        return ["formula"]
    return []


@pytest.mark.parametrize("name", with_twin())
def test_every_public_name_has_a_twin(name):
    assert missing(name) == []


def test_a_missing_twin_is_noticed():
    class NoFormula(ft.Likelihood):
        pass

    assert missing("NoFormula") == ["twin"]
    twins = SimpleNamespace(__all__=["NoFormula"], NoFormula=NoFormula)
    assert missing("NoFormula", twins) == ["formula"]
    assert missing("NoFormula", SimpleNamespace(__all__=[], NoFormula=NoFormula)) == ["twin"]


def test_what_is_called_by_name_has_a_composite():
    called = set()
    for path in Path(ft.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "function"
            if is_call and isinstance(node.args[0], ast.Constant):  # else a variable there
                called.add(node.args[0].value)
    assert {"kl_normal", "mmd"} <= called
    for name in called:
        assert callable(getattr(composites, name, None)), f"fastelbo.torch.composites.{name}"


def arguments(function):
    """(name, kind, default) of each, in order."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", [n for n in with_twin() if not inspect.isclass(getattr(ft, n))])
def test_arguments_are_those_of_fastelbo(name):
    """The same names in the same order; threads are PyTorch's, and there is no out."""
    mine = [argument for argument, *_ in arguments(getattr(ft, name))]
    theirs = [argument for argument, *_ in arguments(getattr(fastelbo, name))]
    assert [p for p in mine if p not in ADDED.get(name, ())] == [
        p for p in theirs if p not in LEFT_OUT
    ]


@pytest.mark.parametrize("name", [n for n in ft.__all__ if n[0].isupper()])
def test_constructors_are_those_of_fastelbo(name):
    """The same names, defaults and order, which does not matter where there is no position."""
    mine, theirs = getattr(ft, name), getattr(fastelbo, name, None)
    if hasattr(mine, "_fields"):
        assert mine._fields == theirs._fields
    elif theirs is not None and mine not in (fastelbo.FreeBits, ft.Likelihood):
        by_position = [
            [a for a in arguments(cls) if a[1] is not inspect.Parameter.KEYWORD_ONLY]
            for cls in (mine, theirs)
        ]
        assert by_position[0] == by_position[1]
        assert sorted(map(str, arguments(mine))) == sorted(map(str, arguments(theirs)))
