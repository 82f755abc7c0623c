"""CountVAE: a VAE of single cells' counts, with library sizes, batches and dispersions of genes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_numbers, as_whole, shown
from fastelbo._cells import Cells, Setting, check_genes, codes_of, is_anndata
from fastelbo._count_network import (
    CountAutoencoder,
    CountVisible,
    drawn_counts,
    likelihood_of_counts,
)
from fastelbo._density import DensityModel, checked_samples
from fastelbo._sklearn import validate_data
from fastelbo._trained import chunks
from fastelbo._vae_settings import as_dtype
from fastelbo.divergences import FreeBits
from fastelbo.posterior import generator_of, noise_key, reparameterize
from fastelbo.priors import MixtureOfGaussians, StandardNormal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from fastelbo._typing import Callback, Float64Array, FloatArray, Number, Rng


#: Of library sizes: draws from means that add up to it are far below what an int64 can be.
LARGEST = 1e12


class CountVAE(DensityModel):
    """A VAE of single cells' counts, in the manner of scVI [1]_, on NumPy and these kernels.

    Counts of gene g in cell n are of mean ``library[n] * softmax(decoder(z[n], batch[n]))[g]``,
    where the library size is the cell's own number of counts, observed, and negative binomial with
    an inverse dispersion that each gene has and training finds. The encoder sees log(1 + x) of raw
    counts and the batch; as the decoder is told the batch, too, z has no need to. A transformer
    and density model of scikit-learn where that is installed, else its like on NumPy alone.

    X is an AnnData, in memory or backed by a file (``pip install "fastelbo[anndata]"``), or a
    matrix: an array, a memmap, a sparse matrix in CSR format, of HDF5, Zarr or dask. It is read a
    minibatch at a time, in whatever dtype it is, and never converted whole.

    Parameters
    ----------
    hidden : sequence of int, optional
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    latent_dim : int, optional
    likelihood : {"nb", "zinb", "poisson"}, optional
        Negative binomial; the same with an excess of zeros, whose probability the decoder gives;
        or Poisson, without dispersion.
    layer : str, optional
        Of an AnnData, which of ``adata.layers`` has the raw counts; None is ``adata.X``.
    batch_key : str, optional
        Of an AnnData, the column of ``adata.obs`` that says each cell's batch. For arrays, methods
        take the labels as ``batch=``.
    prior : {"standard", "mixture", "vamp"}, prior object or None, optional
        As for :class:`~fastelbo.VAE`, and so are those that follow.
    prior_components : int, optional
    beta : float or callable, optional
    free_bits : float or FreeBits, optional
    epochs, batch_size : int, optional
    activation, learning_rate, weight_decay, max_grad_norm : optional
    dtype : {"float32", "float64"}, optional
        What is computed in.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None, optional
    num_threads : int or None, optional
    validation_fraction, early_stopping, n_iter_no_change, tol : optional
    warm_start, callbacks, verbose : optional

    Attributes
    ----------
    batches_ : ndarray or None
        Labels of the batches, sorted; of a categorical column all of its categories.
    theta_ : ndarray, shape (D,), or None
        Inverse dispersions of the genes: the variance of a count is mean + mean^2 / theta.
    likelihood_ : Likelihood
        Of counts by mean, theta and the logits of further zeros, as far as it has them.
    history_, prior_, n_iter_, n_parameters_, n_features_in_
        As for :class:`~fastelbo.VAE`.
    feature_names_in_ : ndarray of str
        Names of the genes, where X has some; those of data to come must be the same.

    See Also
    --------
    VAE : of any other data.
    NegativeBinomial : the likelihood.

    Notes
    -----
    The latent space goes where scanpy looks for it by ``adata.obsm["X_fastelbo"] =
    model.transform(adata)``. A cell without a single count has means of 0, its limit: it scores
    minus its KL, and teaches nothing but the prior.

    References
    ----------
    .. [1] Lopez, Regier, Cole, Jordan, Yosef. Deep generative modeling for single-cell
       transcriptomics. Nature Methods 15, 2018.

    Examples
    --------
    Two types of cells, which differ in what they express:

    >>> import numpy as np
    >>> import fastelbo
    >>> rng = np.random.default_rng(0)
    >>> kind = rng.integers(0, 2, 200)
    >>> X = rng.poisson(np.where(kind[:, None], [4.0, 1.0, 2.0] * 5, [1.0, 4.0, 2.0] * 5))
    >>> model = fastelbo.CountVAE(
    ...     hidden=(16,), latent_dim=2, epochs=20, batch_size=20, learning_rate=0.01, random_state=0
    ... ).fit(X)
    >>> model.transform(X).shape
    (200, 2)
    >>> shares = model.normalized_expression(X)
    >>> bool(shares[kind == 1, 0].mean() > 2 * shares[kind == 0, 0].mean())
    True
    """

    #: What training trains.
    _network = CountAutoencoder
    _files = "fastelbo._count_files"
    _as_trained = staticmethod(likelihood_of_counts)
    # What VAE may be told, and this may not.
    missing = encoder = decoder = None
    refine_steps = 0

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | list[int] | int = (128,),
        latent_dim: int = 10,
        likelihood: Literal["nb", "zinb", "poisson"] = "nb",
        layer: str | None = None,
        batch_key: str | None = None,
        prior: Literal["standard", "mixture", "vamp"]
        | StandardNormal
        | MixtureOfGaussians
        | None = "standard",
        prior_components: int = 50,
        beta: float | Callable[[int], float] = 1.0,
        free_bits: float | FreeBits = 0.0,
        epochs: int = 100,
        batch_size: int = 128,
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
        self.layer = layer
        self.batch_key = batch_key
        self.prior = prior
        self.prior_components = prior_components
        self.beta = beta
        self.free_bits = free_bits
        self.epochs = epochs
        self.batch_size = batch_size
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

    def fit(self, X: Any, y: object = None, *, batch: ArrayLike | None = None) -> Self:
        """Train on X: from new weights, or from those that are there with `warm_start`.

        Ctrl-C ends training as it does that of :class:`~fastelbo.VAE`.

        Parameters
        ----------
        X : AnnData, or matrix of shape (N, D)
            Raw counts, cells by genes.
        y : ignored
        batch : array_like of str or int, shape (N,), optional
            Labels of the cells' batches, where X is a matrix; any that cells to come may have
            must be among them.

        Returns
        -------
        CountVAE
            This object.

        Raises
        ------
        ValueError, TypeError
            If X has anything but counts, a layer or batch_key is not there, or a parameter does
            not fit; the message says where.
        FloatingPointError
            If training diverges; then the model is not fitted.

        Warns
        -----
        TrainingWarning
            Of a posterior that has collapsed, of an interruption.
        """
        with self._all_or_nothing():
            self._fit(self._cells(X, batch, new=not (self.warm_start and hasattr(self, "_model"))))
        return self

    def partial_fit(self, X: Any, y: object = None, *, batch: ArrayLike | None = None) -> Self:
        """One more epoch, over all of X; begins with new weights where there are none.

        Parameters and result as for :meth:`fit`: the first X tells which batches there are. Neither
        rows are held out nor callbacks called. Ctrl-C is raised: the loop is the caller's. The
        model is as it was before the epoch, then.
        """
        with self._all_or_nothing():
            self._fit_once(self._cells(X, batch, new=not hasattr(self, "_model")))
        return self

    def fit_transform(
        self, X: Any, y: object = None, *, batch: ArrayLike | None = None
    ) -> FloatArray:
        """``fit(X, batch=batch).transform(X, batch=batch)``."""
        return self.fit(X, batch=batch).transform(X, batch=batch)

    def _check_parameters(self):
        super()._check_parameters()
        for name in ("layer", "batch_key"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str)):
                raise TypeError(f"{name} must be a str or None, got {shown(value)}")

    def _visible(self, likelihood, features):
        return CountVisible(likelihood, features)

    def _keep_features(self, given):
        super()._keep_features(given)
        if is_anndata(given):
            self.feature_names_in_ = given.var_names.to_numpy(object)

    def _read(self, cells, dtype):
        return cells

    def _checked_data(self, X, scored=True, read=None):
        return X if isinstance(X, Cells) else self._cells(X, None)

    def _cells(self, X, batch, new=False):
        """The cells of X, to be read later, for a model that is to begin with them or is there."""
        if new:
            self._check_parameters()
            dtype, known = as_dtype(self.dtype), None
        else:
            self._check_fitted()
            dtype, known = self._model.dtype, self._model.visible.labels
        if batch is None and self.batch_key is not None and not is_anndata(X):
            raise ValueError(
                f"batch_key={self.batch_key!r} is a column of an AnnData: of a matrix, batch= has "
                "the labels"
            )
        cells = Cells(X, dtype, self.layer, self.batch_key, batch)
        if new:
            return cells
        if is_anndata(X) and hasattr(self, "feature_names_in_"):
            check_genes(X.var_names.to_numpy(object), self.feature_names_in_)
        else:
            validate_data(self, X, reset=False, skip_check_array=True)
        return cells.coded(known)

    # Use ----------------------------------------------------------------------------------------

    def transform(self, X: Any, *, batch: ArrayLike | None = None) -> FloatArray:
        """Means of the posterior q(z|x), which say what a cell is, whatever its batch.

        Parameters
        ----------
        X : AnnData, or matrix of shape (N, D)
            Counts of the genes that the model was trained on.
        batch : array_like, shape (N,), optional
            Labels of batches, of a matrix.

        Returns
        -------
        ndarray, shape (N, latent_dim)

        Raises
        ------
        ValueError, TypeError
            If X has other genes or anything but counts, or a batch is not among `batches_`.
        """
        return self._posterior(self._cells(X, batch))[0]

    def normalized_expression(
        self,
        X: Any,
        *,
        batch: ArrayLike | None = None,
        transform_batch: str | int | ArrayLike | None = None,
        library_size: Number | ArrayLike | Literal["observed"] = 1.0,
    ) -> FloatArray:
        """What cells express, without noise: shares of their genes, decoded at posterior means.

        Parameters
        ----------
        X, batch
            As for :meth:`transform`.
        transform_batch : str or int, or array_like of them, shape (N,), optional
            The batch to decode to, as if cells came from it; None is each cell's own.
        library_size : float, array_like of shape (N,) or "observed", optional
            What a cell's shares add up to: 1, or 1e4, say, or its own counts. They are means of
            counts before further zeros, if the likelihood has some.

        Returns
        -------
        ndarray, shape (N, D)

        Examples
        --------
        >>> import numpy as np
        >>> import fastelbo
        >>> X = np.random.default_rng(0).poisson(3.0, (60, 5))
        >>> batch = np.arange(60) % 2
        >>> model = fastelbo.CountVAE(hidden=(8,), epochs=1, random_state=0).fit(X, batch=batch)
        >>> shares = model.normalized_expression(X, batch=batch, transform_batch=0)
        >>> shares.sum(axis=1).round(5).tolist() == [1.0] * 60
        True
        """
        cells = self._cells(X, batch)
        codes = cells.codes
        if transform_batch is not None:
            codes = self._codes(transform_batch, len(cells), "transform_batch")
        sizes = None
        if not (isinstance(library_size, str) and library_size == "observed"):
            sizes = _sizes(library_size, len(cells))
        found = np.empty(cells.shape, cells.dtype)
        for rows in chunks(len(cells)):
            some = cells[rows]
            to = Setting(some.library if sizes is None else sizes[rows], _some(codes, rows))
            mu, _ = self._model.encode(some, self.num_threads)
            found[rows] = self._model.decode(mu, self.num_threads, to)[0]
        return found

    def inverse_transform(
        self,
        Z: ArrayLike,
        *,
        library_size: Number | ArrayLike = 1.0,
        batch: str | int | ArrayLike | None = None,
    ) -> FloatArray:
        """Means of counts p(x|z), for library sizes and batches.

        Parameters
        ----------
        Z : array_like, shape (N, latent_dim)
        library_size : float or array_like, shape (N,), optional
        batch : str or int, or array_like of them, shape (N,)
            Needed where the model has batches.

        Returns
        -------
        ndarray, shape (N, D)
        """
        Z = self._checked_latents(Z)
        to = self._setting(library_size, batch, len(Z))
        return self._means(
            Z, lambda rows: self._model.decode(Z[rows], self.num_threads, to.of(rows))
        )

    def _rebuilt(self, X):
        return self.normalized_expression(X, library_size="observed")

    def _decoder_of(self, X):
        cells, model = self._checked_data(X), self._model

        def decode(z, rows):
            some = cells[np.tile(rows, len(z) // len(rows))]
            z = z.astype(model.dtype, copy=False)
            return model.decode_and_pull(z, self.num_threads, some)

        return decode

    def posterior_predictive(
        self,
        X: Any,
        *,
        batch: ArrayLike | None = None,
        samples: int | None = None,
        rng: Rng = None,
    ) -> NDArray[np.int64]:
        """Counts drawn for each cell: of a z from its posterior, with its library size and batch.

        Parameters
        ----------
        X, batch
            As for :meth:`transform`.
        samples : int, optional
            So many draws of each, along a leading axis.
        rng : int, numpy.random.Generator or None, optional
            None is fresh entropy.

        Returns
        -------
        ndarray of int64, shape (N, D) or (samples, N, D)
        """
        cells = self._cells(X, batch)
        draws = as_whole(samples, "samples", 1, optional=True)
        generator = generator_of(rng)
        counts = np.empty((draws or 1, *cells.shape), np.int64)
        for rows in chunks(len(cells)):
            some = cells[rows]
            mu, logvar = self._model.encode(some, self.num_threads)
            for of_draw in counts:
                z = reparameterize(mu, logvar, rng=noise_key(generator))
                of_draw[rows] = self._counts(z, some, generator)
        return counts if draws else counts[0]

    def sample(
        self,
        n: int = 1,
        *,
        library_size: Number | ArrayLike,
        batch: str | int | ArrayLike | None = None,
        rng: Rng = None,
    ) -> NDArray[np.int64]:
        """Counts of n new cells, drawn: z from the prior, x from p(x|z).

        Parameters
        ----------
        n : int
        library_size : float or array_like, shape (n,)
            What the means of a cell's counts add up to.
        batch : str or int, or array_like of them, shape (n,)
            Needed where the model has batches.
        rng : int, numpy.random.Generator or None, optional
            None is fresh entropy.

        Returns
        -------
        ndarray of int64, shape (n, D)
        """
        generator = generator_of(rng)
        Z = self._drawn(n, generator).astype(self._model.dtype, copy=False)
        to = self._setting(library_size, batch, len(Z))
        counts = np.empty((len(Z), self.n_features_in_), np.int64)
        for rows in chunks(len(Z)):
            counts[rows] = self._counts(Z[rows], to.of(rows), generator)
        return counts

    def _counts(self, z, setting, generator):
        outputs = self._model.decode(z, self.num_threads, setting)
        return drawn_counts(self._model.visible, outputs, generator)

    def _setting(self, library_size, batch, n):
        self._check_fitted()
        return Setting(_sizes(library_size, n), self._codes(batch, n, "batch"))

    def _codes(self, batch, n, name):
        """The codes of labels, one for each of n cells or one for all."""
        if isinstance(batch, str | int | np.integer):
            batch = np.full(n, batch)
        return codes_of(batch, n, self._model.visible.labels, name)

    def score_samples(
        self,
        X: Any,
        *,
        batch: ArrayLike | None = None,
        samples: int | None = None,
        rng: Rng = None,
    ) -> Float64Array:
        """A lower bound of log p(x) for each cell, in nats, given its library size and batch.

        Parameters
        ----------
        X, batch
            As for :meth:`transform`.
        samples, rng
            As for :meth:`fastelbo.VAE.score_samples`; as there, a score is a function of its cell
            alone.

        Returns
        -------
        ndarray, shape (N,)
        """
        samples = checked_samples(samples)
        return self._bounds(self._cells(X, batch), samples, rng)

    def score_parts(
        self, X: Any, *, batch: ArrayLike | None = None, rng: Rng = None
    ) -> tuple[Float64Array, Float64Array]:
        """The two parts of :meth:`score_samples`: E_q[log p(x|z)] and KL, each (N,)."""
        return self._parts(self._cells(X, batch), rng)

    def score(self, X: Any, y: object = None, *, batch: ArrayLike | None = None) -> float:
        """Mean of :meth:`score_samples`."""
        return float(self.score_samples(X, batch=batch).mean())

    @property
    def batches_(self) -> NDArray[Any] | None:
        self._check_fitted()
        return self._model.visible.labels

    @property
    def theta_(self) -> FloatArray | None:
        self._check_fitted()
        return self._model.theta if self._model.visible.dispersed else None


def _sizes(library_size, n):
    """A library size for each of n cells, (n,)."""
    sizes = as_numbers(library_size, "library_size")
    if sizes.shape not in ((), (n,)):
        raise _arrays.shape_error("library_size", sizes.shape, f"() or ({n},)")
    if not ((sizes >= 0) & (sizes <= LARGEST)).all():
        raise ValueError(f"library_size must be in [0, {LARGEST:g}], got {shown(library_size)}")
    return np.broadcast_to(sizes, n)


def _some(codes, rows):
    return None if codes is None else codes[rows]
