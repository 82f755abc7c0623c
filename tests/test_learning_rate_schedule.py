"""LearningRateSchedule, and VAE with a learning rate that changes."""

import math

import pytest

from fastelbo import VAE, BetaSchedule, LearningRateSchedule
from tests.test_vae import QUICK
from tests.test_vae import bars as bars


def test_by_hand():
    schedule = LearningRateSchedule(0.3, steps=12, warmup=3, stop=0.1)
    assert [schedule(step) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3], rel=1e-15)
    assert schedule(2) == schedule(3) == 0.3
    for step in range(3, 12):
        by_cosine = 0.1 + 0.2 * (1 + math.cos(math.pi * (step - 3) / 9)) / 2
        assert schedule(step) == pytest.approx(by_cosine, rel=1e-14)
    assert schedule(12) == schedule(10**9) == 0.1


def test_a_warm_up_alone_and_a_way_down_alone():
    assert LearningRateSchedule(1e-3, steps=4, warmup=3, stop=1e-3)(99) == 1e-3
    linear = LearningRateSchedule(1.0, steps=4, shape="linear")
    assert [linear(step) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_repr_is_the_call():
    schedule = LearningRateSchedule(0.5, steps=7, warmup=2, shape="sigmoid", stop=0.25)
    text = "LearningRateSchedule(0.5, steps=7, warmup=2, shape='sigmoid', stop=0.25)"
    assert repr(schedule) == text
    assert [eval(text)(step) for step in range(9)] == [schedule(step) for step in range(9)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": 0.0}, ValueError, "rate must be positive"),
        ({"rate": "fast"}, TypeError, "rate must be a number"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"warmup": -1}, ValueError, "warmup must be at least 0"),
        ({"warmup": 10}, ValueError, "warmup must be less than steps = 10, got 10"),
        ({"stop": -1.0}, ValueError, "stop must be finite and not negative"),
        ({"shape": "cosin"}, ValueError, "did you mean 'cosine'"),
    ],
)
def test_arguments_that_do_not_fit(options, error, message):
    options = {"rate": 1.0, "steps": 10, **options}
    with pytest.raises(error, match=message):
        LearningRateSchedule(options.pop("rate"), **options)


def test_vae_takes_the_rate_of_each_step(bars):
    """300 rows are 3 minibatches of 128: steps 0 to 8 in 3 epochs."""
    steps = []

    def rate(step):
        steps.append(step)
        return 1e-3

    assert VAE(**QUICK, learning_rate=rate).fit(bars).history_ == VAE(**QUICK).fit(bars).history_
    assert steps == list(range(9))
    for schedule in (BetaSchedule(steps=9), LearningRateSchedule(1e-3, steps=9)):
        changed = VAE(**QUICK, learning_rate=schedule).fit(bars)
        assert changed.history_ != VAE(**QUICK).fit(bars).history_


def test_it_is_saved(bars, tmp_path):
    schedule = LearningRateSchedule(1e-2, steps=30, warmup=5)
    model = VAE(**QUICK, learning_rate=schedule).fit(bars)
    model.save(tmp_path / "model.npz")
    other = VAE.load(tmp_path / "model.npz")
    assert repr(other.learning_rate) == repr(schedule)
    assert other.partial_fit(bars).history_ == model.partial_fit(bars).history_


@pytest.mark.parametrize("rate", [math.nan, -1.0, "fast"])
def test_a_rate_that_does_not_fit_names_its_step(bars, rate):
    with pytest.raises((ValueError, TypeError), match=r"learning_rate\(0\) must be"):
        VAE(**QUICK, learning_rate=lambda step: rate).fit(bars)
