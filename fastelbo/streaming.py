"""Bounds of the evidence from log weights that come chunk by chunk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self, overload

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_number
from fastelbo._threads import check as check_threads
from fastelbo.bounds import (
    LOG_W,
    NEGATIVE,
    SHIFT,
    W2,
    W,
    add_columns,
    as_log_weights,
    bound_of,
    effective_of,
    reduce_rows,
    sum_of,
)
from fastelbo.likelihoods import check_reduction

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import ByRow, Float64Array, Reduced, Threads

#: The spread below which 1 + spread, which a state gives, would leave too few of its digits.
SMALL_SPREAD = 1e-2
#: Rows of log weights that are looked at together where the state is not enough.
ROWS = 256


def as_streamed_order(alpha):
    """One of the orders that the sums which are kept give."""
    alpha = as_number(alpha, "alpha")
    if alpha not in (0, 1, -1):
        raise ValueError(f"alpha must be 0, 1 or -1, got {alpha:g}")
    return alpha


class StreamingBound:
    """Bounds of log p(x) from log weights that come in chunks of samples, in memory O(B).

    A running max-shifted sum of the weights of each x, with what its additions lost: the result
    does not lose digits however many chunks come, in whatever order.

    Parameters
    ----------
    num_threads : int, optional

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> log_w = np.random.default_rng(0).normal(-90, 2, (1000, 3))
    >>> stream = fastelbo.StreamingBound()
    >>> for chunk in np.split(log_w, 10):
    ...     stream = stream.update(chunk)
    >>> bool(np.isclose(stream.bound(), fastelbo.importance_bound(log_w), rtol=1e-13))
    True
    >>> stream
    StreamingBound(samples=1000, batch=3)
    """

    def __init__(self, *, num_threads: Threads = None) -> None:
        self.num_threads = check_threads(num_threads)
        self.samples = 0
        self._state = None
        self._spread = None
        self._mean = None  # (top, excess) of the mean weight, where the state would cancel

    def update(self, log_w: ArrayLike) -> Self:
        """Add the log weights of more samples.

        Parameters
        ----------
        log_w : array_like, shape (any number of samples, B)

        Returns
        -------
        StreamingBound
            This object.

        Raises
        ------
        ValueError, TypeError
            If log_w is not such an array, or B is not that of the chunks before.
        """
        log_w = as_log_weights(log_w)
        if self._state is not None and self._state.shape[1] != log_w.shape[1]:
            wanted = f"(samples, {self._state.shape[1]}) like the chunks before"
            raise _arrays.shape_error("log_w", log_w.shape, wanted)
        before, mean = self._mean_weight(), None
        self._state = add_columns(log_w, 1.0, self.num_threads, state=self._state)
        with np.errstate(all="ignore"):
            spread = _spread_of(self._state, self.samples + len(log_w))
            if np.any(spread <= SMALL_SPREAD):
                mean, small = _centred(log_w)
                if before is not None:
                    sets = self.samples, before, len(log_w), mean
                    small, mean = _pooled(self._spread, small, *sets), _joined(*sets)
                spread = np.where(spread <= SMALL_SPREAD, small, spread)
        self._spread, self._mean = spread, mean
        self.samples += len(log_w)
        return self

    def merge(self, other: StreamingBound) -> Self:
        """Add what another StreamingBound of the same B has seen, in another process say.

        Parameters
        ----------
        other : StreamingBound

        Returns
        -------
        StreamingBound
            This object.

        Raises
        ------
        ValueError, TypeError
            If `other` is something else or of another B.
        """
        if not isinstance(other, StreamingBound):
            raise TypeError(f"other must be a StreamingBound, got {type(other).__name__}")
        if other._state is None:
            return self
        theirs = other._state.copy()
        if self._state is None:
            self._state, self._spread, self.samples = theirs, other._spread, other.samples
            self._mean = other._mean
            return self
        ours = self._state
        if ours.shape != theirs.shape:
            raise ValueError(f"other is of {theirs.shape[1]} columns, expected {ours.shape[1]}")
        shift = np.maximum(ours[SHIFT], theirs[SHIFT])
        samples = self.samples + other.samples
        with np.errstate(all="ignore"):
            sets = self.samples, self._mean_weight(), other.samples, other._mean_weight()
            small = _pooled(self._spread, other._spread, *sets)
            self._mean = _joined(*sets)
            for state in (ours, theirs):
                factor = np.exp(state[SHIFT] - shift)
                state[W:W2] *= factor
                state[W2:LOG_W] *= factor * factor
                state[SHIFT] = shift
            for row in (W, W2, LOG_W):
                for part in theirs[row : row + 2]:
                    _add_to(ours[row : row + 2], part)
            spread = _spread_of(ours, samples)
            self._spread = np.where(spread <= SMALL_SPREAD, small, spread)
        ours[NEGATIVE:] += theirs[NEGATIVE:]
        self.samples = samples
        return self

    @overload
    def bound(self, *, alpha: float = ..., reduction: Reduced = ...) -> float: ...
    @overload
    def bound(self, *, alpha: float = ..., reduction: ByRow) -> Float64Array: ...
    def bound(self, *, alpha=0.0, reduction="mean"):
        """The bound of all samples seen.

        Parameters
        ----------
        alpha : {0, 1, -1}
            0 is IWAE's, 1 the ELBO, -1 :func:`cubo` with n = 2: those that the sums which are kept
            give exactly.
        reduction : {"mean", "sum", "none"}
            Over the batch.

        Returns
        -------
        float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
            In nats.

        Raises
        ------
        ValueError
            If nothing was seen, or for another alpha.
        """
        check_reduction(reduction)
        state = self._seen()
        alpha = as_streamed_order(alpha)
        if alpha == -1:
            with np.errstate(all="ignore"):
                rows = state[SHIFT] + 0.5 * np.log(sum_of(state, W2) / self.samples)
        else:
            rows = bound_of(state, self.samples, alpha)
        return reduce_rows(rows, reduction)

    def effective_sample_size(self) -> Float64Array:
        """As :func:`~fastelbo.effective_sample_size` of all samples seen, (B,)."""
        return effective_of(self._seen())

    @overload
    def standard_error(self, *, reduction: Reduced = ...) -> float: ...
    @overload
    def standard_error(self, *, reduction: ByRow) -> Float64Array: ...
    def standard_error(self, *, reduction="mean"):
        """Standard error of ``bound()`` over the draws of z, by the delta method.

        Of one x: sd(w) / (mean(w) sqrt(K)); for the mean and the sum these are independent.

        Parameters
        ----------
        reduction : {"mean", "sum", "none"}
            Over the batch.

        Returns
        -------
        float, or ndarray of shape (B,) and dtype float64 for ``reduction="none"``
            In nats; NaN for a single sample.

        Raises
        ------
        ValueError
            If nothing was seen.
        """
        check_reduction(reduction)
        self._seen()
        with np.errstate(all="ignore"):
            rows = np.sqrt(np.divide(self._spread, self.samples - 1))
        if reduction == "none":
            return rows
        total = math.sqrt(float(np.sum(rows * rows)))
        return total / len(rows) if reduction == "mean" else total

    def _mean_weight(self):
        """(top, excess): the mean weight is e^top (1 + excess). None before there is any."""
        if self._state is None or self._mean is not None:
            return self._mean
        with np.errstate(all="ignore"):
            return self._state[SHIFT].copy(), sum_of(self._state, W) / self.samples - 1

    def _seen(self):
        if self._state is None:
            raise ValueError("no log weights yet: call update first")
        return self._state

    def __repr__(self):
        batch = None if self._state is None else self._state.shape[1]
        return f"StreamingBound(samples={self.samples}, batch={batch})"


def _spread_of(state, samples):
    """Variance of the weights over the square of their mean, by a difference: K / ESS - 1."""
    return samples / effective_of(state) - 1


def _centred(log_w):
    """The mean weight as `_mean_weight` has it, and the spread, without cancellation."""
    top = np.maximum(log_w.max(axis=0), -np.finfo(np.float64).max)
    blocks = [log_w[i : i + ROWS] for i in range(0, len(log_w), ROWS)]
    excess = sum(np.expm1(block - top).sum(axis=0) for block in blocks) / len(log_w)
    squares = sum(((np.expm1(block - top) - excess) ** 2).sum(axis=0) for block in blocks)
    return (top, excess), squares / len(log_w) / (1 + excess) ** 2


def _joined(samples, mean, others, their_mean):
    """The mean of two sets of weights together."""
    top = np.maximum(np.maximum(mean[0], their_mean[0]), -np.finfo(np.float64).max)
    excess = 0
    for share, (own, its) in ((samples, mean), (others, their_mean)):
        excess += share / (samples + others) * (np.expm1(own - top) + its * np.exp(own - top))
    return top, excess


def _pooled(spread, their_spread, samples, mean, others, their_mean):
    """The spread of two sets of weights together.

    The variance within the sets and that of their means (Chan et al. 1983), in units of the larger
    mean. Where all weights of a set are zero, it has no spread.
    """
    gap = their_mean[0] - mean[0] + (np.log1p(their_mean[1]) - np.log1p(mean[1]))
    share, their_share = samples / (samples + others), others / (samples + others)
    mean, their_mean = np.exp(np.minimum(-gap, 0)), np.exp(np.minimum(gap, 0))
    variance = share * their_share * np.expm1(-np.abs(gap)) ** 2
    variance += share * np.where(mean > 0, spread * mean**2, 0)
    variance += their_share * np.where(their_mean > 0, their_spread * their_mean**2, 0)
    return variance / (share * mean + their_share * their_mean) ** 2


def _add_to(pair, x):
    """pair[0] + pair[1] += x, by Knuth's TwoSum; sums that are not finite lose nothing."""
    total = pair[0] + x
    back = total - pair[0]
    rest = (pair[0] - (total - back)) + (x - back)
    pair[1] += np.where(np.isfinite(total), rest, 0.0)
    pair[0] = total
