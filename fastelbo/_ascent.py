"""Uphill from many points at once, each for itself: a limited-memory quasi-Newton method by row."""

import numpy as np

#: Pairs of steps and changes of the gradient that are kept of each row.
MEMORY = 8
#: A step must gain this share of what its slope promises [Nocedal & Wright, 3.1].
SUFFICIENT = 1e-4
#: What a refused step is shortened by, at most and at least.
SHORTEST, LONGEST = 0.1, 0.5


class Ascent:
    """L-BFGS [1]_ on each row of `points`, every step of which raises that row's value.

    A step that does not is shortened until it does. A row ends where no step promises `tolerance`,
    or rounding hides it; rows that have ended are not evaluated any more.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(points (n, P), rows (n,)) -> (values (n,), gradients (n, P))``.
    metric : callable
        ``metric(points) -> (n, P)``: about the inverse of the curvature, where no step has told.
    points : ndarray, shape (B, P)
        Changed in place.
    most : ndarray, shape (P,)
        How far a coordinate may go at once.
    first : float
        The length that is tried first of each step.

    References
    ----------
    .. [1] Nocedal, Wright. Numerical optimization, 2nd edition, 2006, chapter 7.2.
    """

    def __init__(self, evaluate, metric, points, most, tolerance, first):
        self.evaluate, self.metric, self.points = evaluate, metric, points
        self.most, self.first = most, first
        rows = np.arange(len(points))
        self.values, self.gradients = evaluate(points, rows)
        self.tolerance, self.finest = tolerance, 8 * np.finfo(points.dtype).eps
        self.moves, self.bends = np.zeros((2, MEMORY, *points.shape), points.dtype)
        self.inverse = np.zeros((MEMORY, len(points)))  # 1 / (move . bend), 0 where there is none
        self.directions = np.zeros_like(points)
        self.slopes, self.lengths = np.zeros((2, len(points)))
        self.steps = np.zeros(len(points), np.int64)
        self.active = rows
        self._turn(rows)
        self._end()

    def step(self):
        """One evaluation of each row that has not ended."""
        rows = self.active
        lengths = self.lengths[rows].astype(self.points.dtype)
        trial = self.points[rows] + lengths[:, None] * self.directions[rows]
        values, gradients = self.evaluate(trial, rows)
        self.steps[rows] += 1
        promised = self.lengths[rows] * self.slopes[rows]
        gained = values - self.values[rows]
        better = gained >= SUFFICIENT * promised  # not where either is NaN
        better &= np.isfinite(values) & np.isfinite(gradients).all(axis=1)
        self._take(rows[better], trial[better], values[better], gradients[better])
        worse = ~better
        lost = np.where(np.isfinite(gained[worse]), promised[worse] - gained[worse], np.inf)
        ratio = np.clip(0.5 * promised[worse] / lost, SHORTEST, LONGEST)
        self.lengths[rows[worse]] *= ratio
        self._end()

    def _take(self, rows, points, values, gradients):
        if len(rows) == 0:
            return
        move, bend = points - self.points[rows], self.gradients[rows] - gradients
        curvature = _dot(move, bend)
        least = 1e-10 * np.sqrt(_dot(move, move) * _dot(bend, bend))
        bowed = curvature > np.maximum(least, np.finfo(np.float64).tiny)  # whose inverse is finite
        kept = rows[bowed]
        for memory, new in (
            (self.moves, move[bowed]),
            (self.bends, bend[bowed]),
            (self.inverse, 1 / curvature[bowed]),
        ):
            memory[:-1, kept] = memory[1:, kept]
            memory[-1, kept] = new
        self.points[rows], self.values[rows], self.gradients[rows] = points, values, gradients
        self._turn(rows)

    def _turn(self, rows):
        """New directions, by the two-loop recursion."""
        q = self.gradients[rows].copy()
        inverse, bends = self.inverse[:, rows], self.bends[:, rows]
        moves, shares = self.moves[:, rows], np.zeros((MEMORY, len(rows)))
        for i in range(MEMORY - 1, -1, -1):
            shares[i] = inverse[i] * _dot(moves[i], q)
            q -= shares[i, :, None].astype(q.dtype) * bends[i]
        metric = self.metric(self.points[rows])
        bent = inverse[-1] * _dot(bends[-1], metric * bends[-1])
        scale = np.divide(1, bent, out=np.ones_like(bent), where=bent > 0)
        q *= scale[:, None].astype(q.dtype) * metric
        for i in range(MEMORY):
            share = shares[i] - inverse[i] * _dot(bends[i], q)
            q += share[:, None].astype(q.dtype) * moves[i]
        self._go(rows, q)
        self._forget(rows[~(self.slopes[rows] > 0)])

    def _forget(self, rows):
        """Start again from the gradient where what is remembered leads nowhere."""
        self.inverse[:, rows] = 0
        self._go(rows, self.metric(self.points[rows]) * self.gradients[rows])

    def _go(self, rows, directions):
        self.directions[rows] = np.clip(directions, -self.most, self.most)
        self.slopes[rows] = _dot(self.gradients[rows], self.directions[rows])
        self.lengths[rows] = self.first

    def _end(self):
        """Drop the rows whose next step promises too little, and not only because it is short."""
        rows = self.active
        ended = self._promise_too_little(rows)
        again = rows[ended & (self.inverse[-1, rows] > 0) & (self.lengths[rows] < self.first)]
        self._forget(again)
        self.active = rows[~self._promise_too_little(rows)]

    def _promise_too_little(self, rows):
        """Less than was asked for, or than rounding hides of the values that they have reached."""
        least = np.maximum(self.tolerance, self.finest * np.abs(self.values[rows]))
        return ~(0.5 * self.lengths[rows] * self.slopes[rows] > least)


def _dot(a, b):
    return np.einsum("ij,ij->i", a, b, dtype=np.float64)
