"""Types are declared for every public name: inline, or by stubs, which must say what there is.

Where the type of a result depends on an argument there are overloads; a module most of which these
would be has a stub (`.pyi`).
"""

from __future__ import annotations  # nor are those of what from_stub executes ever evaluated

import ast
import functools
import importlib
import inspect
import typing
from pathlib import Path

import pytest

import fastelbo

ROOT = Path(fastelbo.__file__).parent
#: Methods of fastelbo.torch's likelihoods that are the package's own affair.
INTERNAL = {"couples_rows", "elements", "kernels", "spec"}


def public():
    """(name, what it is) of all that is public."""
    for name in ("fastelbo", "fastelbo.dask", "fastelbo.jax", "fastelbo.torch"):
        try:
            package = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        for member in package.__all__:
            yield f"{name}.{member}", getattr(package, member)


PUBLIC = dict(public())
STUBS = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
    for path in ROOT.rglob("*.pyi")
}


def methods(cls):
    """The public methods and properties of a class, by name; inherited ones, too."""
    found = {}
    for base in reversed(cls.__mro__):
        for name, thing in vars(base).items() if base.__module__.startswith("fastelbo.") else ():
            function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
            is_public = name == "__init__" or not name.startswith("_")
            if is_public and inspect.isfunction(function) and name not in INTERNAL:
                found[name] = function
    return found


def functions(name):
    """A public function, or the methods of a public class."""
    thing = PUBLIC[name]
    return methods(thing).values() if inspect.isclass(thing) else [thing]


@functools.cache
def stub_of(module):
    return ast.parse(STUBS[module].read_text())


def definitions(body, name):
    """What a stub says of this name: several definitions if it is overloaded."""
    return [node for node in body if getattr(node, "name", None) == name]


def from_stub(definition):
    """The function that a definition in a stub makes."""
    definition.decorator_list = []
    namespace = {}
    exec(compile(ast.Module([definition], []), "stub", "exec"), namespace)
    return namespace[definition.name]


def declarations(function):
    """The functions that declare the types of this one: its overloads, or what it says itself."""
    if function.__module__ not in STUBS:
        return typing.get_overloads(function) or [function]
    found = [stub_of(function.__module__)]
    for name in function.__qualname__.split("."):
        found = [node for parent in found for node in definitions(parent.body, name)]
    return [from_stub(definition) for definition in found]


def arguments(function):
    """(name, kind, whether there is a default) of the arguments of a function."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind.name, p.default is not p.empty) for p in parameters]


def declared(overloads):
    """The arguments that these declare; what tells overloads apart has its default in one."""
    every = [arguments(overload) for overload in overloads]
    names = {tuple(argument[:2] for argument in found) for found in every}
    assert len(names) == 1, "the overloads differ in their arguments"
    return [
        (*same[0][:2], any(argument[2] for argument in same)) for same in zip(*every, strict=True)
    ]


def without_type(function):
    """The arguments of a function, or its result, that are not annotated."""
    signature = inspect.signature(function)
    found = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    found += ["return"] if signature.return_annotation is signature.empty else []
    return [name for name in found if name not in ("self", "cls")]


@pytest.mark.parametrize("name", PUBLIC)
def test_types_are_declared(name):
    """Of every argument and every result, with the arguments that there are at run time."""
    for function in functions(name):
        full_name = f"{function.__module__}.{function.__qualname__}"
        overloads = declarations(function)
        assert overloads, f"no stub of {full_name}"
        missing = [argument for overload in overloads for argument in without_type(overload)]
        assert not missing, f"{full_name} has no types of {missing}"
        assert declared(overloads) == arguments(function), full_name


@pytest.mark.parametrize("name", [n for n in PUBLIC if n.count(".") == 1])
def test_what_reduces_is_overloaded(name):
    """The result is a float, or an array for ``reduction="none"``."""
    for function in functions(name):
        if "reduction" in inspect.signature(function).parameters:
            assert len(declarations(function)) > 1, function.__qualname__


@pytest.mark.parametrize("name", [n for n, thing in PUBLIC.items() if hasattr(thing, "_fields")])
def test_results_have_their_fields(name):
    thing = PUBLIC[name]
    fields = list(thing.__annotations__)
    if thing.__module__ in STUBS:
        (stub,) = definitions(stub_of(thing.__module__).body, thing.__name__)
        fields = [node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)]
    assert fields == list(thing._fields)


@pytest.mark.parametrize("module", STUBS)
def test_a_stub_is_for_overloads(module):
    """Most of its functions are overloaded, or it is compiled; or types would stand inline."""
    if not STUBS[module].with_suffix(".py").exists():
        return
    tree = stub_of(module)
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    overloaded = [name for name in names if len(definitions(tree.body, name)) > 1]
    made = [node for node in tree.body if isinstance(node, ast.ClassDef)]  # at run time, perhaps
    written = {
        node.name
        for node in ast.parse(STUBS[module].with_suffix(".py").read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert 2 * len(overloaded) > len(names) or {node.name for node in made} - written


def test_a_declaration_that_rots_is_noticed():
    stub = ast.parse("def f(a, /, b, *c, d, e=..., **g): ...\ndef f(a, /, b, *c, d, e, **g): ...")
    overloads = [from_stub(definition) for definition in definitions(stub.body, "f")]

    def same(a: int, /, b, *c: int, d, e=1, **g) -> None: ...

    def other(a, /, b, *c, e=1, d, **g): ...

    assert declared(overloads) == arguments(same)
    assert declared(overloads) != arguments(other)
    assert without_type(same) == ["b", "d", "e", "g"]
    assert without_type(other)[-1] == "return"
    assert not definitions(stub_of("fastelbo.elbo").body, "no_such_function")
    of_vae = methods(fastelbo.VAE)
    assert {"__init__", "fit", "load", "prior_", "inverse_transform"} <= set(of_vae)
    assert methods(fastelbo.Poisson)["log_prob"] is fastelbo.Likelihood.log_prob
    assert len(declarations(fastelbo.Likelihood.log_prob)) == 3
    assert len(declarations(fastelbo.elbo_and_grad)) == 4


def test_likelihoods_that_have_a_name():
    from fastelbo import _named, _typing

    assert set(typing.get_args(_typing.LikelihoodName)) == set(_named.LIKELIHOODS)
