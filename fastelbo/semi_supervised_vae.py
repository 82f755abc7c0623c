"""SemiSupervisedVAE: M2 as a scikit-learn style classifier, on NumPy's matrix products."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_number, as_whole
from fastelbo._blas import threads_worth
from fastelbo._class_network import ClassAutoencoder
from fastelbo._estimator import check_random_state, names_nothing, seed
from fastelbo._network import check_activation
from fastelbo._reading import as_rows, as_unmasked
from fastelbo._sklearn import ClassifierMixin, column_or_1d, validate_data
from fastelbo._trained import chunks
from fastelbo._training import Training, diverged, warn_of_scale
from fastelbo._vae_settings import (
    as_beta,
    as_dtype,
    as_learning_rate,
    check_domain,
    check_optimizer,
    check_same_network,
    trained_likelihood,
    widths,
)
from fastelbo._visible import Visible
from fastelbo.posterior import reparameterize

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from fastelbo._typing import AnyLikelihood, Callback, Data, FloatArray, Rng

#: The figures of an epoch.
HISTORY = ("objective", "accuracy", "beta")


class SemiSupervisedVAE(ClassifierMixin, Training):
    """The semi-supervised model M2 [1]_: a classifier that learns from rows without a label, too.

    q(y|x), q(z|x, y) and p(x|y, z) are dense networks: D -> hidden -> C,
    D + C -> hidden -> 2 latent_dim and latent_dim + C -> reversed hidden -> D. Adam climbs
    :func:`~fastelbo.m2_elbo`, every class of a row being decoded; p(y) is uniform and p(z) the
    standard normal. Follows scikit-learn's conventions for a classifier.

    Parameters
    ----------
    hidden : sequence of int, optional
        Widths of the hidden layers; the decoder has them in reverse.
    latent_dim : int, optional
    likelihood : str or Likelihood, optional
        As for :class:`~fastelbo.VAE`, except that a scale must be known.
    alpha : float, optional
        Weight of log q(y|x) of rows with a label. Reconstructions count tens of nats: a weight of
        the same size lets labels be heard.
    beta : float or callable, optional
        Weight of the KL: a number, or a function of the step such as a
        :class:`~fastelbo.BetaSchedule`.
    labelled_repeats : int, optional
        How often rows with a label come in an epoch; others come once. Where labels are few,
        minibatches have more of them that way.
    epochs, batch_size : int, optional
    activation, learning_rate, weight_decay, max_grad_norm : optional
        As for :class:`~fastelbo.VAE`.
    dtype : {"float32", "float64"}, optional
        What is computed in.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None, optional
        Initial weights, order of the samples and noise.
    num_threads : int or None, optional
        Threads of the kernels, as for :class:`~fastelbo.VAE`.
    warm_start, callbacks, verbose : optional
        As for :class:`~fastelbo.VAE`.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
        The labels, sorted.
    history_ : dict of lists
        Of each epoch: ``"objective"``, in nats, and ``"accuracy"`` on the rows with a label, means
        over the epoch's rows, the weights being as they stood; ``"beta"`` of its last step.
    likelihood_ : Likelihood
    n_features_in_, n_iter_ : int

    See Also
    --------
    m2_elbo : the objective.

    References
    ----------
    .. [1] Kingma, Rezende, Mohamed, Welling. Semi-supervised learning with deep generative models.
       NeurIPS 2014.

    Examples
    --------
    Two kinds of rows, of which ten have a label:

    >>> import numpy as np
    >>> import fastelbo
    >>> rng = np.random.default_rng(0)
    >>> kind = rng.integers(0, 2, 200)
    >>> X = (rng.random((200, 8)) < np.where(kind, 0.9, 0.1)[:, None]).astype(float)
    >>> y = np.where(np.arange(200) < 10, kind, -1)
    >>> model = fastelbo.SemiSupervisedVAE(
    ...     hidden=(16,), latent_dim=2, batch_size=20, learning_rate=0.01, epochs=20, random_state=0
    ... )
    >>> bool(model.fit(X, y).score(X, kind) > 0.95)
    True
    >>> model.sample([0, 1], rng=0).round().astype(int)
    array([[0, 0, 0, 0, 0, 0, 0, 0],
           [1, 1, 1, 1, 1, 1, 1, 1]])
    """

    classes_: NDArray[Any]
    _files = "fastelbo._class_files"

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | list[int] | int = (256,),
        latent_dim: int = 10,
        likelihood: AnyLikelihood = "bernoulli",
        alpha: float = 50.0,
        beta: float | Callable[[int], float] = 1.0,
        labelled_repeats: int = 1,
        epochs: int = 100,
        batch_size: int = 128,
        activation: Literal["relu", "tanh", "elu", "silu", "gelu"] = "relu",
        learning_rate: float | Callable[[int], float] = 1e-3,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        dtype: DTypeLike = "float32",
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
        num_threads: int | None = 1,
        warm_start: bool = False,
        callbacks: Callback | Sequence[Callback] | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.alpha = alpha
        self.beta = beta
        self.labelled_repeats = labelled_repeats
        self.epochs = epochs
        self.batch_size = batch_size
        self.activation = activation
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.verbose = verbose

    def fit(self, X: Data, y: ArrayLike) -> Self:
        """Train on X: from new weights, or from those that are there with `warm_start`.

        Ctrl-C ends training as it does that of :class:`~fastelbo.VAE`.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
            Finite numbers; in [0, 1] for the Bernoulli likelihood. Read where it lies, as that of
            :class:`~fastelbo.VAE`.
        y : array_like, shape (N,)
            Labels of any kind, and -1 for a row without one ("-1" among strings).

        Returns
        -------
        SemiSupervisedVAE
            This object.

        Raises
        ------
        ValueError, TypeError
            If X, y or a parameter does not fit: no label at all, labels of one class only.
        FloatingPointError
            If training diverges; then the model is not fitted.

        Warns
        -----
        TrainingWarning
            Of data that are not scaled, of an interruption.
        """
        going_on = self.warm_start and hasattr(self, "_model")
        with self._all_or_nothing():
            X, codes = self._go_on(X, y) if going_on else self._start(X, y)
            warn_of_scale(X, self.likelihood_)
            try:
                with self._blas():
                    self._train(X, codes)
            except FloatingPointError:
                del self._model, self.classes_
                raise
        return self

    def partial_fit(self, X: Data, y: ArrayLike, classes: ArrayLike | None = None) -> Self:
        """One more epoch, over all of X; begins with new weights where there are none.

        Callbacks are not called. Whatever ends the epoch halfway, Ctrl-C and divergence too, is
        raised, and leaves the model as it was.

        Parameters
        ----------
        X, y
            As for :meth:`fit`.
        classes : array_like, optional
            The labels there are, where the first y has not all of them. Later on y has no others.

        Returns
        -------
        SemiSupervisedVAE
            This object.

        Raises
        ------
        ValueError, TypeError, FloatingPointError
            As for :meth:`fit`.
        """
        with self._all_or_nothing():
            if hasattr(self, "_model"):
                X = self._checked_data(X).checked()
                known = self.classes_ if classes is None else classes
                known, codes = _encoded(y, len(X), known)
                if not np.array_equal(known, self.classes_):
                    raise ValueError(
                        f"classes is {known.tolist()}, but training began with those of "
                        f"{self.classes_.tolist()}: give the same or none"
                    )
            else:
                X, codes = self._start(X, y, classes)
            with self._blas():
                self._train_once(X, codes)
        return self

    def _start(self, X, y, classes=None):
        """Check parameters and data, and draw new weights."""
        X, likelihood = self._prepared(X)
        classes, codes = _encoded(y, len(X), classes)
        model = ClassAutoencoder(
            Visible(likelihood, X.shape[1]),
            len(classes),
            widths(self.hidden),
            int(self.latent_dim),
            X.dtype,
            self.activation,
        )
        generator = np.random.default_rng(seed(self.random_state))
        model.initialise(generator)
        self._keep_features(X.given)
        self._model, self._generator, self.classes_ = model, generator, classes
        self.likelihood_ = likelihood
        self.history_ = {name: [] for name in HISTORY}
        return X, codes

    def _go_on(self, X, y):
        """Check parameters and data, of weights that are there."""
        X, likelihood = self._prepared(X)
        classes, codes = _encoded(y, len(X))
        self._check_warm(
            hidden=(self._model.hidden, widths(self.hidden)),
            latent_dim=(self._model.latent_dim, self.latent_dim),
            activation=(self._model.activation, self.activation),
            dtype=(self._model.dtype.name, X.dtype.name),
            classes=(self.classes_.tolist(), classes.tolist()),
        )
        validate_data(self, X.given, reset=False, skip_check_array=True)
        check_same_network(Visible(likelihood, X.shape[1]), self._model.visible)
        return X, codes

    def _prepared(self, X):
        """(the rows of X, the likelihood of it), once these and the parameters are checked."""
        self._check_parameters()
        rows = as_rows(X, as_dtype(self.dtype))
        likelihood = self._trained_likelihood(rows, getattr(X, "columns", None))
        return rows.read_for(likelihood, check_domain).checked(), likelihood

    def _trained_likelihood(self, X, names):
        """The likelihood over the columns of X, which may have names."""
        return trained_likelihood(self.likelihood)._over(X.shape[1], names)

    def _check_parameters(self):
        """Complain about any of the constructor's arguments."""
        widths(self.hidden)
        as_dtype(self.dtype)
        for name in ("latent_dim", "labelled_repeats"):
            as_whole(getattr(self, name), name, 1)
        as_number(self.alpha, "alpha", 0)
        check_optimizer(self)
        check_activation(self.activation)
        if trained_likelihood(self.likelihood)._couples_rows():
            raise ValueError(
                'likelihood has the scale "optimal", which the sum over classes cannot find: give '
                "a number, as in Gaussian(0.3)"
            )
        check_random_state(self.random_state)
        self._check_training()

    def _blas(self):
        """BLAS's threads as the products of a minibatch want them."""
        return threads_worth(self.batch_size * len(self.classes_) * self._model.largest_layer)

    def _epoch(self, X, codes):
        self._check_parameters()
        model = self._model
        likelihood = self._trained_likelihood(X, getattr(self, "feature_names_in_", None))
        check_same_network(Visible(likelihood, X.shape[1]), model.visible)
        self.likelihood_ = likelihood
        unchecked = copy.copy(likelihood)  # X has been checked: what may go wrong is the training
        unchecked._validate = False
        beta_at, rate_at = as_beta(self.beta), as_learning_rate(self.learning_rate)
        repeats = np.where(codes >= 0, self.labelled_repeats, 1)
        order = self._generator.permutation(np.repeat(np.arange(len(X)), repeats))
        X.expect(order)
        objective, right = 0.0, 0
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            beta, rate = beta_at(model.adam.steps), rate_at(model.adam.steps)
            value, found = model.step(
                X[rows],
                codes[rows],
                unchecked,
                self.alpha,
                beta,
                self._generator,
                rate,
                self.num_threads,
                self.weight_decay,
                self.max_grad_norm,
            )
            objective += value * len(rows) / len(order)
            right += np.count_nonzero(found == codes[rows])
        if not np.isfinite(objective):
            found = f"objective {objective}"
            raise diverged(self.n_iter_ + 1, found, X, likelihood, rate)
        labelled = np.count_nonzero(codes >= 0) * self.labelled_repeats
        figures = objective, float(right / labelled), beta
        return dict(zip(HISTORY, figures, strict=True))

    def predict_proba(self, X: Data) -> FloatArray:
        """q(y|x).

        Parameters
        ----------
        X : array_like, shape (N, D)

        Returns
        -------
        ndarray, shape (N, C)
            Columns in the order of `classes_`.
        """
        logits = self._logits(self._checked_data(X, scored=False))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def predict(self, X: Data) -> NDArray[Any]:
        """The most probable label of each row.

        Parameters
        ----------
        X : array_like, shape (N, D)

        Returns
        -------
        ndarray, shape (N,)
        """
        logits = self._logits(self._checked_data(X, scored=False))
        return self.classes_[logits.argmax(axis=1)]

    def transform(self, X: Data) -> FloatArray:
        """Means of q(z|x, y) at the label predicted.

        Parameters
        ----------
        X : array_like, shape (N, D)

        Returns
        -------
        ndarray, shape (N, latent_dim)
        """
        return self._posterior(self._checked_data(X, scored=False))[0]

    def _posterior(self, X):
        """(mu, logvar) of checked data at the label predicted."""
        y = self._logits(X).argmax(axis=1)
        found = np.empty((2, len(X), self._model.latent_dim), X.dtype)
        for rows in chunks(len(X)):
            found[:, rows] = self._model.encode(X[rows], y[rows], self.num_threads)
        return found

    def _decoder_of(self, X):
        """p(x|y, z) at the label predicted of each row."""
        y = self._logits(self._checked_data(X, scored=False)).argmax(axis=1)

        def decode(z, rows):
            labels = np.tile(y[rows], len(z) // len(rows))
            z = z.astype(self._model.dtype, copy=False)
            return self._model.decode_and_pull(z, labels, self.num_threads)

        return decode

    def inverse_transform(self, Z: ArrayLike, y: ArrayLike | None = None) -> FloatArray:
        """Means of p(x|y, z), by the likelihood's ``mean``.

        Parameters
        ----------
        Z : array_like, shape (N, latent_dim)
        y : array_like, shape (N,), optional
            A label of each. None: means of p(x|z), every label being as probable, as p(y) has it.

        Returns
        -------
        ndarray, shape (N, D)
        """
        Z = self._checked_latents(Z)
        if y is None:
            of_each = [self.inverse_transform(Z, [label] * len(Z)) for label in self.classes_]
            return np.mean(of_each, axis=0, dtype=np.float64).astype(Z.dtype)
        codes = _codes(_as_labels(y, len(Z)), self.classes_)
        threads = self.num_threads
        return self._means(Z, lambda rows: self._model.decode(Z[rows], codes[rows], threads))

    def _rebuilt(self, X):
        return self.inverse_transform(self.transform(X), self.predict(X))

    def sample(self, y: ArrayLike, *, rng: Rng = None) -> FloatArray:
        """Means of p(x|y, z) for one draw of z from the prior for each label.

        Parameters
        ----------
        y : array_like, shape (N,)
            Labels.
        rng : int, numpy.random.Generator or None, optional
            As in :func:`~fastelbo.reparameterize`; None is fresh entropy.

        Returns
        -------
        ndarray, shape (N, D)
        """
        self._check_fitted()
        y = _as_labels(y)
        zeros = np.zeros((len(y), self._model.latent_dim), self._model.dtype)
        return self.inverse_transform(reparameterize(zeros, zeros, rng=rng), y)

    @property
    def n_iter_(self) -> int:
        self._check_fitted()
        return len(self.history_["beta"])

    def _logits(self, X):
        logits = np.empty((len(X), len(self.classes_)), X.dtype)
        for rows in chunks(len(X)):
            logits[rows] = self._model.logits(X[rows], self.num_threads)
        return logits


def _as_labels(y, rows=None):
    """Labels (N,); of so many rows, where that is said."""
    y = column_or_1d(as_unmasked(y, "y"), warn=True)
    return _checked_labels(y, "y", rows)


def _checked_labels(labels, name, rows=None):
    if labels.ndim != 1 or (rows is not None and len(labels) != rows) or len(labels) == 0:
        wanted = "(labels,), one at least" if rows is None else f"({rows},), a label for each row"
        raise _arrays.shape_error(name, labels.shape, wanted)
    if labels.dtype.kind == "T":
        labels = np.array(labels.tolist())
    if labels.dtype.kind in "fO":
        if labels.dtype.kind == "f":
            whole = np.isfinite(labels) & (labels == np.floor(labels))
        else:
            whole = np.array([not names_nothing(label) for label in labels])
        if not whole.all():
            i = int(np.argmin(whole))
            raise ValueError(
                f"{name}[{i}] = {labels[i]} is no label, but of a continuous target or missing: "
                "labels are names or whole numbers, and -1 stands for a row without one"
            )
    return labels


def _encoded(y, rows, classes=None):
    """(classes, codes): the labels, and the number of each row's among them, -1 without one.

    Classes may be known.
    """
    y = _as_labels(y, rows)
    without = _stands_for_none(y)
    if without.all():
        raise ValueError("y has no labels at all, only -1: give some, or train a VAE")
    name, known = "y", y[~without]
    if classes is not None:
        name = "classes"
        known = _checked_labels(_arrays.as_any_array(classes, name), name)
        if _stands_for_none(known).any():
            raise ValueError("classes has -1, which stands for a row without a label")
    try:
        classes = np.unique(known)
    except TypeError as error:
        raise TypeError(
            f"{name} must have labels of one kind, which can be sorted: {error}"
        ) from None
    if len(classes) == 1:
        raise ValueError(
            f"{name} has labels of one class only, {classes[0]}: a classifier needs two"
        )
    return classes, np.where(without, -1, _codes(y, classes, ~without))


def _stands_for_none(labels):
    marks = {"S": [b"-1"], "U": ["-1"], "O": [-1, "-1"]}
    return np.any([labels == mark for mark in marks.get(labels.dtype.kind, [-1])], axis=0)


def _codes(y, classes, some=True):
    """The numbers of these labels among `classes`; of `some` of them, the others have any."""
    same = y[:, None] == classes
    unknown = some & ~same.any(axis=1)
    if unknown.any():
        i = int(np.argmax(unknown))
        raise ValueError(f"y[{i}] = {y[i]} is none of the classes, {classes.tolist()}")
    return same.argmax(axis=1)
