"""VAE: a scikit-learn style estimator on NumPy's matrix products and these kernels."""

from __future__ import annotations

import copy
import sys
from os import PathLike
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from fastelbo import _threads
from fastelbo._arguments import as_flag, as_number, as_whole, positive_number
from fastelbo._blas import threads_worth
from fastelbo._estimator import Estimator, check_random_state, finite_matrix, seed
from fastelbo._estimator import NotFittedError as NotFittedError
from fastelbo._network import CHUNK, Autoencoder
from fastelbo._vae_scores import DRAWS, elbo_parts, importance_bounds
from fastelbo._vae_settings import (
    as_dtype,
    as_prior,
    check_domain,
    check_same_outputs,
    is_optimal,
    positive_outputs,
    trained_likelihood,
    widths,
)
from fastelbo.divergences import FreeBits, as_free_bits
from fastelbo.likelihoods import Likelihood
from fastelbo.locations import Gaussian, NoOptimalScale
from fastelbo.posterior import noise_key, reparameterize
from fastelbo.priors import MixtureOfGaussians, StandardNormal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from fastelbo._typing import AnyLikelihood, Float64Array, FloatArray, Rng

#: Draws of a score that end within a lifetime.
MOST_DRAWS = 1 << 30
#: What standardised data hardly exceed.
LARGE = 20.0


