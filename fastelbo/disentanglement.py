"""How well codes are disentangled: measures against known factors of the data.

Codes, the means of q(z|x), and factors are (points, dimensions); values of a factor are classes.
What has to be learned for a measure is scikit-learn's: ``pip install "fastelbo[metrics]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_flag, as_number, as_whole, check_choice
from fastelbo._estimator import finite_matrix
from fastelbo._threads import check as check_threads
from fastelbo.aggregate import aggregate_posterior_log_density
from fastelbo.posterior import noise_key, reparameterize, shape_of_samples

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import Float64Array, Number, Rng, Threads

MIG_ESTIMATORS = ("histogram", "density")
#: Variances below this are those of a constant.
NO_VARIANCE = 1e-12
#: The exponent of the largest code that a linear SVM is shown: its penalty is nothing from there.
MOST_OF_SVM = 7
#: Exponents of the largest code that trees are shown: they read float32, and a difference of less
#: than 1e-7 as none.
OF_TREES = (0, 64)


class MutualInformationGap(NamedTuple):
    """The gap of each factor, (F,), and what it is made of, in nats; `score` is their mean."""

    score: float
    gaps: Float64Array
    mutual_information: Float64Array
    entropy: Float64Array


class Sap(NamedTuple):
    """The gap of each factor, (F,), and the score of each code for it, (L, F)."""

    score: float
    gaps: Float64Array
    scores: Float64Array


class DciScores(NamedTuple):
    """Disentanglement and completeness, and those of each code, (L,), and each factor, (F,)."""

    disentanglement: float
    completeness: float
    by_code: Float64Array
    by_factor: Float64Array


class Dci(NamedTuple):
    """All of `DciScores`, the accuracies of the factors, (F,), and the importances, (L, F)."""

    disentanglement: float
    completeness: float
    informativeness: float
    by_code: Float64Array
    by_factor: Float64Array
    accuracy: Float64Array
    importance: Float64Array


def _codes_and_factors(codes, factors):
    """Both as float64, of the same points; no factor is a constant."""
    codes, factors = (
        finite_matrix(a, np.float64, name) for a, name in ((codes, "codes"), (factors, "factors"))
    )
    if len(factors) != len(codes):
        raise _arrays.shape_error("factors", factors.shape, f"({len(codes)}, factors) like codes")
    constant = factors.min(axis=0) == factors.max(axis=0)
    if constant.any():
        which = int(constant.argmax())
        raise ValueError(
            f"factors[:, {which}] has the one value {factors[0, which]:g}: nothing to know about "
            "it, so leave it out"
        )
    return codes, factors


def _classes(factors):
    """The values of each factor as 0, 1, ..., (N, F)."""
    columns = [np.unique(column, return_inverse=True)[1].ravel() for column in factors.T]
    return np.stack(columns, axis=1)


def _scaled(codes, least, most):
    """Codes times powers of two, the largest of each between 2^(least - 1) and 2^most."""
    exponents = np.frexp(np.abs(codes).max(axis=0))[1]
    return np.ldexp(codes, np.clip(exponents, least, most) - exponents)


def _bins_of(code, bins):
    """Which of so many bins of equal width, from its least to its largest, each is in."""
    code = code - code.min()
    edges = np.linspace(0, code.max(), bins, endpoint=False)
    return np.digitize(code, edges) - 1


def _gaps(scores):
    """The best of each column less the second best, which of a single row is nothing."""
    if len(scores) == 1:
        return scores[0].copy()
    second, best = np.sort(scores, axis=0)[-2:]
    return best - second


def _entropies(classes):
    """Of the values of each factor, (F,)."""
    shares = [np.bincount(column) / len(column) for column in classes.T]
    return np.array([-(p * np.log(p)).sum() for p in shares])


def _information_by_histogram(codes, classes, bins):
    """I(code; factor) of all pairs, (L, F)."""
    information = np.empty((codes.shape[1], classes.shape[1]))
    for i, code in enumerate(_scaled(codes, 0, 0).T):
        bin_of = _bins_of(code, bins)
        for j, values in enumerate(classes.T):
            count = values.max() + 1
            joint = np.bincount(bin_of * count + values, minlength=bins * count)
            joint = joint.reshape(bins, count) / len(code)
            apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
            some = joint > 0
            information[i, j] = (joint[some] * np.log(joint[some] / apart[some])).sum()
    return np.maximum(information, 0)


def _information_by_density(codes, logvar, classes, samples, rng, num_threads):
    """E[log q(z_l|v) - log q(z_l)], the densities those of all points, and of all of a value."""
    points = np.arange(samples) * max(len(codes), samples) // samples % len(codes)
    z = reparameterize(codes[points], logvar[points], rng=rng, num_threads=num_threads)

    def log_density(z, of):
        of = (codes, logvar) if of is None else (codes[of], logvar[of])
        return aggregate_posterior_log_density(z, *of, num_threads=num_threads).marginals

    entropies = -log_density(z, None).mean(axis=0)
    information = np.empty((codes.shape[1], classes.shape[1]))
    for j, values in enumerate(classes.T):
        known = np.empty(z.shape)
        for value in range(values.max() + 1):
            mine = values[points] == value
            if mine.any():
                known[mine] = log_density(z[mine], values == value)
        information[:, j] = entropies + known.mean(axis=0)
    return information


def mutual_information_gap(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    estimator: Literal["histogram", "density"] = "histogram",
    bins: int = 20,
    logvar: ArrayLike | None = None,
    samples: int = 10_000,
    rng: Rng = None,
    num_threads: Threads = None,
) -> MutualInformationGap:
    """MIG [1]_: how much more one code knows of a factor than any other code does.

    The mean over the factors of (I_1 - I_2) / H: of the mutual informations of a factor with every
    code the largest two, over the factor's entropy. 1 where each factor has a code that knows it
    and no other code knows anything of it.

    Parameters
    ----------
    codes : array_like, shape (N, L)
        Means of q(z|x).
    factors : array_like, shape (N, F)
        What is known of the same points; the values of a factor are classes.
    estimator : {"histogram", "density"}
        ``"histogram"``: of codes in `bins` of equal width [2]_. ``"density"``: of samples of
        q(z|x), by the density of the aggregate posterior, of all points and of those of a value.
    bins : int, optional
        For ``estimator="histogram"``.
    logvar : array_like, shape (N, L), optional
        log sigma^2 of q(z|x), which ``estimator="density"`` needs.
    samples : int, optional
        How many z, of points that are evenly spaced in the data. Each is compared with all N
        points, in O(N L) memory.
    rng : int, numpy.random.Generator or None, optional
        As in :func:`reparameterize`.
    num_threads : int, optional
        For the density.

    Returns
    -------
    MutualInformationGap
        ``score``, ``gaps`` (F,), ``mutual_information`` (L, F) and ``entropy`` (F,), in nats.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, a number is not finite, a factor is constant, or an option is unknown
        or missing.

    See Also
    --------
    sap, dci : other measures of the same.

    References
    ----------
    .. [1] Chen, Li, Grosse, Duvenaud. Isolating sources of disentanglement in variational
       autoencoders. NeurIPS 2018.
    .. [2] Locatello et al. Challenging common assumptions in the unsupervised learning of
       disentangled representations. ICML 2019.

    Examples
    --------
    >>> import fastelbo
    >>> factors = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> fastelbo.mutual_information_gap(factors, factors).score
    1.0
    >>> fastelbo.mutual_information_gap([[0], [1], [1], [2]], factors).gaps.round(4)
    array([0.5, 0.5])
    """
    check_choice(estimator, "estimator", MIG_ESTIMATORS)
    bins, samples = as_whole(bins, "bins", 2), as_whole(samples, "samples", 1)
    codes, factors = _codes_and_factors(codes, factors)
    shape_of_samples(codes[:1], samples)
    check_threads(num_threads)
    key = noise_key(rng)
    classes = _classes(factors)
    if estimator == "histogram":
        if logvar is not None:
            raise ValueError('logvar is given, which needs estimator="density"')
        information = _information_by_histogram(codes, classes, bins)
    else:
        if logvar is None:
            raise ValueError('logvar is None: estimator="density" needs that of q(z|x)')
        logvar = finite_matrix(logvar, np.float64, "logvar")
        codes, logvar = _arrays.latents(codes, logvar, "codes")
        information = _information_by_density(codes, logvar, classes, samples, key, num_threads)
    entropy = _entropies(classes)
    gaps = _gaps(information) / entropy
    return MutualInformationGap(float(gaps.mean()), gaps, information, entropy)


def _from_sklearn(*names):
    """Parts of scikit-learn, as module:name."""
    try:
        import importlib

        return [getattr(importlib.import_module(f"sklearn.{m}"), n) for m, n in names]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'this measure needs scikit-learn: pip install "fastelbo[metrics]"', name="sklearn"
        ) from error


def _held_out(codes, classes, test_size, random_state):
    """Codes and classes to learn from, and those to be asked about: (a, b, a, b)."""
    test_size = as_number(test_size, "test_size")
    if not 0 < test_size < 1:
        raise ValueError(f"test_size must lie between 0 and 1, got {test_size}")
    if random_state is not None:
        random_state = as_whole(random_state, "random_state", 0)
    (split,) = _from_sklearn(("model_selection", "train_test_split"))
    few = max(2, round(test_size * len(codes)))
    if len(codes) < 2 + few:
        raise ValueError(f"codes has {len(codes)} points: too few to hold out {test_size} of them")
    train, test, of_train, of_test = split(codes, classes, test_size=few, random_state=random_state)
    for j, column in enumerate(of_train.T):
        if column.min() == column.max():
            raise ValueError(
                f"factors[:, {j}] has one value in what is not held out: give more points"
            )
    return train, of_train, test, of_test


def sap(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    continuous: bool = False,
    test_size: Number = 0.3,
    random_state: int | None = 0,
) -> Sap:
    """SAP [1]_, separated attribute predictability: how far the best code for a factor is ahead.

    The mean over the factors of the best code's score less the second best's. The score of a code
    for a factor with classes is the accuracy, on points held out, of a linear SVM on that code
    alone (``LinearSVC(C=0.01, class_weight="balanced")``); for a continuous factor it is their
    squared correlation, 0 for a code of a variance below 1e-12.

    With classes a perfect score is less than 1, since the second best code still guesses: with k
    values that are as frequent, 1 - 1/k. Codes that are so small that the penalty keeps the SVM
    from using them guess, too; however large they are, the score is the same.

    Parameters
    ----------
    codes : array_like, shape (N, L)
        Means of q(z|x).
    factors : array_like, shape (N, F)
        What is known of the same points.
    continuous : bool, optional
        Whether factors are quantities, and not classes. A linear SVM on one code tells only the
        outermost of many ordered classes from the others; the correlation serves them better.
    test_size : float, optional
        The share of points that is held out.
    random_state : int or None, optional
        Which points these are.

    Returns
    -------
    Sap
        ``score``, ``gaps`` (F,) and ``scores`` (L, F).

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, a number is not finite, a factor is constant or there are too few
        points.
    ModuleNotFoundError
        Without scikit-learn, for factors with classes.

    See Also
    --------
    mutual_information_gap, dci : other measures of the same.

    References
    ----------
    .. [1] Kumar, Sattigeri, Balakrishnan. Variational inference of disentangled latent concepts
       from unlabeled observations. ICLR 2018.

    Examples
    --------
    >>> import fastelbo
    >>> factors = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    >>> fastelbo.sap(factors, factors, continuous=True).score
    1.0
    """
    continuous = as_flag(continuous, "continuous")
    codes, factors = _codes_and_factors(codes, factors)
    if continuous:
        scores = _squared_correlations(codes, factors)
    else:
        scores = _accuracies_of_single_codes(codes, _classes(factors), test_size, random_state)
    gaps = _gaps(scores)
    return Sap(float(gaps.mean()), gaps, scores)


def _squared_correlations(codes, factors):
    """(L, F); that of a code without variance is 0."""
    (codes, some), (factors, known) = (_standardised(a) for a in (codes, factors))
    squared = (codes.T @ factors / len(codes)) ** 2
    return np.where(np.logical_and.outer(some, known), np.minimum(squared, 1), 0)


def _standardised(columns):
    """Columns of mean 0 and variance 1, and which of them have a variance; no square overflows."""
    scaled = _scaled(columns, 0, 0)
    with np.errstate(all="ignore"):
        unit = np.abs(columns).max(axis=0) / np.abs(scaled).max(axis=0)
        scaled = scaled - scaled.mean(axis=0)
        spread = np.sqrt((scaled * scaled).mean(axis=0))
        return scaled / spread, spread * unit >= np.sqrt(NO_VARIANCE)


def _accuracies_of_single_codes(codes, classes, test_size, random_state):
    (svm,) = _from_sklearn(("svm", "LinearSVC"))
    codes = _scaled(codes, np.iinfo(np.int32).min, MOST_OF_SVM)
    train, of_train, test, of_test = _held_out(codes, classes, test_size, random_state)
    scores = np.empty((codes.shape[1], classes.shape[1]))
    for i, j in np.ndindex(scores.shape):
        model = svm(C=0.01, class_weight="balanced", dual=False)
        model.fit(train[:, [i]], of_train[:, j])
        scores[i, j] = model.score(test[:, [i]], of_test[:, j])
    return scores


def dci_from_importance(importance: ArrayLike) -> DciScores:
    """Disentanglement and completeness [1]_ of a matrix of importances.

    A code is disentangled if it matters to one factor only: 1 - H(row), the entropy of its row to
    the base of the number of factors. A factor is complete if one code is all that matters to it:
    1 - H(column), to the base of the number of codes. The means weigh codes and factors by their
    shares in all importance.

    Parameters
    ----------
    importance : array_like, shape (L, F)
        How much code i matters to factor j: not negative.

    Returns
    -------
    DciScores
        ``disentanglement`` and ``completeness``, and each of ``by_code`` (L,) and ``by_factor``
        (F,). 0 for a code or factor without any importance.

    Raises
    ------
    ValueError, TypeError
        If it is no matrix, or a number is negative or not finite.

    References
    ----------
    .. [1] Eastwood, Williams. A framework for the quantitative evaluation of disentangled
       representations. ICLR 2018.

    Examples
    --------
    >>> import fastelbo
    >>> importance = [[1.0, 1.0] + [0.0] * 8]  # one code, for two factors of ten
    >>> round(fastelbo.dci_from_importance(importance).disentanglement, 6)  # 1 - ln 2 / ln 10
    0.69897
    """
    importance = finite_matrix(importance, np.float64, "importance")
    if (importance < 0).any():
        raise ValueError(f"importance must not be negative, got {importance.min()}")
    largest = importance.max()
    if largest > 0:
        importance = importance / largest  # no sum of these overflows
    by_code, by_factor = _sureness(importance), _sureness(importance.T)
    total = max(importance.sum(), np.finfo(np.float64).tiny)
    shares = importance.sum(axis=1) / total, importance.sum(axis=0) / total
    return DciScores(
        float((shares[0] * by_code).sum()), float((shares[1] * by_factor).sum()), by_code, by_factor
    )


def _sureness(rows):
    """1 - H of each row, to the base of its length; 0 of a row of zeros."""
    sums = rows.sum(axis=1)
    with np.errstate(all="ignore"):
        p = rows / sums[:, None]
        entropies = -np.where(p > 0, p * np.log(p), 0).sum(axis=1)
    most = np.log(rows.shape[1]) or 1.0  # of a single column there is nothing to be unsure of
    return np.where(sums > 0, 1 - entropies / most, 0)


def dci(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    estimator: Any = None,
    test_size: Number = 0.3,
    random_state: int | None = 0,
) -> Dci:
    """DCI [1]_: disentanglement, completeness and informativeness.

    A classifier is trained for each factor on all codes. Its importances of the codes give the
    first two (:func:`dci_from_importance`), its accuracy on points held out the third.

    Parameters
    ----------
    codes : array_like, shape (N, L)
        Means of q(z|x).
    factors : array_like, shape (N, F)
        What is known of the same points; the values of a factor are classes.
    estimator : scikit-learn classifier, optional
        What is trained: anything that has ``feature_importances_`` once it is. By default
        ``GradientBoostingClassifier(random_state=random_state)``.
    test_size : float, optional
        The share of points that is held out.
    random_state : int or None, optional
        Which points these are, and the seed of the default classifier.

    Returns
    -------
    Dci
        ``disentanglement``, ``completeness``, ``informativeness`` (the mean accuracy),
        ``by_code`` (L,), ``by_factor`` (F,), ``accuracy`` (F,), ``importance`` (L, F).

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, a number is not finite, a factor is constant, there are too few
        points or the classifier has no importances.
    ModuleNotFoundError
        Without scikit-learn.

    See Also
    --------
    mutual_information_gap, sap : other measures of the same.

    References
    ----------
    .. [1] Eastwood, Williams. A framework for the quantitative evaluation of disentangled
       representations. ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> factors = np.random.default_rng(0).integers(0, 2, (200, 2))
    >>> scores = fastelbo.dci(factors, factors)
    >>> round(scores.disentanglement, 3), round(scores.completeness, 3), scores.informativeness
    (1.0, 1.0, 1.0)
    """
    codes, factors = _codes_and_factors(codes, factors)
    boosting, clone = _from_sklearn(("ensemble", "GradientBoostingClassifier"), ("base", "clone"))
    codes, classes = _scaled(codes, *OF_TREES), _classes(factors)
    train, of_train, test, of_test = _held_out(codes, classes, test_size, random_state)
    if estimator is None:
        estimator = boosting(random_state=random_state)
    columns, accuracy = [], []
    for known, asked in zip(of_train.T, of_test.T, strict=True):
        model = clone(estimator).fit(train, known)
        if not hasattr(model, "feature_importances_"):
            raise TypeError(f"estimator must have feature_importances_ once fitted, got {model!r}")
        columns.append(model.feature_importances_)
        accuracy.append(model.score(test, asked))
    importance, accuracy = np.stack(columns, axis=1), np.array(accuracy)
    scores = dci_from_importance(importance)
    return Dci(
        scores.disentanglement,
        scores.completeness,
        float(accuracy.mean()),
        scores.by_code,
        scores.by_factor,
        accuracy,
        importance,
    )
