"""VAE: a scikit-learn style estimator on NumPy's matrix products and these kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_whole
from fastelbo._density import DensityModel, checked_samples
from fastelbo._lazily import takes_dask
from fastelbo._network import Autoencoder
from fastelbo._reading import as_real
from fastelbo._sklearn import NotFittedError as NotFittedError
from fastelbo._trained import chunks
from fastelbo._vae_scores import imputed
from fastelbo.amortization import rows_at_once
from fastelbo.divergences import FreeBits
from fastelbo.priors import MixtureOfGaussians, StandardNormal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from fastelbo._typing import (
        AnyLikelihood,
        Batches,
        Callback,
        Data,
        Float64Array,
        FloatArray,
        Missing,
        Network,
        Rng,
    )

#: Steps that posteriors are refined by at least, for values that are missing.
IMPUTE_STEPS = 20


class VAE(DensityModel):
    """Variational autoencoder [1]_ with dense networks, trained by Adam [2]_ on the ELBO.

    A transformer and density model of scikit-learn where that is installed, else its like on NumPy
    alone. The encoder is D -> hidden -> 2 latent_dim, the decoder latent_dim -> reversed hidden ->
    D. Methods take dask arrays, too, and answer them with such, by ``fastelbo.dask``.

    Parameters
    ----------
    hidden : sequence of int, optional
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    latent_dim : int, optional
    likelihood : str or Likelihood, optional
        ``"bernoulli"``: X in [0, 1], the decoder gives logits; other X are an error that says which
        likelihoods take them, for scores under one that the data had chosen would not compare.
        ``"gaussian"``: one standard deviation for all of X, found in training
        (``Gaussian("optimal")``). ``"squared_error"``: no density, but the plain reconstruction
        term. ``"poisson"``, ``"negative_binomial"``, ``"laplace"`` and so on: those that need no
        argument. A Likelihood may be any whose parameters have the shape of X: positive ones, such
        as ``mean`` and ``theta`` of :class:`~fastelbo.NegativeBinomial`, are exponentials of what
        the decoder's last layer gives. Of counts the encoder sees log(1 + X), of the classes of a
        :class:`~fastelbo.ColumnLikelihood`, which is for tables of mixed kinds, one-hot rows.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in X marks a missing value. It counts for nothing in the likelihood, whatever
        that says itself; for the encoder the mean of its column stands for it, with a flag beside.
        ``impute`` fills it.
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
    beta : float or callable, optional
        Weight of the KL in training: a number, or a function of the step such as a
        :class:`~fastelbo.BetaSchedule`. Steps are the optimizer's, one a minibatch, counted from 0
        by ``fit`` and on by ``partial_fit``.
    free_bits : float or FreeBits, optional
        A floor under the KL in training, for the standard prior.
    refine_steps : int, optional
        Semi-amortized inference [4]_: so many steps of :func:`~fastelbo.refine_posterior` from what
        the encoder says of each row. In training, decoder and prior learn by the posteriors
        refined, and the encoder by its own ELBO, not through the steps [5]_. `history_` is of those
        refined, and so are ``transform`` and the scores, which climb the ELBO itself.
    encoder, decoder : object with forward, backward and parameters, or None, optional
        A network of one's own in the place of dense layers: see the notes. ``fit`` copies it.
    activation : {"relu", "tanh", "elu", "silu", "gelu"}, optional
        What stands between two layers; ``"gelu"`` is the form with tanh, as in
        ``torch.nn.GELU("tanh")``.
    epochs : int, optional
        Passes over X that ``fit`` makes.
    batch_size : int, optional
    learning_rate : float or callable, optional
        A number, or a function of the step like `beta`:
        :class:`~fastelbo.LearningRateSchedule` has a warm-up and a way down.
    weight_decay : float, optional
        Of AdamW [6]_, as in ``torch.optim.AdamW``: at each step every parameter loses this share of
        itself, times the learning rate.
    max_grad_norm : float or None, optional
        Gradients longer than this, all parameters taken together, are cut to this length, as
        ``torch.nn.utils.clip_grad_norm_`` does.
    dtype : {"float32", "float64"}, optional
        What is computed in.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None, optional
        Initial weights, order of the samples and noise; None draws from NumPy's global state, as
        in scikit-learn. For one int the result is the same, bit for bit, whatever `num_threads`;
        matrix products may differ in the last bits between BLAS libraries and between their thread
        counts.
    num_threads : int or None, optional
        Threads of the kernels; None is fastelbo's own rule. Matrix products are BLAS's matter:
        where threadpoolctl is installed, it is limited to one thread during training and scoring,
        unless the layers are large (OPENBLAS_NUM_THREADS limits it always). As they take most of
        the time, the kernels leave the processors to them: two pools of threads that each wait by
        spinning can be a hundred times slower than one.
    validation_fraction : float or None, optional
        Part of the rows of X that ``fit`` holds out, to find ``"val_elbo"`` after each epoch. None
        is none of them, or 0.1 with `early_stopping`. Which ones depends on their number alone, so
        that models compare.
    early_stopping : bool, optional
        End training once ``"val_elbo"`` has not risen by more than `tol` nats for
        `n_iter_no_change` epochs, each compared with the best at the beta of the present one.
        However training ends, the weights are then those of the best epoch.
    n_iter_no_change : int, optional
    tol : float, optional
    warm_start : bool, optional
        Let ``fit`` go on with the weights, the optimizer and `history_` that are there.
    callbacks : callable, sequence of callable or None, optional
        Called by ``fit`` after each epoch: ``callback(model, figures)`` with this object, which can
        be used, and a dict of ``"epoch"`` and what `history_` gets. One that returns true ends the
        training.
    verbose : bool, optional
        Show a progress bar, or print a line an epoch where tqdm is not installed.

    Attributes
    ----------
    history_ : dict of lists
        ``"elbo"`` (reconstruction - beta KL), ``"reconstruction"`` and ``"kl"`` of each epoch:
        means over the training data, the weights being as they stood, in nats. ``"beta"`` is that
        of the epoch's last step, ``"active_units"`` how many latent dimensions tell rows apart, as
        in :func:`~fastelbo.active_units`. Where rows are held out, ``"val_elbo"``,
        ``"val_reconstruction"`` and ``"val_kl"`` are theirs after the epoch.
    likelihood_ : Likelihood
        What data are scored by. Differs from what trained the model where the scale was
        ``"optimal"``: then it is the scale found in the last epoch.
    prior_ : StandardNormal, MixtureOfGaussians or VampPrior
        The prior as it stands: learned, or the copy of the one given.
    encoder_, decoder_ : object or None
        The copies of networks of one's own that are trained.
    n_features_in_, n_iter_, n_parameters_ : int
        Features of X; epochs so far; weights and biases.
    feature_names_in_ : ndarray of str
        Their names, where X was a DataFrame.

    Notes
    -----
    X is read where it lies, a batch at a time, and checked as it is read: nothing of it is
    converted as a whole, whatever its dtype. It may be an array or what NumPy makes one of; a
    memory map; a sparse matrix of SciPy, of which CSR is borrowed and all else made CSR (the
    likelihoods that read sparse counts do so here, and the encoder sees a batch made dense); an
    array of HDF5 or Zarr, or the X of an AnnData that is backed by a file. Arrays in memory whose
    rows are not contiguous are copied. Training reads all of X once beforehand, and then rows at
    random: the models are those of the same X in memory, bit for bit. Where stores are in chunks,
    32 MiB of rows are read together.

    ``fit`` and ``partial_fit`` also take X in batches, each a matrix of any of these kinds, or a
    pair (x, y) of which x counts: a list or tuple of them, an iterable that gives them again at
    each pass (a DataLoader, say), or a function without arguments that returns one. A generator
    gives them once: it is one epoch, whatever `epochs` says. An epoch trains on one batch after the
    other as ``partial_fit`` does, in minibatches of `batch_size`; figures are means over all rows.
    What stands for missing values, and where a VampPrior begins, is found in the first batch.

    A network of one's own, a convolution say, has three methods on arrays:

    - ``forward(x) -> (output, cache)`` of rows x (B, D), or z (B, latent_dim). The encoder sees
      counts as log(1 + x), classes as one-hot rows, and D flags beside with ``missing="nan"``; its
      output is (B, 2 latent_dim): means and log-variances of the posterior. The decoder's is
      (B, D), or (B, P D) for a likelihood of P ``parameters``, one after the other (of columns of
      several kinds, those of each block). `x` is not to be written to; `cache` is whatever the way
      back needs.
    - ``backward(cache, gradient) -> (gradient of x, gradients of parameters)``, of a gradient like
      the output; a list with one for each parameter. An encoder may give None for that of x,
      unless the prior is ``"vamp"``.
    - ``parameters()``: a list of arrays of floats, always the same ones, which training writes to.

    ``fit`` begins with the parameters that the object has; `hidden` and `activation` are of dense
    layers alone. ``examples/own_networks.py`` has a convolutional encoder and decoder.

    References
    ----------
    .. [1] Kingma, Welling. Auto-encoding variational Bayes. ICLR 2014.
    .. [2] Kingma, Ba. Adam: a method for stochastic optimization. ICLR 2015.
    .. [3] Tomczak, Welling. VAE with a VampPrior. AISTATS 2018.
    .. [4] Kim, Wiseman, Miller, Sontag, Rush. Semi-amortized variational autoencoders. ICML 2018.
    .. [5] Krishnan, Liang, Hoffman. On the challenges of learning with inference networks on
       sparse, high-dimensional data. AISTATS 2018.
    .. [6] Loshchilov, Hutter. Decoupled weight decay regularization. ICLR 2019.

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

    #: What training trains.
    _network = Autoencoder
    _files = "fastelbo._vae_files"

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | list[int] | int = (256,),
        latent_dim: int = 10,
        likelihood: AnyLikelihood = "bernoulli",
        missing: Missing = None,
        prior: Literal["standard", "mixture", "vamp"]
        | StandardNormal
        | MixtureOfGaussians
        | None = "standard",
        prior_components: int = 50,
        beta: float | Callable[[int], float] = 1.0,
        free_bits: float | FreeBits = 0.0,
        refine_steps: int = 0,
        epochs: int = 100,
        batch_size: int = 128,
        encoder: Network | None = None,
        decoder: Network | None = None,
        activation: Literal["relu", "tanh", "elu", "silu", "gelu"] = "relu",
        learning_rate: float | Callable[[int], float] = 1e-3,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        dtype: DTypeLike = "float32",
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
        num_threads: int | None = 1,
        validation_fraction: float | None = None,
        early_stopping: bool = False,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.missing = missing
        self.prior = prior
        self.prior_components = prior_components
        self.beta = beta
        self.free_bits = free_bits
        self.refine_steps = refine_steps
        self.epochs = epochs
        self.batch_size = batch_size
        self.encoder = encoder
        self.decoder = decoder
        self.activation = activation
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.verbose = verbose

    # Training -----------------------------------------------------------------------------------

    @takes_dask
    def fit(self, X: Data | Batches, y: object = None) -> Self:
        """Train on X: from new weights, or from those that are there with `warm_start`.

        Ctrl-C ends training, not the program: the model is as it was after the last whole epoch,
        and a :class:`~fastelbo.TrainingWarning` says which. (scikit-learn's networks do the same:
        a notebook runs on.) Whatever else ends an epoch halfway is raised, and leaves the model as
        it was after the last whole one, too.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D), or batches of such
            Finite numbers; in [0, 1] for the Bernoulli likelihood. The notes of the class say where
            it may lie.
        y : ignored

        Returns
        -------
        VAE
            This object.

        Raises
        ------
        ValueError, TypeError
            If X or a parameter does not fit; the message says where, and in which batch.
        OSError
            If X cannot be read any more, and which rows or batch.
        FloatingPointError
            If training diverges; then the model is not fitted.

        Warns
        -----
        TrainingWarning
            Of data that are not scaled, of a posterior that has collapsed, of an interruption.
        """
        with self._all_or_nothing():
            self._fit(X)
        return self

    @takes_dask
    def partial_fit(self, X: Data | Batches, y: object = None) -> Self:
        """One more epoch, over all of X; begins with new weights where there are none.

        Parameters and result as for :meth:`fit`. Neither rows are held out nor callbacks called.
        Ctrl-C is raised: the loop is the caller's. The model is as it was before the epoch, then.
        """
        with self._all_or_nothing():
            self._fit_once(X)
        return self

    # Use ----------------------------------------------------------------------------------------

    @takes_dask
    def transform(self, X: Data) -> FloatArray:
        """Means of the posterior q(z|x).

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
            Finite numbers, in the likelihood's domain or not: only scores need its density. The
            notes of the class say where it may lie.

        Returns
        -------
        ndarray, shape (N, latent_dim)
        """
        X = self._checked_data(X, scored=bool(self.refine_steps))
        found = self._posterior(X)
        if self.refine_steps:
            for rows in chunks(len(X), rows_at_once(self._model.latent_dim)):
                found[:, rows] = self._refined(X[rows], *found[:, rows], self._score_key)
        return found[0]

    def _refined(self, x, mu, logvar, key, least=0):
        """(mu, logvar) of these rows as they are used, after so many steps at least."""
        steps = max(as_whole(self.refine_steps, "refine_steps", 0), least)
        if not steps:
            return mu, logvar
        return self._model.refine(
            x, mu, logvar, self.likelihood_, 1.0, steps, key, self.num_threads
        )

    @takes_dask
    def inverse_transform(self, Z: ArrayLike) -> FloatArray:
        """Means of p(x|z), by the likelihood's ``mean``: probabilities, rates, locations.

        Parameters
        ----------
        Z : array_like, shape (N, latent_dim)

        Returns
        -------
        ndarray, shape (N, D)
        """
        Z = self._checked_latents(Z)
        return self._means(Z, lambda rows: self._model.decode(Z[rows], self.num_threads))

    def impute(self, X: ArrayLike, *, samples: int = 64, rng: Rng = None) -> FloatArray:
        """X with its missing values filled in, of a model with ``missing="nan"``.

        A value that is missing becomes its mean given what was observed of its row: the
        likelihood's ``mean`` (of classes the most probable one), averaged over draws of z. These
        are of the encoder's posterior after 20 steps of :func:`~fastelbo.refine_posterior`, or
        `refine_steps` if those are more, for encoders know little of what rows lack. Of digits,
        trained with 30 % of the pixels missing, the steps take the error at half of them from 0.203
        to 0.175. A thousand weighted draws of the encoder's posterior reach 0.190, and five rounds
        of pseudo-Gibbs sampling end at 0.242. All rows have the same noise.

        Parameters
        ----------
        X : array_like, shape (N, D)
        samples : int, optional
            Draws of z, of each row: an even number, since they come in pairs.
        rng : int, numpy.random.Generator or None, optional
            Noise of the draws. None is the same noise at each call.

        Returns
        -------
        ndarray, shape (N, D)
            A new array in the dtype of X, float32 of half precision, or float64 if X has no dtype
            that holds fractions.

        Examples
        --------
        >>> import numpy as np
        >>> import fastelbo
        >>> X = np.random.default_rng(0).normal(size=(300, 1)) * [1.0, -1.0, 2.0]
        >>> options = {"hidden": (32,), "latent_dim": 2, "epochs": 60, "random_state": 0}
        >>> model = fastelbo.VAE(likelihood="gaussian", missing="nan", **options).fit(X)
        >>> model.impute([[1.0, -1.0, np.nan]]).round()
        array([[ 1., -1.,  2.]])
        """
        checked = self._checked_data(X).checked()
        if self._model.visible.fill is None:
            raise ValueError('impute needs a model that was fitted with missing="nan"')
        samples = as_whole(samples, "samples", 2)
        if samples % 2:
            raise ValueError(f"samples must be even, since draws come in pairs, got {samples}")
        filled = np.array(_arrays.as_floats(as_real(X, "X"), "X"))
        gaps = np.isnan(filled)
        rows = np.flatnonzero(gaps.any(axis=1))
        with self._blas(samples):
            found = imputed(
                self._model,
                self.likelihood_,
                checked[rows],
                samples,
                self._key_of(rng),
                partial(self._refined, least=IMPUTE_STEPS),
                self.num_threads,
            )
        filled[gaps] = found[gaps[rows]]
        return filled

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
        return self.inverse_transform(self._drawn(n, rng))

    @takes_dask
    def score_samples(
        self, X: Data, *, samples: int | None = None, rng: Rng = None
    ) -> Float64Array:
        """A lower bound of log p(x) for each sample, in nats.

        It is the bound itself, whatever `beta` and `free_bits` the model was trained with. A
        score is a function of its row alone: the same, bit for bit, in whatever order, subset or
        number rows come, for all of them have the same noise.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
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
        samples = checked_samples(samples)
        return self._bounds(self._checked_data(X), samples, rng)

    def score_parts(self, X: Data, *, rng: Rng = None) -> tuple[Float64Array, Float64Array]:
        """The two parts of :meth:`score_samples`: E_q[log p(x|z)] and KL, each (N,).

        The KL to a prior that is not the standard normal is estimated, by the same z.
        """
        return self._parts(self._checked_data(X), rng)

    def score(self, X: Data, y: object = None) -> float:
        """Mean of :meth:`score_samples`."""
        return float(self.score_samples(X).mean())

    @property
    def encoder_(self) -> Network | None:
        self._check_fitted()
        return self._model.given["encoder"]

    @property
    def decoder_(self) -> Network | None:
        self._check_fitted()
        return self._model.given["decoder"]
