"""The catalogue's cases as fastelbo.torch has them: with which tensors, which of them constant."""

import functools
import inspect
from dataclasses import dataclass

import numpy as np
import pytest

from fastelbo._catalogue import REDUCTIONS as REDUCTIONS
from fastelbo._catalogue import ROWS, flatten
from fastelbo._catalogue import Case as Catalogued
from tests.conftest import together

torch = pytest.importorskip("torch")

flat = flatten
EXTENTS = {"B": 4, "D": (7,), "L": 3, "K": 2}
#: Where every element is moved, or has a gradient of its own.
FEW = {"B": 3, "D": (3,), "L": 2}


@dataclass(frozen=True)
class Case:
    """A case of the catalogue, one way to call it with further options, and its tensors."""

    name: str
    of: Catalogued
    options_of_it: dict

    @property
    def has_reduction(self):
        return self.of.has_reduction

    @property
    def constants(self):
        return self.of.constants

    @property
    def draws_noise(self):
        return self.of.draws_noise

    def call(self, module, *tensors, **options):
        return self.of.call(module, *tensors, **{**self.options_of_it, **options})

    def draw(self, dtype=torch.float64, requires_grad=True, seed=0, **extents):
        """Tensors to call it with, by name."""
        return {
            name: torch.tensor(a, dtype=None if a.dtype.kind == "b" else dtype).requires_grad_(
                requires_grad and name not in self.constants
            )
            for name, a in self.of.draw(seed, **{**EXTENTS, **extents}).items()
        }

    def options(self, reduction):
        return {"reduction": reduction} if self.has_reduction else {}


def _cases():
    for row in ROWS.values():
        for case in row.cases if not row.untwinned else ():
            if case.gives_gradients or not case.twinned:
                continue
            yield Case(case.name, case, {})
            for options in case.options:
                if "num_threads" not in options and "reduction" not in options:
                    yield Case(f"{case.name}{list(options.values())}", case, options)


CASES = list(_cases())
CASE_BY_NAME = {case.name: case for case in CASES}
#: The variants of likelihoods.
LIKELIHOODS = [case.of.likelihood for case in CASES if case.of.likelihood]


def each(cases, reductions=REDUCTIONS, *, in_turn=False):
    """Has a test go through cases, an item each, with every reduction; in turn: one of them."""
    rows = []
    for i, c in enumerate(cases):
        own = reductions if c.has_reduction else reductions[:1]
        rows.append(pytest.param(c, [own[i % len(own)]] if in_turn else own, id=c.name))

    def decorate(test):
        @functools.wraps(test)
        def through_all(reductions, **given):
            together(reduction=reductions)(test)(**given)

        parameters = inspect.signature(test).parameters.values()
        renamed = [p.replace(name="reductions") if p.name == "reduction" else p for p in parameters]
        through_all.__signature__ = inspect.Signature(renamed)
        return pytest.mark.parametrize(("case", "reductions"), rows)(through_all)

    return decorate


def weighted(result, seed=1):
    """A number that depends on every value of a result, with weights of its own for each."""
    rng = np.random.default_rng(seed)
    return sum((torch.tensor(rng.normal(size=t.shape)).to(t.dtype) * t).sum() for t in flat(result))
