"""Arguments that are no arrays: whatever takes one of a kind refuses what is none, by its name."""

import inspect

import numpy as np
import pytest

import fastelbo
from fastelbo._catalogue import CASES, VARIANTS


class Sparse:
    """As a matrix of SciPy's to those who look only for its method."""

    def toarray(self):
        raise NotImplementedError


class Wanting:
    """As a tensor that requires a gradient."""

    requires_grad = True


class Says:
    """A prior that returns whatever it is given to return."""

    def __init__(self, result):
        self.result = result

    def log_prob(self, z):
        return self.result

    log_prob_and_grad = log_prob


WORDS = ("odd", 3, np.zeros(3), ["mean"], b"mean")
NO_NUMBERS = ("4", True, [1.0], np.zeros(3), 1j, None, object())
WEIGHTS = (*NO_NUMBERS, -1, np.nan, np.inf)
FLAGS = ("yes", 1, np.zeros(2), None)
NO_PRIORS = ("vamp", fastelbo.VampPrior, 3, np.zeros(2))
SAID = tuple(map(Says, ("a", None, np.zeros((7, 7)), 1j, (np.zeros(2), "a"))))

#: What is wrong as an argument of that name, whoever takes it.
WRONG = {
    "reduction": (*WORDS, None),
    "method": (*WORDS, None),
    "mss": (*WORDS, None),
    "kernel": (*WORDS, None),
    "estimator": (*WORDS, None),
    "baseline": (*WORDS, None),
    "missing": WORDS,
    "granularity": (*WORDS, None),
    "below": (*WORDS, None),
    "beta": WEIGHTS,
    "gamma": WEIGHTS,
    "alpha": NO_NUMBERS,
    "n": NO_NUMBERS,
    "free_bits": WEIGHTS,
    "threshold": WEIGHTS,
    "x_scale": (*WEIGHTS, 0),
    "bins": (*WEIGHTS, 1, 2.5),
    "dataset_size": (0, 1.5, "9", True, None, 1),
    "samples": (0, 1.5, "9", True, 1 << 62, 1 << 70),
    "num_threads": (0, 1.5, "9", True),
    "rng": ("a", True, -1, 1.5, 1 << 64, np.random.RandomState(0)),
    "noise": ("a", 3, np.zeros((97, 89)), Sparse(), Wanting()),
    "mask": ("a", 1, 1.0, [[True], [True, False]], np.ones(7), np.ones((97, 89), bool), Sparse()),
    "likelihood": ("bernouli", fastelbo.Bernoulli, 3, None),
    "prior": NO_PRIORS,
    "validate": FLAGS,
    "normalize": FLAGS,
    "log_input": FLAGS,
}
NOT_TAKEN = ("unexpected keyword argument", "multiple values for")


def refuses(name, call, argument, value):
    """Whether a call takes the argument; fails unless it refuses the value and says whose it is."""
    try:
        call(**{argument: value})
    except (TypeError, ValueError) as error:
        if any(words in str(error) for words in NOT_TAKEN):
            return False
        said = str(error)
    else:
        said = "accepted"
    if argument not in said:
        pytest.fail(f"{name} with {argument} = {value!r}: {said}")
    return True


def takers(argument):
    """(name, call) of what takes it: cases of the catalogue, by what they say, and classes."""
    for name, case in CASES.items():
        arrays = case.draw(0)
        if argument in arrays or f"[{argument}]" in name:
            continue  # what the case itself gives
        drawn = argument == "prior" and name.startswith("elbo") and "noise" not in arrays
        options = {"rng": 0} if drawn else {}

        def call(case=case, arrays=arrays, options=options, **argument):
            return case.public(*arrays.values(), **options, **argument)

        yield name, call
    for name, variant in VARIANTS.items():
        likelihood = variant.make(fastelbo)
        kind = type(likelihood)
        own = {p: getattr(likelihood, p) for p in inspect.signature(kind).parameters}
        if argument in own:
            yield name, lambda kind=kind, own=own, **argument: kind(**{**own, **argument})
    for kind in (fastelbo.FreeBits, fastelbo.StreamingBound):
        if argument in inspect.signature(kind).parameters:
            own = {"threshold": 0.5} if kind is fastelbo.FreeBits else {}
            yield kind.__name__, lambda kind=kind, own=own, **argument: kind(**{**own, **argument})


#: Numbers of these names are arrays to some, which say so themselves.
ARRAYS = {"BetaBinomial": ("alpha", "beta")}


@pytest.mark.parametrize("argument", WRONG)
def test_what_takes_it_refuses_what_is_none(argument):
    found = set()
    for name, call in takers(argument):
        if argument in ARRAYS.get(name.removesuffix("_and_grad"), ()):
            continue
        for value in WRONG[argument]:
            if not refuses(name, call, argument, value):
                break
            found.add(name)
    assert found
