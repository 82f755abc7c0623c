"""Schedules: what the KL weighs at each step of training, and how long the step is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, SupportsIndex

from fastelbo._arguments import as_number, as_whole, check_choice, positive_number
from fastelbo._parameters import Settings

if TYPE_CHECKING:
    from fastelbo._typing import Number


def _sigmoid(t):
    return 0.5 * (1.0 + math.tanh(6.0 * t - 3.0) / math.tanh(3.0))


#: From 0 at 0 to 1 at 1; the sigmoid is the logistic function on [-6, 6], its ends made exact.
SHAPES = {
    "linear": lambda t: t,
    "sigmoid": _sigmoid,
    "cosine": lambda t: 0.5 * (1.0 - math.cos(math.pi * t)),
}


class BetaSchedule(Settings):
    """The weight of the KL as a function of the step: annealing against posterior collapse.

    beta goes from `start` to `stop` and stays there: once [1]_, or in several cycles [2]_, each of
    which begins at `start` again. In cycles of c = steps / cycles steps, with
    r = (step mod c) / (ratio c), it is start + (stop - start) f(r) while r < 1, and `stop` from
    there to the end of the cycle, and from step `steps` on. f(r) is r for ``"linear"``,
    (1 - cos(pi r)) / 2 for ``"cosine"``, and for ``"sigmoid"`` the logistic function of 12 r - 6,
    scaled to go from 0 to 1.

    It is a plain callable: hand it to :class:`~fastelbo.VAE` as `beta`, or call it in a loop of
    your own, ``loss.beta = schedule(step)`` say. The step is what the caller counts; ``VAE`` counts
    steps of the optimizer, one a minibatch, from 0.

    Parameters
    ----------
    shape : {"linear", "sigmoid", "cosine"}, optional
    start, stop : float, optional
        At least 0. `start` may be the larger one.
    steps : int
        After how many steps beta stays at `stop`.
    cycles : int, optional
        1 is a warm-up. Cyclical annealing has 4 and a `ratio` of 0.5 in [2]_.
    ratio : float, optional
        The part of each cycle in which beta changes, in (0, 1].

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.

    References
    ----------
    .. [1] Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio. Generating sentences from a continuous
       space. CoNLL 2016.
    .. [2] Fu, Li, Liu, Gao, Celikyilmaz, Carin. Cyclical annealing schedule: a simple approach to
       mitigating KL vanishing. NAACL 2019.

    See Also
    --------
    fastelbo.FreeBits : a floor under the KL, instead.
    fastelbo.LearningRateSchedule : of the optimizer's step.

    Examples
    --------
    >>> import fastelbo
    >>> schedule = fastelbo.BetaSchedule(steps=100)
    >>> [schedule(step) for step in (0, 50, 100, 1000)]
    [0.0, 0.5, 1.0, 1.0]
    >>> cyclical = fastelbo.BetaSchedule("cosine", steps=100, cycles=2, ratio=0.5)
    >>> [round(cyclical(step), 3) for step in (0, 5, 25, 49, 50, 55)]
    [0.0, 0.095, 1.0, 1.0, 0.0, 0.095]
    """

    def __init__(
        self,
        shape: Literal["linear", "sigmoid", "cosine"] = "linear",
        *,
        start: Number = 0.0,
        stop: Number = 1.0,
        steps: SupportsIndex,
        cycles: SupportsIndex = 1,
        ratio: Number = 1.0,
    ) -> None:
        check_choice(shape, "shape", tuple(SHAPES))
        self.shape = shape
        self.start = as_number(start, "start", 0)
        self.stop = as_number(stop, "stop", 0)
        self.steps = as_whole(steps, "steps", 1)
        self.cycles = as_whole(cycles, "cycles", 1)
        self.ratio = as_number(ratio, "ratio")
        if self.cycles > self.steps:
            raise ValueError(f"cycles must be at most steps = {self.steps}, got {self.cycles}")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")

    def __call__(self, step: Number) -> float:
        """beta at a step, the first of which is 0.

        Parameters
        ----------
        step : int or float
            At least 0.

        Returns
        -------
        float
        """
        step = as_number(step, "step", 0)
        if step >= self.steps:
            return self.stop
        cycle = step * self.cycles / self.steps % 1.0
        if cycle >= self.ratio:
            return self.stop
        return self.start + (self.stop - self.start) * SHAPES[self.shape](cycle / self.ratio)

    def __repr__(self) -> str:
        return (
            f"BetaSchedule({self.shape!r}, start={self.start}, stop={self.stop}, "
            f"steps={self.steps}, cycles={self.cycles}, ratio={self.ratio})"
        )


class LearningRateSchedule(Settings):
    """The learning rate as a function of the step: a warm-up, and a way down [1]_.

    It rises linearly to `rate` within `warmup` steps, (step + 1) / warmup of it at first, and goes
    from there to `stop`, where it is from step `steps` on.

    It is a plain callable: hand it to :class:`~fastelbo.VAE` as `learning_rate`, or call it in a
    loop of your own. ``VAE`` counts steps of the optimizer, one a minibatch, from 0: N rows are
    ``math.ceil(N / batch_size)`` of them an epoch.

    Parameters
    ----------
    rate : float
        The largest, positive.
    steps : int
        After how many steps it stays at `stop`; more than `warmup`.
    warmup : int, optional
        Steps of the rise.
    shape : {"cosine", "linear", "sigmoid"}, optional
        Of the way down, as in :class:`~fastelbo.BetaSchedule`.
    stop : float, optional
        At least 0.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.

    References
    ----------
    .. [1] Loshchilov, Hutter. SGDR: stochastic gradient descent with warm restarts. ICLR 2017.

    Examples
    --------
    >>> import fastelbo
    >>> schedule = fastelbo.LearningRateSchedule(0.01, steps=100, warmup=10)
    >>> [round(schedule(step), 5) for step in (0, 4, 9, 10, 55, 100, 1000)]
    [0.001, 0.005, 0.01, 0.01, 0.005, 0.0, 0.0]
    """

    def __init__(
        self,
        rate: Number,
        *,
        steps: SupportsIndex,
        warmup: SupportsIndex = 0,
        shape: Literal["cosine", "linear", "sigmoid"] = "cosine",
        stop: Number = 0.0,
    ) -> None:
        self.rate = positive_number(rate, "rate")
        self.steps = as_whole(steps, "steps", 1)
        self.warmup = as_whole(warmup, "warmup", 0)
        self.stop = as_number(stop, "stop", 0)
        if self.warmup >= self.steps:
            raise ValueError(f"warmup must be less than steps = {self.steps}, got {self.warmup}")
        self.shape = shape
        way = {"start": self.rate, "stop": self.stop, "steps": self.steps - self.warmup}
        self._down = BetaSchedule(shape, **way)

    def __call__(self, step: Number) -> float:
        """The learning rate at a step, the first of which is 0.

        Parameters
        ----------
        step : int or float
            At least 0.

        Returns
        -------
        float
        """
        step = as_number(step, "step", 0)
        if step < self.warmup:
            return min(step + 1, self.warmup) / self.warmup * self.rate
        return self._down(step - self.warmup)

    def __repr__(self) -> str:
        return (
            f"LearningRateSchedule({self.rate}, steps={self.steps}, warmup={self.warmup}, "
            f"shape={self.shape!r}, stop={self.stop})"
        )
