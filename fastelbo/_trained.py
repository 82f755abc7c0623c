"""What models of dense networks share once they are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastelbo import _threads
from fastelbo._estimator import finite_matrix
from fastelbo._network import CHUNK
from fastelbo._plots import Plots
from fastelbo._reading import as_rows
from fastelbo._sklearn import (
    UNUSED,
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    check_is_fitted,
    validate_data,
)
from fastelbo._vae_settings import check_domain, check_seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastelbo.likelihoods import Likelihood


class TrainedModel(Plots, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Has `likelihood_`, and `_model` with a dtype and a latent_dim, once fitted."""

    likelihood_: Likelihood
    history_: dict[str, list[float]]
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    __metadata_request__inverse_transform = {"Z": UNUSED}  # noqa: RUF012 - it is its X

    def _check_fitted(self):
        check_is_fitted(self)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_model")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [self.dtype]
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = getattr(self, "missing", None) == "nan"
        return tags

    @property
    def _n_features_out(self):
        return self._model.latent_dim

    def _keep_features(self, X):
        """Remember the number of features, and their names where X has some."""
        validate_data(self, X, reset=True, skip_check_array=True)

    def _checked_data(self, X, scored=True, read=as_rows):
        """X as the encoder reads it and, where it is to be `scored`, the likelihood; by `read`."""
        self._check_fitted()
        missing = self._model.visible.fill is not None if hasattr(self, "missing") else None
        rows = read(X, self._model.dtype, missing=missing)
        validate_data(self, rows.first().given, reset=False, skip_check_array=True)
        return rows.read_for(self.likelihood_, check_domain if scored else check_seen)

    def _checked_latents(self, Z):
        """Z as the decoder reads it."""
        self._check_fitted()
        Z = finite_matrix(Z, self._model.dtype, "Z")
        if Z.shape[1] != self._model.latent_dim:
            raise ValueError(f"Z has {Z.shape[1]} columns, expected {self._model.latent_dim}")
        return Z

    def _decoder_of(self, X):
        """p(x|z) of these data: (z, the numbers of its rows of X) -> what `as_decoder` has."""
        self._check_fitted()
        model = self._model
        return lambda z, rows: model.decode_and_pull(
            z.astype(model.dtype, copy=False), self.num_threads
        )

    def _means(self, Z, decode):
        """Means of p(x|z); `decode` gives the likelihood's parameters for a slice of rows."""
        X = np.empty((len(Z), self.n_features_in_), Z.dtype)
        for rows in chunks(len(Z)):
            outputs = decode(rows)
            with _threads.num_threads(self.num_threads):
                X[rows] = self.likelihood_.mean(*outputs)
        return X


def chunks(n, size=CHUNK):
    """Slices of n rows, so many each."""
    return [slice(start, start + size) for start in range(0, n, size)]
