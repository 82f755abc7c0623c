"""Maximum mean discrepancy of two sets of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_numbers, check_choice
from fastelbo._threads import threads_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import FloatArray, Out, Threads

_kernels = _builds.kernels("mmd")

KERNELS = ("rbf", "imq")
ESTIMATORS = ("unbiased", "biased")
#: Bandwidths of a kernel for samples near N(0, I_L), in units of sqrt(L): half the mean squared
#: distance of two, and the scales of Tolstikhin et al.
BANDWIDTHS = {"rbf": (1.0,), "imq": tuple(np.sqrt([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]))}


class MmdGrad(NamedTuple):
    """Gradients of the MMD by both sets of samples."""

    z: FloatArray
    y: FloatArray


class _Problem:
    """The checked arguments of a call."""

    def __init__(self, z, y, kernel, bandwidth, estimator, num_threads):
        check_choice(kernel, "kernel", KERNELS)
        check_choice(estimator, "estimator", ESTIMATORS)
        self.unbiased = estimator == "unbiased"
        z, y = _arrays.as_floats(z, "z"), _arrays.as_floats(y, "y")
        if z.ndim != 2:
            raise _arrays.shape_error("z", z.shape, "(samples, dimensions)")
        if y.ndim != 2 or y.shape[1] != z.shape[1]:
            raise _arrays.shape_error("y", y.shape, f"(samples, {z.shape[1]}) like z")
        for name, a in (("z", z), ("y", y)):
            if len(a) == 0:
                raise _arrays.empty_error(name, a.shape, "batch")
            if self.unbiased and len(a) == 1:
                raise ValueError(f'{name} is one sample: estimator="unbiased" needs two or more')
        if bandwidth is None:
            bandwidth = np.multiply(BANDWIDTHS[kernel], np.sqrt(max(z.shape[1], 1)))
        s = np.atleast_1d(as_numbers(bandwidth, "bandwidth"))
        if s.ndim != 1 or s.size == 0:
            raise _arrays.shape_error("bandwidth", s.shape, "a number or (scales,)")
        if not (np.all(s > 0) and np.all(np.isfinite(s))):
            raise ValueError(f"bandwidth must be positive and finite, got {bandwidth!r}")
        self.single = _arrays.computes_in_float32((z, y))
        # Times infinity, which stands for what is no point, and times 0 it is a number.
        holds = np.finfo(np.float32 if self.single else np.float64)
        with np.errstate(over="ignore", under="ignore"):
            self.c = np.clip(0.5 / s / s, holds.smallest_subnormal, holds.max / 2)
        self.kernel = kernel
        self.z, self.y = (_arrays.as_rows(a, "z", self.single) for a in (z, y))
        pairs = (len(z) + len(y)) ** 2
        self.threads = threads_for(pairs * max(z.shape[1], 1), num_threads)

    def run(self, gradients):
        return _kernels.mmd(
            self.z, self.y, self.kernel, self.c, self.unbiased, gradients, self.threads
        )


def mmd(
    z: ArrayLike,
    y: ArrayLike,
    *,
    kernel: Literal["rbf", "imq"] = "rbf",
    bandwidth: ArrayLike | None = None,
    estimator: Literal["unbiased", "biased"] = "unbiased",
    num_threads: Threads = None,
) -> float:
    """Squared maximum mean discrepancy of two sets of samples [1]_.

    MMD^2 = E k(z, z') + E k(y, y') - 2 E k(z, y): zero where both come from one distribution. It is
    what InfoVAE and WAE [2]_ put in the place of the KL, with z from the encoder and y from the
    prior.

    Squared distances are sums of squared differences, never differences of squared norms, and
    memory is O((N + M) L).

    Parameters
    ----------
    z : array_like, shape (N, L)
    y : array_like, shape (M, L)
    kernel : {"rbf", "imq"}
        ``"rbf"``: exp(-d^2 / (2 s^2)). ``"imq"``, inverse multiquadratic: 2 s^2 / (2 s^2 + d^2),
        whose heavier tails still pull on outliers.
    bandwidth : float or array_like, optional
        s; the kernel is the sum over several. By default sqrt(L) for the first, so that 2 s^2 is
        the mean squared distance of draws of N(0, I), and for the second, as in WAE, sqrt(c L) for
        c in .1, .2, .5, 1, 2, 5, 10.
    estimator : {"unbiased", "biased"}
        ``"unbiased"`` leaves out the pairs of a sample with itself and may be negative;
        ``"biased"`` is never negative but for rounding.
    num_threads : int, optional

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit; the message names the argument.

    References
    ----------
    .. [1] Gretton, Borgwardt, Rasch, Schölkopf, Smola. A kernel two-sample test. JMLR 2012.
    .. [2] Tolstikhin, Bousquet, Gelly, Schölkopf. Wasserstein auto-encoders. ICLR 2018.

    Examples
    --------
    >>> import fastelbo
    >>> z, y = [[0.0], [1.0]], [[0.0], [3.0]]
    >>> round(fastelbo.mmd(z, y, bandwidth=1.0), 6)
    -0.258848
    >>> round(fastelbo.mmd(z, y, kernel="imq", estimator="biased"), 6)
    2.14026
    """
    return _Problem(z, y, kernel, bandwidth, estimator, num_threads).run(None)


def mmd_and_grad(
    z: ArrayLike,
    y: ArrayLike,
    *,
    kernel: Literal["rbf", "imq"] = "rbf",
    bandwidth: ArrayLike | None = None,
    estimator: Literal["unbiased", "biased"] = "unbiased",
    out: tuple[Out, Out] | None = None,
    num_threads: Threads = None,
) -> tuple[float, MmdGrad]:
    """:func:`mmd` and its gradients by both sets.

    Parameters
    ----------
    z, y, kernel, bandwidth, estimator, num_threads
        As in :func:`mmd`.
    out : tuple (z, y), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    value : float
    gradients : MmdGrad
        ``z`` (N, L) and ``y`` (M, L), of the value itself, which is to be descended.

    Raises
    ------
    ValueError, TypeError
        As :func:`mmd`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.mmd_and_grad([[0.0], [1.0]], [[0.0], [3.0]], bandwidth=1.0)
    >>> grad.z.round(4).ravel()
    array([ 0.5899, -0.4386])
    """
    problem = _Problem(z, y, kernel, bandwidth, estimator, num_threads)
    shapes = problem.z.shape, problem.y.shape
    gradients = _arrays.checked_outs(out, shapes, problem.single, (z, y), MmdGrad._fields)
    return problem.run(gradients), MmdGrad(*gradients)
