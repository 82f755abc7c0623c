"""The estimators of examples/gradient_estimators.py against exact gradients."""

import importlib.util

import numpy as np
import pytest

from tests.example_scripts import FOLDER


@pytest.fixture(scope="module")
def found():
    path = FOLDER / "gradient_estimators.py"
    spec = importlib.util.spec_from_file_location("gradient_estimators", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {(e.problem, e.name): e for e in module.estimates(100_000, 5)}


def test_unbiased_ones_are_within_their_standard_error(found):
    for e in found.values():
        if e.unbiased:
            assert (np.abs(e.bias) < 4 * e.standard_error).all(), e.name


def test_relaxed_ones_are_not(found):
    for name in ("Gumbel-softmax", "straight-through"):
        e = found["class", name]
        assert (np.abs(e.bias) > 8 * e.standard_error).any(), name


def test_baselines_and_reparameterization_have_less_variance(found):
    variance = {key: e.variance for key, e in found.items()}
    for problem in ("class", "number"):
        assert variance[problem, "REINFORCE, baseline"] < variance[problem, "REINFORCE"]
    through = variance["number", "reparameterization"]
    assert through < variance["number", "REINFORCE, baseline"]