class VAE(Estimator):
    """Variational autoencoder [1]_ with dense networks, trained by Adam [2]_ on the ELBO.

    Follows scikit-learn's conventions for a transformer and density model (``clone``, ``Pipeline``,
    ``GridSearchCV``) and needs NumPy alone. The encoder is D -> hidden -> 2 latent_dim, the decoder
    latent_dim -> reversed hidden -> D, with ReLU in between.

    Parameters
    ----------
    hidden : sequence of int, optional
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    latent_dim : int, optional
    likelihood : {"bernoulli", "gaussian", "squared_error"} or Likelihood, optional
        ``"bernoulli"``: X in [0, 1], the decoder gives logits. ``"gaussian"``: one standard
        deviation for all of X, found in training (``Gaussian("optimal")``).
        ``"squared_error"``: no density, but the plain reconstruction term. A Likelihood may be any
        whose parameters have the shape of X: positive ones, such as ``mean`` and ``theta`` of
        :class:`~fastelbo.NegativeBinomial`, are exponentials of what the decoder's last layer
        gives. Of counts the encoder sees log(1 + X).
    prior : {"standard", "mixture", "vamp"}, prior object or None, optional
        p(z). A name stands for the standard normal (None is the same), or for one that is learned
        with the networks: a ``"mixture"`` of Gaussians, or a VampPrior [3]_, whose components are
        the posteriors of learned pseudo-inputs, at first rows of X. A
        :class:`~fastelbo.StandardNormal`, :class:`~fastelbo.MixtureOfGaussians` or
        :class:`~fastelbo.VampPrior` of `latent_dim` dimensions is a density that is known, as in
        :func:`~fastelbo.elbo`: ``fit`` copies it, and training leaves it as it is. The KL to
        anything but the standard normal is estimated by one z.
    prior_components : int, optional
        Components of a prior that is learned.
    beta : float, optional
        Weight of the KL in training.
    free_bits : float or FreeBits, optional
        A floor under the KL in training, for the standard prior.
    epochs : int, optional
        Passes over X that ``fit`` makes.
    batch_size : int, optional
    learning_rate : float, optional
    dtype : {"float32", "float64"}, optional
        What is computed in.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None, optional
        Initial weights, order of the samples and noise. For one int the result is the same, bit for
        bit, whatever `num_threads`; matrix products may differ in the last bits between BLAS
        libraries and between their thread counts.
    num_threads : int or None, optional
        Threads of the kernels; None is fastelbo's own rule. Matrix products are BLAS's matter:
        where threadpoolctl is installed, it is limited to one thread during training and scoring,
        unless the layers are large (OPENBLAS_NUM_THREADS limits it always). As they take most of
        the time, the kernels leave the processors to them: two pools of threads that each wait by
        spinning can be a hundred times slower than one.
    verbose : bool, optional
        Show a progress bar where tqdm is installed.

    Attributes
    ----------
    history_ : dict of lists
        ``"elbo"`` (reconstruction - beta KL), ``"reconstruction"`` and ``"kl"`` of each epoch:
        means over the training data, the weights being as they stood, in nats.
    likelihood_ : Likelihood
        What data are scored by. Differs from what trained the model where the scale was
        ``"optimal"``: then it is the scale found in the last epoch.
    prior_ : StandardNormal, MixtureOfGaussians or VampPrior
        The prior as it stands: learned, or the copy of the one given.
    n_features_in_, n_iter_, n_parameters_ : int
        Features of X; epochs so far; weights and biases.

    References
    ----------
    .. [1] Kingma, Welling. Auto-encoding variational Bayes. ICLR 2014.
    .. [2] Kingma, Ba. Adam: a method for stochastic optimization. ICLR 2015.
    .. [3] Tomczak, Welling. VAE with a VampPrior. AISTATS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> X = np.random.default_rng(0).integers(0, 2, (200, 8)).repeat(4, axis=1)
    >>> model = fastelbo.VAE(latent_dim=4, hidden=(32,), epochs=20, random_state=0).fit(X)
    >>> model.transform(X).shape
    (200, 4)
    >>> model.history_["elbo"][-1] > model.history_["elbo"][0]
    True
    >>> model.sample(3).shape
    (3, 32)
    """

    likelihood_: Likelihood
    history_: dict[str, list[float]]
    n_features_in_: int
    #: What training trains.
    _network = Autoencoder

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | list[int] | int = (256,),
        latent_dim: int = 10,
        likelihood: AnyLikelihood = "bernoulli",
        prior: Literal["standard", "mixture", "vamp"]
        | StandardNormal
        | MixtureOfGaussians
        | None = "standard",
        prior_components: int = 50,
        beta: float = 1.0,
        free_bits: float | FreeBits = 0.0,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        dtype: DTypeLike = "float32",
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
        num_threads: int | None = 1,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.prior = prior
        self.prior_components = prior_components
        self.beta = beta
        self.free_bits = free_bits
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads
        self.verbose = verbose

    # Training -----------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train on X from new weights.

        Parameters
        ----------
        X : array_like, shape (N, D)
            Finite numbers; in [0, 1] for the Bernoulli likelihood.
        y : ignored

        Returns
        -------
        VAE
            This object.

        Raises
        ------
        ValueError, TypeError
            If X or a parameter does not fit; the message says where.
        FloatingPointError
            If training diverges.
        """
        X = self._start(X)
        with self._blas(self.batch_size), _Progress(self.epochs, self.verbose) as progress:
            for _ in range(self.epochs):
                self._epoch(X)
                progress.update(self.history_)
        return self

    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:
        """One more epoch, over X; begins with new weights where there are none.

        Parameters and result as for :meth:`fit`.
        """
        X = self._checked_data(X) if hasattr(self, "_model") else self._start(X)
        with self._blas(self.batch_size):
            self._epoch(X)
        return self

    def fit_transform(self, X: ArrayLike, y: object = None) -> FloatArray:
        """``fit(X).transform(X)``."""
        return self.fit(X).transform(X)

    def _start(self, X):
        """Check parameters and data, and draw new weights."""
        self._check_parameters()
        latent_dim, dtype = int(self.latent_dim), as_dtype(self.dtype)
        likelihood = trained_likelihood(self.likelihood)
        X = finite_matrix(X, dtype)
        check_domain(X, likelihood)
        outputs = len(likelihood.parameters)
        model = self._network(
            X.shape[1],
            widths(self.hidden),
            latent_dim,
            outputs,
            dtype,
            copy.deepcopy(as_prior(self.prior, latent_dim)),
            int(self.prior_components),
            positive_outputs(likelihood),
            likelihood._of_counts,
        )
        generator = np.random.default_rng(seed(self.random_state))
        model.initialise(generator, X)
        self._model, self._generator = model, generator
        self.likelihood_ = likelihood
        self.history_ = {"elbo": [], "reconstruction": [], "kl": []}
        self.n_features_in_ = X.shape[1]
        self._score_key = int(generator.integers(1 << 63))
        return X

    def _check_parameters(self):
        """All that can be said of them without data."""
        widths(self.hidden)
        as_whole(self.latent_dim, "latent_dim", 1)
        as_whole(self.epochs, "epochs", 1)
        as_whole(self.prior_components, "prior_components", 1)
        as_dtype(self.dtype)
        check_random_state(self.random_state)
        as_flag(self.verbose, "verbose")
        self._check_settings()

    def _check_settings(self):
        """Whatever may change between two epochs."""
        trained_likelihood(self.likelihood)
        as_whole(self.batch_size, "batch_size", 1)
        positive_number(self.learning_rate, "learning_rate")
        as_number(self.beta, "beta", 0)
        as_free_bits(self.free_bits)
        prior = as_prior(self.prior, self.latent_dim)
        if prior != "standard" and self.free_bits != 0.0:
            raise ValueError(
                "free_bits needs a KL in closed form, which only the standard prior has"
            )
        _threads.check(self.num_threads)

    def _epoch(self, X):
        self._check_settings()
        likelihood = trained_likelihood(self.likelihood)
        check_same_outputs(likelihood, self.likelihood_)
        optimal = is_optimal(likelihood)
        unchecked = copy.copy(likelihood)  # X has been checked: what may go wrong is the training
        unchecked._validate = False
        order = self._generator.permutation(len(X))
        reconstruction = kl = variance = 0.0
        for start in range(0, len(X), self.batch_size):
            rows = order[start : start + self.batch_size]
            try:
                value, divergence = self._model.step(
                    X,
                    rows,
                    unchecked,
                    float(self.beta),
                    self.free_bits,
                    self._generator,
                    float(self.learning_rate),
                    self.num_threads,
                )
            except NoOptimalScale as error:
                self._diverged(X, error)
            share = len(rows) / len(X)
            reconstruction += share * value
            kl += share * divergence
            if optimal:  # value = -D/2 (log(2 pi sigma^2) + 1) tells sigma
                variance += share * np.exp(-2 * value / X.shape[1] - 1) / (2 * np.pi)
        elbo = reconstruction - self.beta * kl
        if not np.isfinite(elbo):
            self._diverged(X, f"ELBO {elbo}")
        if optimal:
            likelihood = Gaussian(float(np.sqrt(variance)), missing=likelihood.missing)
        self.likelihood_ = likelihood
        for name, value in (("elbo", elbo), ("reconstruction", reconstruction), ("kl", kl)):
            self.history_[name].append(float(value))

    def _diverged(self, X, found):
        """Complain, and name the likely cause; what is left of the model is of no use."""
        epoch, reach = len(self.history_["elbo"]) + 1, float(np.abs(X).max())
        advice = f"a learning_rate lower than {self.learning_rate:g} may help"
        if reach > LARGE and not self.likelihood_._of_counts:
            advice = (
                f"the likely cause is that X is not scaled, its values reach {reach:.3g}: "
                f"standardise it (mean 0, standard deviation 1); {advice}"
            )
        del self._model
        raise FloatingPointError(
            f"training diverged in epoch {epoch} ({found}): {advice}"
        ) from None

    # Use ----------------------------------------------------------------------------------------

    def transform(self, X: ArrayLike) -> FloatArray:
        """Means of the posterior q(z|x).

        Parameters
        ----------
        X : array_like, shape (N, D)

        Returns
        -------
        ndarray, shape (N, latent_dim)
        """
        X = self._checked_data(X)
        Z = np.empty((len(X), self._model.latent_dim), X.dtype)
        for rows in _chunks(len(X)):
            Z[rows] = self._model.encode(X[rows], self.num_threads)[0]
        return Z

    def inverse_transform(self, Z: ArrayLike) -> FloatArray:
        """Means of p(x|z), by the likelihood's ``mean``: probabilities, rates, locations.

        Parameters
        ----------
        Z : array_like, shape (N, latent_dim)

        Returns
        -------
        ndarray, shape (N, D)
        """
        self._check_fitted()
        Z = finite_matrix(Z, self._model.dtype, "Z")
        if Z.shape[1] != self._model.latent_dim:
            raise ValueError(f"Z has {Z.shape[1]} columns, expected {self._model.latent_dim}")
        X = np.empty((len(Z), self.n_features_in_), Z.dtype)
        for rows in _chunks(len(Z)):
            outputs = self._model.decode(Z[rows], self.num_threads)
            with _threads.num_threads(self.num_threads):
                X[rows] = self.likelihood_.mean(*outputs)
        return X

    def sample(self, n: int = 1, *, rng: Rng = None) -> FloatArray:
        """Means of p(x|z) for n draws of z from the prior.

        Parameters
        ----------
        n : int
        rng : int, numpy.random.Generator or None, optional
            As in :func:`~fastelbo.reparameterize`; None is fresh entropy.

        Returns
        -------
        ndarray, shape (n, D)
        """
        self._check_fitted()
        n = as_whole(n, "n", 1)
        if n * self.n_features_in_ * self._model.dtype.itemsize > sys.maxsize:
            raise ValueError(f"n = {n} samples are more than any array holds")
        prior = self._model.prior(self.num_threads)
        if prior is not None:
            return self.inverse_transform(prior.sample(n, rng=rng))
        zeros = np.zeros((n, self._model.latent_dim), self._model.dtype)
        return self.inverse_transform(reparameterize(zeros, zeros, rng=rng))

    @property
    def prior_(self) -> StandardNormal | MixtureOfGaussians:
        self._check_fitted()
        return self._model.prior(self.num_threads) or StandardNormal()

    def score_samples(
        self, X: ArrayLike, *, samples: int | None = None, rng: Rng = None
    ) -> Float64Array:
        """A lower bound of log p(x) for each sample, in nats.

        It is the bound itself, whatever `beta` and `free_bits` the model was trained with. A
        score is a function of its row alone: the same, bit for bit, in whatever order, subset or
        number rows come, for all of them have the same noise.

        Parameters
        ----------
        X : array_like, shape (N, D)
        samples : int, optional
            None is the ELBO, averaged over 64 draws of z that are balanced: their mean and
            covariance are exactly those of the normal. Of scikit-learn's digits it is known to
            0.04 nats that way (by 64 independent draws to 0.25), where scores spread over 2.4. K is
            the importance-weighted bound of K independent draws [1]_, which grows with K towards
            log p(x): thousands give a fair estimate of it. They are weighed some at a time, so
            that memory does not grow with K.
        rng : int, numpy.random.Generator or None, optional
            Noise of the draws. None is the same noise at each call, so that scores compare.

        Returns
        -------
        ndarray, shape (N,)

        References
        ----------
        .. [1] Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. ICLR 2016.
        """
        if samples is None:
            reconstruction, kl = self.score_parts(X, rng=rng)
            return reconstruction - kl
        samples = as_whole(samples, "samples", 1)
        if samples > MOST_DRAWS:
            raise ValueError(f"samples must be at most {MOST_DRAWS}, got {samples}")
        X = self._checked_data(X)
        if not isinstance(rng, np.random.Generator):
            rng = np.random.default_rng(self._key_of(rng))
        with self._blas(DRAWS):
            return importance_bounds(
                self._model, self.likelihood_, X, samples, rng, self.num_threads
            )

    def score_parts(self, X: ArrayLike, *, rng: Rng = None) -> tuple[Float64Array, Float64Array]:
        """The two parts of :meth:`score_samples`: E_q[log p(x|z)] and KL, each (N,).

        The KL to a prior that is not the standard normal is estimated, by the same z.
        """
        X = self._checked_data(X)
        key = self._key_of(rng)
        with self._blas(DRAWS):
            return elbo_parts(self._model, self.likelihood_, X, key, self.num_threads)

    def _key_of(self, rng):
        return self._score_key if rng is None else noise_key(rng)

    def _blas(self, rows):
        """BLAS's threads as products of so many rows want them."""
        return threads_worth(rows * self._model.largest_layer)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean of :meth:`score_samples`."""
        return float(self.score_samples(X).mean())

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the latent dimensions: vae0, vae1, ..."""
        self._check_fitted()
        return np.array([f"vae{i}" for i in range(self._model.latent_dim)], dtype=object)

    def _checked_data(self, X):
        self._check_fitted()
        X = finite_matrix(X, self._model.dtype)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        check_domain(X, self.likelihood_)
        return X

    @property
    def n_iter_(self) -> int:
        self._check_fitted()
        return len(self.history_["elbo"])

    @property
    def n_parameters_(self) -> int:
        self._check_fitted()
        return self._model.adam.parameters.size

    # Files --------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file (an .npz of arrays and JSON; no pickle), whole or not at all.

        Training can go on where it stood: the optimizer and the random generator are in it. A
        `random_state` that is no int is forgotten.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        TypeError
            If the likelihood or the prior is of a class that does not come with fastelbo.
        """
        self._check_fitted()
        from fastelbo import _vae_files  # imports zipfile, which takes its time

        _vae_files.save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The model that :meth:`save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        VAE

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, or not such a file.
        """
        from fastelbo import _vae_files

        return _vae_files.load(cls, path)


class _Progress:
    """A tqdm bar over epochs, or nothing."""

    def __init__(self, epochs, shown):
        self._bar = None
        if shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=epochs, unit="epoch", dynamic_ncols=True)

    def update(self, history):
        if self._bar is not None:
            now = {name: f"{values[-1]:.2f}" for name, values in history.items()}
            self._bar.set_postfix(now, refresh=False)
            self._bar.update()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()


def _chunks(n):
    """Slices of n rows, CHUNK each."""
    return [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
