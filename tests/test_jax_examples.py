"""Examples that need JAX: what fastelbo computes in them is what is replaced."""

import re

import pytest

from tests.example_scripts import output

pytest.importorskip("jax")


def numbers(text, pattern):
    return [float(number) for number in re.findall(pattern, text)]


def test_a_factor_reaches_the_elbo_of_distributions():
    text = output("numpyro_factor", "--quick")
    own, factor = (numbers(line, r"(-?\d+\.\d+)") for line in text.splitlines())
    assert factor == pytest.approx(own, rel=1e-4)
    assert own[0] + 200 < own[1] < own[2] < 0


def test_either_loss_trains_alike():
    text = output("jax_training", "--quick")
    lines = [numbers(line, r"-?\d+\.\d+") for line in text.splitlines() if "ELBO" in line]
    for plain, fast in (lines[:2], lines[2:]):
        assert fast[:2] == pytest.approx(plain[:2], rel=1e-4)
        assert 1.2 * plain[1] > plain[0]
        assert min(fast[2:]) > 0
