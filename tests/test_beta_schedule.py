"""BetaSchedule, and VAE with a beta that changes."""

import copy
import math
import pickle

import numpy as np
import pytest

from fastelbo import VAE, BetaSchedule
from tests.test_vae import QUICK
from tests.test_vae import bars as bars

SHAPES = ("linear", "sigmoid", "cosine")


def test_by_hand():
    linear = BetaSchedule(start=0.5, stop=2.5, steps=8)
    assert [linear(step) for step in (0, 1, 4, 7, 8, 10**9)] == [0.5, 0.75, 1.5, 2.25, 2.5, 2.5]
    cosine = BetaSchedule("cosine", steps=6)
    np.testing.assert_allclose([cosine(s) for s in (0, 2, 3, 4)], [0, 0.25, 0.5, 0.75], atol=1e-15)
    sigmoid, logistic = (
        BetaSchedule("sigmoid", steps=12),
        [1 / (1 + math.exp(6 - s)) for s in range(13)],
    )
    expected = (np.array(logistic) - logistic[0]) / (logistic[12] - logistic[0])
    np.testing.assert_allclose([sigmoid(step) for step in range(13)], expected, atol=1e-15)


def test_cycles_are_those_of_fu():
    """Four cycles: up in the first half of each, at the top in the second."""
    schedule = BetaSchedule(steps=40, cycles=4, ratio=0.5)
    cycle = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose([schedule(step) for step in range(40)], 4 * cycle, atol=1e-15)
    assert schedule(40) == 1.0
    uneven = BetaSchedule(steps=10, cycles=3)
    np.testing.assert_allclose(uneven(5), 0.5)
    assert uneven(3) == pytest.approx(0.9)
    assert uneven(4) == pytest.approx(0.2)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_goes_from_start_to_stop(shape):
    for start, stop in ((0.0, 1.0), (4.0, 0.25)):
        schedule = BetaSchedule(shape, start=start, stop=stop, steps=99, ratio=0.7)
        values = np.array([schedule(step) for step in range(120)])
        assert values[0] == pytest.approx(start, abs=1e-15)
        assert (np.diff(values) * (stop - start) >= 0).all()
        assert (values[70:] == stop).all()
        assert values[69] != stop


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_are_the_same(copied):
    schedule = BetaSchedule("sigmoid", start=0.1, stop=2, steps=7, cycles=2, ratio=0.5)
    text = "BetaSchedule('sigmoid', start=0.1, stop=2.0, steps=7, cycles=2, ratio=0.5)"
    for same in (copied(schedule), eval(text)):
        assert repr(same) == text
        assert [same(step) for step in range(9)] == [schedule(step) for step in range(9)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shape": "linaer"}, ValueError, "did you mean 'linear'"),
        ({"shape": 3}, TypeError, "shape must be"),
        ({"start": -0.1}, ValueError, "start must be finite and not negative"),
        ({"stop": math.inf}, ValueError, "stop must be finite"),
        ({"stop": "1"}, TypeError, "stop must be a number"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 1.5}, TypeError, "steps must be an int"),
        ({"cycles": 0}, ValueError, "cycles must be at least 1"),
        ({"cycles": 11}, ValueError, "cycles must be at most steps = 10"),
        ({"ratio": 0.0}, ValueError, r"ratio must be in \(0, 1\]"),
        ({"ratio": 1.5}, ValueError, r"ratio must be in \(0, 1\]"),
        ({"ratio": math.nan}, ValueError, r"ratio must be in \(0, 1\]"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        BetaSchedule(**{"steps": 10, **options})


@pytest.mark.parametrize(
    ("step", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_bad_steps(step, error):
    with pytest.raises(error, match="step must be"):
        BetaSchedule(steps=10)(step)


# In a VAE ---------------------------------------------------------------------------------------


def test_steps_of_a_vae_are_the_optimizers(bars):
    """From 0 in fit, and on in partial_fit; a constant function is that constant."""
    seen = []

    def beta(step):
        seen.append(step)
        return 0.25

    model = VAE(**{**QUICK, "beta": beta}).fit(bars)
    steps = -(-len(bars) // model.batch_size)
    assert seen == list(range(3 * steps))
    model.partial_fit(bars)
    assert seen[-1] == 4 * steps - 1
    constant = VAE(**{**QUICK, "beta": 0.25}).fit(bars).partial_fit(bars)
    assert constant.history_ == model.history_
    np.testing.assert_array_equal(constant.transform(bars), model.transform(bars))
    model.fit(bars)
    assert seen[4 * steps] == 0


def test_history_has_beta(bars):
    schedule = BetaSchedule(stop=2.0, steps=6)
    model = VAE(**{**QUICK, "beta": schedule, "batch_size": 150}).fit(bars)  # two steps an epoch
    assert model.history_["beta"] == [schedule(step) for step in (1, 3, 5)]
    for elbo, reconstruction, kl, beta, _ in zip(*model.history_.values(), strict=True):
        before = beta - 1 / 3
        assert reconstruction - beta * kl <= elbo <= reconstruction - before * kl


def test_save_keeps_a_schedule(bars, tmp_path):
    model = VAE(**{**QUICK, "beta": BetaSchedule("cosine", steps=40, cycles=2)}).fit(bars)
    model.save(tmp_path / "model.npz")
    other = VAE.load(tmp_path / "model.npz")
    assert repr(other) == repr(model)
    assert other.history_ == model.history_
    assert model.partial_fit(bars).history_ == other.partial_fit(bars).history_


def test_save_says_what_it_does_not_keep(bars, tmp_path):
    model = VAE(**{**QUICK, "beta": lambda step: 1.0}).fit(bars)
    with pytest.raises(TypeError, match=r"no function as parameters\.beta.*by set_params"):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())
    model.set_params(beta=1.0).save(tmp_path / "model.npz")
    assert VAE.load(tmp_path / "model.npz").history_ == model.history_


def test_scikit_learn_clones_it():
    base = pytest.importorskip("sklearn.base")
    model = VAE(beta=BetaSchedule(steps=5))
    assert repr(base.clone(model)) == repr(model)


@pytest.mark.parametrize(
    ("beta", "error", "message"),
    [
        (lambda step: -1.0, ValueError, r"beta\(0\) must be finite and not negative"),
        (lambda step: math.nan if step else 1.0, ValueError, r"beta\(1\) must be finite"),
        (lambda step: None, TypeError, r"beta\(0\) must be a number"),
    ],
)
def test_bad_schedules(bars, beta, error, message):
    with pytest.raises(error, match=message):
        VAE(**{**QUICK, "beta": beta}).fit(bars)
