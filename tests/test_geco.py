"""Geco."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

from fastelbo import Geco


def test_by_hand():
    geco = Geco(10.0, alpha=0.5, step=0.1, weight=2.0)
    assert geco.loss(3.0, 14.0) == 11.0
    assert geco.average is None
    assert geco.update(14.0) == pytest.approx(2 * math.exp(0.4))  # the average begins at 4
    assert geco.update(6.0) == pytest.approx(2 * math.exp(0.4))  # (4 - 4) / 2
    assert geco.update(4.0) == pytest.approx(2 * math.exp(0.4 - 0.3))
    assert (geco.average, geco.steps) == (-3.0, 3)
    assert geco.weight == pytest.approx(2 * math.exp(0.1))


def test_loss_is_of_rows_too():
    geco = Geco(1.0, weight=2.0)
    np.testing.assert_array_equal(geco.loss(np.array([1.0, 2.0]), np.array([3.0, 1.0])), [5.0, 2.0])


def test_it_finds_the_weight_of_a_constraint():
    """Of z**2 + lambda (d - kappa), d = (z - 3)**2, kappa = 1: z = 2 at lambda = 2."""
    geco, z = Geco(1.0, alpha=0.9, step=0.02), 0.0
    for _ in range(3000):
        z -= 0.01 * (2 * z + geco.weight * 2 * (z - 3))
        geco.update((z - 3) ** 2)
    assert z == pytest.approx(2.0, abs=1e-3)
    assert geco.weight == pytest.approx(2.0, abs=1e-2)


def test_bounds_hold():
    geco = Geco(0.0, step=10.0, bounds=(0.5, 8.0))
    assert geco.update(1e300) == 8.0
    assert geco.update(5.0) == 8.0
    assert Geco(0.0, step=10.0, bounds=(0.5, 8.0)).update(-1e300) == 0.5


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda geco: pickle.loads(pickle.dumps(geco)),
        lambda geco: restored(json.loads(json.dumps(geco.state_dict()))),
    ],
)
def test_it_goes_on_from_a_copy(copied):
    geco = Geco(2.0, step=0.1)
    for distortion in (5.0, 1.0):
        geco.update(distortion)
    other = copied(geco)
    assert other.state_dict() == geco.state_dict()
    assert other.update(3.0) == geco.update(3.0)


def restored(state):
    geco = Geco(2.0, step=0.1)
    geco.load_state_dict(state)
    return geco


def test_a_fresh_state_is_one():
    geco = Geco(2.0)
    geco.load_state_dict(Geco(3.0, weight=5.0).state_dict())
    assert (geco.weight, geco.average, geco.steps) == (5.0, None, 0)


def test_repr():
    geco = Geco(2, step=0.1)
    text = "Geco(2.0, alpha=0.99, step=0.1, weight=1.0, bounds=(1e-06, 1000000.0))"
    assert repr(geco) == repr(eval(text)) == text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kappa": "1"}, TypeError, "kappa must be a number"),
        ({"kappa": math.nan}, ValueError, "kappa must be finite"),
        ({"alpha": 1.0}, ValueError, r"alpha must be in \[0, 1\), got 1.0"),
        ({"alpha": -0.1}, ValueError, "alpha must be in"),
        ({"step": 0.0}, ValueError, "step must be positive"),
        ({"weight": -1.0}, ValueError, "weight must be positive"),
        ({"weight": 1e9}, ValueError, "weight must be within bounds"),
        ({"bounds": 3.0}, TypeError, "bounds must be two numbers"),
        ({"bounds": (2.0, 1.0)}, ValueError, "bounds must be in order"),
        ({"bounds": (0.0, 1.0)}, ValueError, "bounds must be positive"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        Geco(**{"kappa": 1.0, **options})


@pytest.mark.parametrize(
    ("distortion", "error"),
    [(math.nan, ValueError), (math.inf, ValueError), ([1.0], TypeError), (None, TypeError)],
)
def test_what_is_no_distortion_changes_nothing(distortion, error):
    geco = Geco(1.0)
    geco.update(2.0)
    before = geco.state_dict()
    with pytest.raises(error, match="distortion must be"):
        geco.update(distortion)
    assert geco.state_dict() == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda state: 3, TypeError, "state must be a mapping"),
        (lambda state: {"weight": 1.0}, ValueError, "state must have"),
        (lambda state: {**state, "odd": 1}, ValueError, "state must have"),
        (lambda state: {**state, "weight": -1.0}, ValueError, "weight must be positive"),
        (lambda state: {**state, "average": math.inf}, ValueError, "average must be finite"),
        (lambda state: {**state, "steps": -1}, ValueError, "steps must be at least 0"),
    ],
)
def test_what_is_no_state_changes_nothing(change, error, message):
    geco = Geco(1.0)
    geco.update(2.0)
    before = geco.state_dict()
    with pytest.raises(error, match=message):
        geco.load_state_dict(change({**before, "average": 7.0}))
    assert geco.state_dict() == before


def test_tensors():
    """lambda is a constant to gradients, and of the distortion only the number is read."""
    torch = pytest.importorskip("torch")
    geco = Geco(1.0, step=0.5, weight=3.0)
    distortion = torch.tensor(2.0, requires_grad=True)
    loss = geco.loss(torch.tensor(4.0), distortion)
    loss.backward()
    assert loss == 7.0
    assert distortion.grad == 3.0
    assert geco.update(distortion) == pytest.approx(3 * math.exp(0.5))
    with pytest.raises(TypeError, match="distortion must be a number"):
        geco.update(torch.zeros(2))
    other = Geco(1.0)
    other.load_state_dict(geco.state_dict())
    assert other.weight == geco.weight


@pytest.mark.parametrize("shape", [(), (1,)])
def test_geco_reads_a_tensor_of_one_element_in_bfloat16(shape):
    torch = pytest.importorskip("torch")
    expected = Geco(1.0).update(2.0)
    tensor = torch.full(shape, 2.0, dtype=torch.bfloat16)
    assert Geco(1.0).update(tensor) == expected
    with pytest.raises(TypeError, match="distortion must be a number"):
        Geco(1.0).update(torch.zeros(2))
