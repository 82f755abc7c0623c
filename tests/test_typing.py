"""Stubs declare every public name, with the arguments that it has at run time."""

import ast
import functools
import importlib
import inspect
from pathlib import Path

import pytest

import fastelbo

#: Methods of fastelbo.torch's likelihoods that are the package's own affair.
INTERNAL = {"couples_rows", "elements", "kernels"}


def public():
    """(name, what it is) of all that is public."""
    for name in ("fastelbo", "fastelbo.torch"):
        try:
            package = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        for member in package.__all__:
            yield f"{name}.{member}", getattr(package, member)


PUBLIC = dict(public())


@functools.cache
def stub_of(module):
    path = Path(importlib.import_module(module).__file__).with_suffix(".pyi")
    return ast.parse(path.read_text())


def definitions(body, name):
    """What the stub says of this name: several definitions if it is overloaded."""
    return [node for node in body if getattr(node, "name", None) == name]


def arguments(definition):
    """(name, kind, whether there is a default) of the arguments of a definition."""
    a = definition.args
    by_position = a.posonlyargs + a.args
    kinds = ["POSITIONAL_ONLY"] * len(a.posonlyargs) + ["POSITIONAL_OR_KEYWORD"] * len(a.args)
    required = len(by_position) - len(a.defaults)
    found = [
        (arg.arg, kind, i >= required)
        for i, (arg, kind) in enumerate(zip(by_position, kinds, strict=True))
    ]
    if a.vararg:
        found.append((a.vararg.arg, "VAR_POSITIONAL", False))
    found += [
        (arg.arg, "KEYWORD_ONLY", default is not None)
        for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)
    ]
    if a.kwarg:
        found.append((a.kwarg.arg, "VAR_KEYWORD", False))
    return found


def declared(overloads):
    """The arguments of a function; what tells overloads apart has its default in one of them."""
    every = [arguments(definition) for definition in overloads]
    names = {tuple(argument[:2] for argument in found) for found in every}
    assert len(names) == 1, "the overloads differ in their arguments"
    return [
        (*same[0][:2], any(argument[2] for argument in same)) for same in zip(*every, strict=True)
    ]


def actual(function):
    """The same of a function at run time."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind.name, p.default is not p.empty) for p in parameters]


def declared_methods(cls):
    """The arguments of each method and property in the stub of a class."""
    (stub,) = definitions(stub_of(cls.__module__).body, cls.__name__)
    names = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    return {name: declared(definitions(stub.body, name)) for name in names}


def actual_methods(cls):
    found = {}
    for name, thing in vars(cls).items():
        if name in INTERNAL or (name.startswith("_") and name != "__init__"):
            continue
        function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
        if inspect.isfunction(function):
            found[name] = actual(function)
    if "forward" in found:  # of a PyTorch module, whose own __call__ takes anything
        found["__call__"] = found["forward"]
    return found


def with_inherited(methods, cls):
    """What a class says, over what its bases in fastelbo say."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("fastelbo."):
            found |= methods(base)
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_stubs_declare_what_is_there(name):
    thing = PUBLIC[name]
    stubs = definitions(stub_of(thing.__module__).body, thing.__name__)
    assert stubs, f"{thing.__module__} has no stub of {thing.__name__}"
    if not inspect.isclass(thing):
        assert declared(stubs) == actual(thing)
    elif hasattr(thing, "_fields"):
        fields = [node.target.id for node in stubs[0].body if isinstance(node, ast.AnnAssign)]
        assert fields == list(thing._fields)
    else:
        assert with_inherited(declared_methods, thing) == with_inherited(actual_methods, thing)


def test_a_stub_that_rots_is_noticed():
    stubs = ast.parse("def f(a, /, b, *c, d, e=..., **g): ...\ndef f(a, /, b, *c, d, e, **g): ...")

    def same(a, /, b, *c, d, e=1, **g): ...

    def other(a, /, b, *c, e=1, d, **g): ...

    assert declared(stubs.body) == actual(same)
    assert declared(stubs.body) != actual(other)
    assert not definitions(stub_of("fastelbo.elbo").body, "no_such_function")
    of_vae = with_inherited(actual_methods, fastelbo.VAE)
    assert {"__init__", "fit", "load", "prior_", "get_params"} <= set(of_vae)
