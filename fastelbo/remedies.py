"""Against posterior collapse: posteriors that cannot, a KL with a target, a constraint instead."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_number, as_whole, check_choice, positive_number, weighed
from fastelbo.divergences import (
    GaussianGrad,
    kl_standard_normal,
    kl_standard_normal_and_grad,
    weigh,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from fastelbo._typing import FloatArray, Number, Out, Threads

#: Values of `delta` for which all that is computed in float32, derivatives too, is a number.
LEAST_DELTA, MOST_DELTA = 1e-30, 1e6
#: By so many units of rounding the KL is larger than it need be, that no rounding makes it less.
MARGIN = 8
TARGETS = ("mean", "sample")


# delta-VAE --------------------------------------------------------------------------------------


class Committed(NamedTuple):
    """Between which log variances a KL of delta leaves room for a mean; and the room at most and
    at least, for rounding: squares of means."""

    low: float
    high: float
    most: float
    least: float


def as_delta(delta):
    """A Python float that `committed` takes."""
    delta = as_number(delta, "delta")
    if not LEAST_DELTA <= delta <= MOST_DELTA:
        raise ValueError(f"delta must lie in [{LEAST_DELTA}, {MOST_DELTA}], got {delta}")
    return delta


@functools.lru_cache(64)
def committed(delta, eps):
    """What delta means in a dtype with this unit of rounding.

    The roots are those of KL(N(0, e^logvar) || N(0, 1)) = delta: ln s - s + 2 delta + 1 = 0 for the
    variance s. By Newton's method from outside, where the KL is convex and nothing cancels.
    """
    width = 2.0 * (delta + math.sqrt(delta))
    roots = np.array([[-width], [math.log1p(width)]])
    for _ in range(20):
        kl, grad = kl_standard_normal_and_grad(np.zeros((2, 1)), roots, reduction="none")
        roots -= (kl[:, None] - delta) / grad.logvar
    low, high = map(float, roots[:, 0])
    return Committed(low, high, 2.0 * delta * (1.0 + MARGIN * eps), 2.0 * delta * eps)


@np.errstate(all="ignore")  # overflow and NaN pass through
def _delta_parts(mu, logvar, delta, num_threads):
    """(limits, product of their shares, log variance, what KL is left for the mean, its square)."""
    limits = committed(delta, float(np.finfo(mu.dtype).eps))
    of_low, of_high = 1.0 / (1.0 + np.exp(logvar)), 1.0 / (1.0 + np.exp(-logvar))
    between = limits.low * of_low + limits.high * of_high
    room = np.empty(between.shape)
    if room.size:
        elements = between[..., None]  # latents of one dimension
        nothing = np.zeros_like(elements)
        kl = kl_standard_normal(nothing, elements, reduction="none", num_threads=num_threads)
        room = limits.most - 2.0 * kl
    room = np.maximum(room, limits.least)
    return limits, of_low * of_high, between, room, room + np.maximum(mu, 0)


def delta_posterior(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    delta: Number,
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> tuple[FloatArray, FloatArray]:
    """Posteriors whose KL to N(0, I) is at least delta in each dimension, whatever is given [1]_.

    Between what an encoder gives, which may be anything, and what samples are drawn from: the
    posterior cannot collapse. With l and h the logarithms of the two roots of
    ln s - s + 2 delta + 1 = 0, and r the logistic function of what is given,

    - logvar: l (1 - r(logvar)) + h r(logvar), between the roots
    - mu: sqrt(2 delta + 1 + logvar' - e^logvar' + max(0, mu)), with that logvar'

    so that the KL is delta + max(0, mu) / 2. Without the square root, as it is sometimes written,
    it falls below delta. The paper has the standard deviation between its limits; here it is the
    log variance, which is what encoders give. KL >= delta holds for the numbers as they are
    rounded: the KL aims higher by 8 units of rounding.

    Parameters
    ----------
    mu, logvar : array_like, shape (B, L)
        What the encoder gives: any numbers. NaN stays NaN.
    delta : float
        In nats a dimension, from 1e-30 to 1e6.
    out : tuple (mu, logvar), optional
        Where to write the result.
    num_threads : int, optional

    Returns
    -------
    mu, logvar : ndarray, shape (B, L)
        Of the posterior, for :func:`~fastelbo.reparameterize_kl` and all else.

    Raises
    ------
    ValueError, TypeError
        If shapes differ, the batch is empty, or delta is no such number.

    References
    ----------
    .. [1] Razavi, van den Oord, Poole, Vinyals. Preventing posterior collapse with delta-VAEs.
       ICLR 2019.

    See Also
    --------
    delta_posterior_backward : the way back.

    Examples
    --------
    >>> import fastelbo
    >>> mu, logvar = fastelbo.delta_posterior([[-5.0, 0.0, 3.0]], [[0.0, 40.0, -40.0]], delta=0.5)
    >>> kl = [fastelbo.kl_standard_normal(mu[:, [i]], logvar[:, [i]]) for i in range(3)]
    >>> [round(value, 6) for value in kl]
    [0.5, 0.5, 2.0]
    """
    delta = as_delta(delta)
    given = (mu, logvar)
    mu, logvar = _arrays.latents(mu, logvar)
    single = mu.dtype.itemsize == 4
    out = _arrays.checked_outs(out, (mu.shape,) * 2, single, given, GaussianGrad._fields)
    _, _, between, _, square = _delta_parts(mu, logvar, delta, num_threads)
    with np.errstate(all="ignore"):
        out[0][...] = np.sqrt(square)
    out[1][...] = between
    return out


def delta_posterior_backward(
    grad_mu: ArrayLike,
    grad_logvar: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    delta: Number,
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> GaussianGrad:
    """Gradients of what the encoder gave from those of the posterior: the way back.

    Parameters
    ----------
    grad_mu, grad_logvar : array_like, shape (B, L)
        Of an objective by what :func:`delta_posterior` returned.
    mu, logvar, delta, num_threads
        As there.
    out : tuple (mu, logvar), optional
        Where to write the gradients.

    Returns
    -------
    GaussianGrad
        ``mu`` and ``logvar``, each (B, L). That of mu is zero where mu is not positive.

    Raises
    ------
    ValueError, TypeError
        As :func:`delta_posterior`.

    Examples
    --------
    >>> import fastelbo
    >>> grad = fastelbo.delta_posterior_backward([[1.0]], [[0.0]], [[3.0]], [[0.0]], delta=0.5)
    >>> grad.mu.round(4), grad.logvar.round(4)
    (array([[0.2517]]), array([[0.0552]]))
    """
    delta = as_delta(delta)
    given = (grad_mu, grad_logvar, mu, logvar)
    mu, logvar = _arrays.latents(mu, logvar)
    single = mu.dtype.itemsize == 4
    upstream = []
    for name, grad in (("grad_mu", grad_mu), ("grad_logvar", grad_logvar)):
        grad = _arrays.in_dtype(_arrays.as_floats(grad, name), single)
        if grad.shape != mu.shape:
            raise _arrays.shape_error(name, grad.shape, f"that of mu, {mu.shape}")
        upstream.append(grad)
    grad_mu, grad_logvar = upstream
    out = _arrays.checked_outs(out, (mu.shape,) * 2, single, given, GaussianGrad._fields)
    limits, slope, between, room, square = _delta_parts(mu, logvar, delta, num_threads)
    slope *= limits.high - limits.low
    with np.errstate(all="ignore"):
        by_square = grad_mu / (2.0 * np.sqrt(square))
        by_room = np.where(room > limits.least, by_square, 0.0)
        out[0][...] = np.where(mu <= 0, 0.0, by_square)
        out[1][...] = slope * (grad_logvar - np.expm1(between) * by_room)
    return GaussianGrad(*out)


# Capacity ---------------------------------------------------------------------------------------


def _capacity(mu, logvar, target, gamma, of, num_threads, out=None, with_gradient=False):
    check_choice(of, "of", TARGETS)
    target, gamma = as_number(target, "target", 0), as_number(gamma, "gamma", 0)
    reduction = "none" if of == "sample" else "mean"
    options = {"reduction": reduction, "num_threads": num_threads}
    if with_gradient:
        kl, gradients = kl_standard_normal_and_grad(mu, logvar, out=out, **options)
    else:
        kl = kl_standard_normal(mu, logvar, **options)
    with np.errstate(all="ignore"):
        distance = float(np.mean(np.abs(kl - target)))
        value = weighed(gamma, distance)
        if not with_gradient:
            return value
        weight = np.sign(kl - target) / np.size(kl)
        weigh(gradients, gamma, np.reshape(weight, (-1, 1)))
    return value, gradients


def capacity(
    mu: ArrayLike,
    logvar: ArrayLike,
    target: Number,
    *,
    gamma: Number = 1000.0,
    of: Literal["mean", "sample"] = "mean",
    num_threads: Threads = None,
) -> float:
    """``gamma |KL - C|``, which takes the place of the KL in a loss: a KL with a target [1]_.

    Below C it pays to use the latents. In the paper C grows during training, which a
    :class:`~fastelbo.BetaSchedule` does: ``capacity(mu, logvar, schedule(step))``.

    Parameters
    ----------
    mu, logvar : array_like, shape (B, L)
    target : float
        C >= 0, in nats, of the sum over latent dimensions.
    gamma : float, optional
        Weight, at least 0; by default the paper's. With 0 an infinite KL counts nothing, either.
    of : {"mean", "sample"}
        ``"mean"``: ``gamma |mean KL - C|``, of the batch. ``"sample"``: the mean of
        ``gamma |KL - C|`` over its samples.
    num_threads : int, optional

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError
        If shapes differ, the batch is empty, or an option does not fit.

    References
    ----------
    .. [1] Burgess, Higgins, Pal, Matthey, Watters, Desjardins, Lerchner. Understanding
       disentangling in beta-VAE. 2018.

    Examples
    --------
    >>> import fastelbo
    >>> mu, logvar = [[2.0], [0.0]], [[0.0], [0.0]]  # KL 2 and 0
    >>> fastelbo.capacity(mu, logvar, 1.5, gamma=10.0)
    5.0
    >>> fastelbo.capacity(mu, logvar, 1.5, gamma=10.0, of="sample")
    10.0
    """
    return _capacity(mu, logvar, target, gamma, of, num_threads)


def capacity_and_grad(
    mu: ArrayLike,
    logvar: ArrayLike,
    target: Number,
    *,
    gamma: Number = 1000.0,
    of: Literal["mean", "sample"] = "mean",
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> tuple[float, GaussianGrad]:
    """:func:`capacity` and its gradients.

    Parameters
    ----------
    mu, logvar, target, gamma, of, num_threads
        As in :func:`capacity`.
    out : tuple (mu, logvar), optional
        Where to write the gradients.

    Returns
    -------
    value : float
    gradients : GaussianGrad
        ``mu`` and ``logvar``, each (B, L): of the value itself, which is to be descended.

    Raises
    ------
    ValueError, TypeError
        As :func:`capacity`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.capacity_and_grad([[2.0]], [[0.0]], 3.0, gamma=10.0)
    >>> value, grad.mu
    (10.0, array([[-20.]]))
    """
    return _capacity(mu, logvar, target, gamma, of, num_threads, out, True)


# GECO -------------------------------------------------------------------------------------------


class Geco:
    """The weight lambda of a constraint on the distortion, found in training: GECO [1]_.

    Minimise KL + lambda (D - kappa), where D = -E[log p(x|z)] is the distortion of a minibatch and
    kappa what is asked for. lambda grows while a moving average of the constraint D - kappa is
    positive, and falls when reconstructions are better than asked for. The smaller kappa, the
    further from collapse::

        loss = geco.loss(kl, distortion)  # of a minibatch, to be descended
        geco.update(distortion)  # after the step

    Parameters
    ----------
    kappa : float
        The distortion to be reached, in the units of D. Densities have negative ones.
    alpha : float, optional
        What a moving average keeps at each step, in [0, 1).
    step : float, optional
        lambda is multiplied by exp(step * average) at each step. Positive; the larger the
        distortions, the smaller it should be.
    weight : float, optional
        lambda at first, positive.
    bounds : tuple of float, optional
        Between which lambda stays, so that a constraint that cannot be met ends somewhere.

    Attributes
    ----------
    weight : float
        lambda as it stands.
    average : float or None
        The moving average; None before the first update, whose constraint it begins with.
    steps : int
        Updates so far.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.

    References
    ----------
    .. [1] Rezende, Viola. Taming VAEs. 2018.

    Examples
    --------
    >>> import fastelbo
    >>> geco = fastelbo.Geco(20.0, step=0.1)
    >>> geco.loss(kl=3.0, distortion=25.0)
    8.0
    >>> round(geco.update(25.0), 4)
    1.6487
    >>> restored = fastelbo.Geco(20.0, step=0.1)
    >>> restored.load_state_dict(geco.state_dict())
    >>> restored.update(25.0) == geco.update(25.0)
    True
    """

    def __init__(
        self,
        kappa: Number,
        *,
        alpha: Number = 0.99,
        step: Number = 1e-2,
        weight: Number = 1.0,
        bounds: tuple[Number, Number] = (1e-6, 1e6),
    ) -> None:
        self.kappa = as_number(kappa, "kappa")
        if not math.isfinite(self.kappa):
            raise ValueError(f"kappa must be finite, got {self.kappa}")
        self.alpha = as_number(alpha, "alpha")
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha must be in [0, 1), got {self.alpha}")
        self.step = positive_number(step, "step")
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise TypeError(f"bounds must be two numbers, got {bounds!r}")
        low, high = (positive_number(bound, "bounds") for bound in bounds)
        if low > high:
            raise ValueError(f"bounds must be in order, got {bounds!r}")
        self.bounds = (low, high)
        self._set(weight, None, 0)

    def _set(self, weight, average, steps):
        """Take a state, or complain and leave things as they are."""
        weight = positive_number(weight, "weight")
        if not self.bounds[0] <= weight <= self.bounds[1]:
            raise ValueError(f"weight must be within bounds {self.bounds}, got {weight}")
        self.weight, self.average, self.steps = weight, average, steps

    def loss(self, kl: Any, distortion: Any) -> Any:
        """KL + lambda (distortion - kappa), of numbers, arrays or tensors; changes no state.

        Parameters
        ----------
        kl, distortion : float, ndarray or Tensor
            Of a minibatch, or of each sample.

        Returns
        -------
        float, ndarray or Tensor
            lambda is a constant to gradients.
        """
        return kl + self.weight * (distortion - self.kappa)

    def update(self, distortion: Any) -> float:
        """Take the distortion of a minibatch into account; returns the new lambda.

        Parameters
        ----------
        distortion : float or Tensor of one element
            Its mean over the minibatch. Of a tensor only the number is read.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            If it is no finite number; nothing has changed then.
        """
        if hasattr(distortion, "detach"):
            distortion = distortion.detach().cpu().double().numpy()
            distortion = distortion.reshape(()) if distortion.size == 1 else distortion
        constraint = as_number(distortion, "distortion") - self.kappa
        if not math.isfinite(constraint):
            raise ValueError(f"distortion must be finite, got {distortion}")
        average = constraint
        if self.average is not None:
            average = self.alpha * self.average + (1.0 - self.alpha) * constraint
        low, high = self.bounds
        weight = math.exp(min(math.log(self.weight) + self.step * average, 709.0))  # no overflow
        self._set(min(max(weight, low), high), average, self.steps + 1)
        return self.weight

    def state_dict(self) -> dict[str, Any]:
        """What `update` changes, as numbers that JSON and ``torch.save`` keep."""
        return {"weight": self.weight, "average": self.average, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`.

        Parameters
        ----------
        state : mapping

        Raises
        ------
        ValueError, TypeError
            If it is none; nothing has changed then.
        """
        try:
            found = dict(state)
        except (TypeError, ValueError):
            raise TypeError(f"state must be a mapping, got {type(state).__name__}") from None
        if set(found) != set(self.state_dict()):
            raise ValueError(f"state must have {sorted(self.state_dict())}, got {sorted(found)}")
        average, steps = found["average"], as_whole(found["steps"], "steps", 0)
        if average is not None:
            average = as_number(average, "average")
            if not math.isfinite(average):
                raise ValueError(f"average must be finite, got {average}")
        self._set(found["weight"], average, steps)

    def __repr__(self) -> str:
        return (
            f"Geco({self.kappa}, alpha={self.alpha}, step={self.step}, weight={self.weight}, "
            f"bounds={self.bounds})"
        )
