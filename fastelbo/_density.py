"""What density models of a trained autoencoder share, whatever their rows are: draws and scores."""

from __future__ import annotations

import sys

import numpy as np

from fastelbo._arguments import as_whole
from fastelbo._blas import threads_worth
from fastelbo._sklearn import DensityMixin
from fastelbo._trained import chunks
from fastelbo._vae_scores import DRAWS, elbo_parts, importance_bounds
from fastelbo._vae_training import VAETraining
from fastelbo.posterior import generator_of, noise_key, reparameterize
from fastelbo.priors import MixtureOfGaussians, StandardNormal

#: Draws of a score that end within a lifetime.
MOST_DRAWS = 1 << 30


class DensityModel(DensityMixin, VAETraining):
    """An `Autoencoder`, trained; rows have been checked."""

    def _posterior(self, X):
        """(mu, logvar) of rows, as the encoder has them."""
        found = np.empty((2, len(X), self._model.latent_dim), X.dtype)
        for rows in chunks(len(X)):
            found[:, rows] = self._model.encode(X[rows], self.num_threads)
        return found

    def _refined(self, x, mu, logvar, key):
        """(mu, logvar) of these rows as they are used."""
        return mu, logvar

    def _drawn(self, n, rng):
        """So many z from the prior."""
        self._check_fitted()
        n = as_whole(n, "n", 1)
        if n * self.n_features_in_ * self._model.dtype.itemsize > sys.maxsize:
            raise ValueError(f"n = {n} samples are more than any array holds")
        prior = self._model.prior(self.num_threads)
        if prior is not None:
            return prior.sample(n, rng=rng)
        zeros = np.zeros((n, self._model.latent_dim), self._model.dtype)
        return reparameterize(zeros, zeros, rng=rng)

    def _bounds(self, X, samples, rng):
        """A lower bound of log p(x) for each row."""
        if samples is None:
            reconstruction, kl = self._parts(X, rng)
            return reconstruction - kl
        rng = generator_of(self._score_key if rng is None else rng)
        with self._blas(DRAWS):
            return importance_bounds(
                self._model, self.likelihood_, X, samples, rng, self._refined, self.num_threads
            )

    def _parts(self, X, rng):
        """E_q[log p(x|z)] and KL of each row."""
        key = self._key_of(rng)
        with self._blas(DRAWS):
            return elbo_parts(
                self._model, self.likelihood_, X, key, self._refined, self.num_threads
            )

    def _key_of(self, rng):
        return self._score_key if rng is None else noise_key(rng)

    def _blas(self, rows):
        """BLAS's threads as products of so many rows want them."""
        return threads_worth(rows * self._model.largest_layer)

    @property
    def prior_(self) -> StandardNormal | MixtureOfGaussians:
        self._check_fitted()
        return self._model.prior(self.num_threads) or StandardNormal()

    @property
    def n_iter_(self) -> int:
        self._check_fitted()
        return len(self.history_["elbo"])

    @property
    def n_parameters_(self) -> int:
        self._check_fitted()
        return self._model.adam.parameters.size


def checked_samples(samples):
    """How many draws a score is of; None is its own number."""
    samples = as_whole(samples, "samples", 1, optional=True)
    if samples is not None and samples > MOST_DRAWS:
        raise ValueError(f"samples must be at most {MOST_DRAWS}, got {samples}")
    return samples
