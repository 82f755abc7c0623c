"""Measures of disentanglement, of codes and factors (points, dimensions)."""

from typing import NamedTuple

import numpy as np

from fastelbo.reference._common import as_float64, quiet
from fastelbo.reference.aggregate import aggregate_posterior_log_density
from fastelbo.reference.posterior import reparameterize


class MutualInformationGap(NamedTuple):
    """The mean gap; of factors the gaps, (F,); mutual information (L, F); entropies, (F,)."""

    score: float
    gaps: np.ndarray
    mutual_information: np.ndarray
    entropy: np.ndarray


class Sap(NamedTuple):
    """The mean gap; of factors the gaps, (F,); of each code and factor the score, (L, F)."""

    score: float
    gaps: np.ndarray
    scores: np.ndarray


class DciScores(NamedTuple):
    """Of all, and of each code, (L,), and each factor, (F,)."""

    disentanglement: float
    completeness: float
    by_code: np.ndarray
    by_factor: np.ndarray


def entropy(values):
    """- sum_v p_v log p_v of the values of a list."""
    p = np.unique(values, return_counts=True)[1] / len(values)
    return -(p * np.log(p)).sum()


def _information_in_bins(code, factor, bins):
    """H(bin) + H(v) - H(bin, v)."""
    quarter = code / 4  # whose range does not overflow
    above = quarter - quarter.min()
    edges = np.linspace(0, above.max(), bins, endpoint=False)  # the last bin has its upper one, too
    bin_of = np.searchsorted(edges, above, side="right") - 1
    pairs = bin_of + bins * np.unique(factor, return_inverse=True)[1]
    return entropy(bin_of) + entropy(factor) - entropy(pairs)


def _information_of_density(codes, logvar, factor, points, z):
    """E[log q(z_l|v) - log q(z_l)], (L,)."""
    gain = -aggregate_posterior_log_density(z, codes, logvar)[1]
    for value in np.unique(factor[points]):
        mine, of = factor[points] == value, factor == value
        gain[mine] += aggregate_posterior_log_density(z[mine], codes[of], logvar[of])[1]
    return gain.mean(axis=0)


def mutual_information_gap(
    codes, factors, *, estimator="histogram", bins=20, logvar=None, samples=10_000, rng=None
):
    """Mean over factors of (I_1 - I_2) / H, the largest two informations and the entropy.

    Examples
    --------
    >>> mutual_information_gap([[0], [0], [1], [1]], [[0], [0], [1], [1]]).score
    1.0
    """
    factors = np.asarray(factors)
    pairs = (np.shape(codes)[1], factors.shape[1])
    information = np.empty(pairs)
    if estimator == "histogram":
        codes = as_float64(codes)
        for i, j in np.ndindex(pairs):
            information[i, j] = _information_in_bins(codes[:, i], factors[:, j], bins)
    else:
        codes, logvar = as_float64(codes, logvar)
        points = np.arange(samples) * max(len(codes), samples) // samples % len(codes)
        z = reparameterize(codes[points], logvar[points], rng=rng)
        for j in range(pairs[1]):
            parts = (codes, logvar, factors[:, j], points, z)
            information[:, j] = _information_of_density(*parts)
    entropies = np.array([entropy(column) for column in factors.T])
    gaps = _gaps(information) / entropies
    return MutualInformationGap(float(gaps.mean()), gaps, information, entropies)


def _gaps(scores):
    """The largest of each column less the second largest, or less 0 where there is none."""
    if len(scores) == 1:
        return scores[0]
    second, first = np.sort(scores, axis=0)[-2:]
    return first - second


def sap(codes, factors, *, continuous=False, test_size=0.3, random_state=0):
    """Mean over factors of the best code's score less the second best's.

    Scores are squared correlations, 0 of a variance below 1e-12, or the accuracies of linear SVMs.

    Examples
    --------
    >>> codes, factors = [[0.0, 0.0], [1.0, 3.0], [2.0, 0.0]], [[1.0], [3.0], [5.0]]
    >>> sap(codes, factors, continuous=True).scores.round(9)
    array([[1.],
           [0.]])
    """
    codes, factors = as_float64(codes, factors)
    scores = np.zeros((codes.shape[1], factors.shape[1]))
    order = np.random.RandomState(random_state).permutation(len(codes))
    few = max(2, round(test_size * len(codes)))
    for i, j in np.ndindex(scores.shape):
        code, factor = codes[:, i], factors[:, j]
        if not continuous:
            scores[i, j] = _accuracy(code, factor, order[few:], order[:few])
        else:
            scores[i, j] = _squared_correlation(code, factor)
    gaps = _gaps(scores)
    return Sap(float(gaps.mean()), gaps, scores)


def _squared_correlation(code, factor):
    """0 of a variance below 1e-12; columns are divided by their largest, whose square overflows."""
    sizes = [max(np.abs(a).max(), np.finfo(float).tiny) for a in (code, factor)]
    code, factor = code / sizes[0], factor / sizes[1]
    if code.std() * sizes[0] < 1e-6 or factor.std() * sizes[1] < 1e-6:
        return 0.0
    return np.corrcoef(code, factor)[0, 1] ** 2


def _accuracy(code, factor, train, test):
    """Of one line of each class against the others, classes of a sample weighing alike."""
    values, counts = np.unique(factor[train], return_counts=True)
    weights = len(train) / (len(values) * counts)
    decisions = []
    for value, weight in zip(values, weights, strict=True):
        mine = factor[train] == value
        rest = weights[values != value][0] if len(values) == 2 else 1.0
        w, b = _line(code[train], np.where(mine, 1, -1), 0.01 * np.where(mine, weight, rest))
        decisions.append(w * code[test] + b)
    return np.mean(values[np.argmax(decisions, axis=0)] == factor[test])


def _line(code, sign, cost):
    """(w, b) at the least (w^2 + b^2) / 2 + sum_i cost_i max(0, 1 - sign_i (w code_i + b))^2.

    By Newton's method: the sum is quadratic until another slack becomes positive, or 0.
    """
    rows, line = np.column_stack([code, np.ones_like(code)]), np.zeros(2)
    for _ in range(100):
        slack = np.maximum(0, 1 - sign * (rows @ line))
        gradient = line - 2 * rows.T @ (cost * sign * slack)
        curvature = np.eye(2) + 2 * (rows.T * (cost * (slack > 0))) @ rows
        line = line - np.linalg.solve(curvature, gradient)
    return line


@quiet
def _sureness(rows):
    p = rows / rows.sum(axis=1, keepdims=True)
    entropies = -np.where(p > 0, p * np.log(p), 0).sum(axis=1)
    base = np.log(rows.shape[1]) if rows.shape[1] > 1 else 1.0
    return np.where(rows.sum(axis=1) > 0, 1 - entropies / base, 0)


@quiet
def dci_from_importance(importance):
    """sum_i rho_i (1 - H(row i)), entropies to base F; likewise of columns, to base L.

    Examples
    --------
    >>> scores = dci_from_importance([[1.0, 1.0] + [0.0] * 8])
    >>> round(scores.disentanglement, 12)  # 1 - log 2 / log 10
    0.698970004336
    """
    importance = as_float64(importance)
    by_code, by_factor = _sureness(importance), _sureness(importance.T)
    rho = importance / importance.sum() if importance.any() else importance
    return DciScores(
        float((rho.sum(axis=1) * by_code).sum()),
        float((rho.sum(axis=0) * by_factor).sum()),
        by_code,
        by_factor,
    )
