"""What models of dense networks share once they are trained."""

from __future__ import annotations

import importlib
from os import PathLike
from typing import TYPE_CHECKING, Self

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

    #: The module whose ``save`` and ``load`` make and read files of these models: imported when it
    #: is needed, since it imports zipfile, which takes its time.
    _files: str

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file (an .npz of arrays and JSON; no pickle), whole or not at all.

        Training can go on where it stood: the optimizer and the random generator are in it, and a
        :class:`~fastelbo.BetaSchedule` is. A `random_state` that is no int, and `callbacks`, are
        forgotten.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        TypeError
            If the likelihood, the prior or a schedule is of a class that does not come with
            fastelbo, such as a function: give beta a number by ``set_params`` before. And of
            networks of one's own, which pickle knows, and of labels of classes that are neither
            numbers nor strings.
        """
        self._check_fitted()
        importlib.import_module(self._files).save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The model that :meth:`save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        model
            Of this class.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, or not such a file.
        """
        return importlib.import_module(cls._files).load(cls, path)


def chunks(n, size=CHUNK):
    """Slices of n rows, so many each."""
    return [slice(start, start + size) for start in range(0, n, size)]
