"""VAEOutlierDetector: outliers are what a VAE finds least probable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastelbo._arguments import as_number, shown
from fastelbo._sklearn import BaseEstimator, OutlierMixin, check_is_fitted, clone
from fastelbo.vae import VAE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastelbo._typing import Data, Float64Array


class VAEOutlierDetector(OutlierMixin, BaseEstimator):
    """Outliers and novelties by the ELBO of a VAE, as scikit-learn's detectors give them.

    A row's score is :meth:`~fastelbo.VAE.score_samples`, a lower bound of log p(x), and a row that
    scores below `offset_` is an outlier. Of the data that ``fit`` was given, a share of
    `contamination` scores below it. A score is a function of its row alone, so that those of new
    data and of the training data compare.

    Parameters
    ----------
    estimator : VAE, optional
        What is fitted: a copy of it is. None is ``VAE(likelihood="gaussian")``, for standardised
        data. Any other density model with ``fit`` and ``score_samples`` does, such as
        scikit-learn's ``GaussianMixture``; a model that is trained already comes in a
        ``FrozenEstimator``.
    contamination : float, optional
        The share of outliers among the data that ``fit`` is given, in (0, 0.5].

    Attributes
    ----------
    estimator_ : VAE
        The model that was fitted, with all its methods.
    offset_ : float
        In nats: ``decision_function(X) = score_samples(X) - offset_``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    See Also
    --------
    VAE : the model.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 1)) * [1.0, -1.0] + 0.1 * rng.standard_normal((200, 2))
    >>> X[:4] = [[2.0, 2.0], [-2.0, -2.0], [1.5, 2.0], [-1.5, -2.0]]  # against the correlation
    >>> vae = fastelbo.VAE(
    ...     hidden=(16,), latent_dim=1, likelihood="gaussian", epochs=100, learning_rate=0.01,
    ...     random_state=0,
    ... )
    >>> detector = fastelbo.VAEOutlierDetector(vae, contamination=0.02)
    >>> np.flatnonzero(detector.fit_predict(X) == -1)
    array([0, 1, 2, 3])
    """

    estimator_: Any
    offset_: float

    def __init__(self, estimator: Any = None, *, contamination: float = 0.1) -> None:
        self.estimator = estimator
        self.contamination = contamination

    def fit(self, X: Data, y: object = None) -> Self:
        """Train the model, and find the offset.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
            Read where it lies by a :class:`~fastelbo.VAE`.
        y : ignored by a VAE

        Returns
        -------
        VAEOutlierDetector
            This object.

        Raises
        ------
        ValueError, TypeError
            If X or a parameter does not fit.
        FloatingPointError
            If training diverges.
        """
        contamination = as_number(self.contamination, "contamination")
        if not 0 < contamination <= 0.5:
            raise ValueError(f"contamination must be in (0, 0.5], got {contamination}")
        estimator = clone(self._chosen()).fit(X, y)
        scores = np.asarray(estimator.score_samples(X))  # dask's percentiles are of each chunk
        self.offset_ = float(np.percentile(scores, 100 * contamination))
        self.estimator_ = estimator
        return self

    def _chosen(self):
        """The model that is to be fitted."""
        if self.estimator is None:
            return VAE(likelihood="gaussian")
        missing = [name for name in ("fit", "score_samples") if not hasattr(self.estimator, name)]
        if missing or isinstance(self.estimator, type):
            raise TypeError(
                "estimator must be a VAE or another density model with fit and score_samples, got "
                f"{shown(self.estimator)}"
            )
        return self.estimator

    def score_samples(self, X: Data) -> Float64Array:
        """The model's log-density of each row or its bound, in nats: low for outliers.

        Parameters
        ----------
        X : array_like, shape (N, D)

        Returns
        -------
        ndarray, shape (N,)
        """
        check_is_fitted(self)
        return self.estimator_.score_samples(X)

    def decision_function(self, X: Data) -> Float64Array:
        """Scores less the offset: negative for outliers.

        Parameters and result as for :meth:`score_samples`.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Data) -> NDArray[np.int_]:
        """-1 for outliers, 1 for all else.

        Parameters
        ----------
        X : array_like, shape (N, D)

        Returns
        -------
        ndarray of int, shape (N,)
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    @property
    def n_features_in_(self) -> int:
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> NDArray[np.object_]:
        return self.estimator_.feature_names_in_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = self._chosen().__sklearn_tags__().input_tags
        return tags
