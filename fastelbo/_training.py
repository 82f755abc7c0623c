"""The loop over epochs of whatever is trained: its bar, what ends it, and what is said of it."""

import math
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np

from fastelbo._arguments import as_flag, as_number, as_whole, shown
from fastelbo._trained import TrainedModel

#: What standardised data hardly exceed.
LARGE = 20.0
#: Rows that tell whether data are scaled.
SAMPLED = 10_000


class TrainingWarning(UserWarning):
    """Training ended otherwise than one would wish; the message says what may help.

    ``fit`` of :class:`~fastelbo.VAE` and :class:`~fastelbo.SemiSupervisedVAE` warns so of data that
    are not scaled, of a posterior that has collapsed and of a key press (Ctrl-C) that ended it.
    Training that diverges is a FloatingPointError.

    Examples
    --------
    As an error, where nobody reads warnings:

    >>> import warnings
    >>> import fastelbo
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", fastelbo.TrainingWarning)
    """


class Training(TrainedModel):
    """What trains by epochs.

    There are `_model`, `_generator`, `likelihood_` and `history_`; `_epoch(*data)` trains for one
    and returns its figures.
    """

    def _check_training(self):
        """Complain about the parameters that are read here."""
        as_whole(self.epochs, "epochs", 1)
        as_flag(self.verbose, "verbose")
        as_flag(self.warm_start, "warm_start")
        as_callbacks(self.callbacks)

    @contextmanager
    def _all_or_nothing(self):
        """What goes wrong before a first epoch is done leaves all as it was."""
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            if hasattr(self, "_model") and not self.n_iter_:
                vars(self).clear()
                vars(self).update(before)
            raise

    def _train(self, *data, stopping=None):
        """The epochs of fit; `stopping(figures)` says after each whether it was the last.

        Whatever cuts an epoch short leaves the model as it was before that. Ctrl-C ends the
        training, but not what the user does with it next, as in scikit-learn's own networks.
        """
        callbacks = as_callbacks(self.callbacks)
        kept, over, cut = self._state(), False, False
        epochs = 1 if data[0].once else self.epochs
        with Progress(epochs, self.verbose) as progress:
            try:
                while not over:
                    figures = self._epoch(*data)
                    note(self.history_, figures)
                    kept = self._state()
                    progress.update(figures)
                    known = {"epoch": self.n_iter_, **figures}
                    asked = [callback(self, dict(known)) for callback in callbacks]
                    over = progress.done == epochs or any(asked)
                    over |= stopping is not None and stopping(figures)
            except BaseException as error:
                self._restore(kept)
                if not isinstance(error, KeyboardInterrupt):
                    raise
                cut = True
        if cut:
            warn(
                f"fit was interrupted in epoch {progress.done + 1} of {epochs}: the model is "
                f"as it was after {self.n_iter_} epochs, and can be used; partial_fit, or fit with "
                "warm_start=True, goes on from there"
            )

    def _train_once(self, *data):
        """One epoch, of which nothing is left unless it is whole."""
        kept = self._state()
        try:
            note(self.history_, self._epoch(*data))
        except BaseException:
            self._restore(kept)
            raise

    def _state(self):
        """All that an epoch changes."""
        lengths = {name: len(values) for name, values in self.history_.items()}
        generator = self._generator.bit_generator.state
        return self._model.state(), generator, self.likelihood_, lengths

    def _restore(self, state):
        if hasattr(self, "_model"):  # unless it has diverged
            network, generator, self.likelihood_, lengths = state
            self._model.restore(network)
            self._generator.bit_generator.state = generator
            self.history_ = {name: self.history_[name][:n] for name, n in lengths.items()}

    def _check_warm(self, **parameters):
        """Complain unless the network that is there has these parameters."""
        for name, (before, now) in parameters.items():
            if before != now:
                raise ValueError(
                    f"warm_start goes on with the network that is there, whose {name} is "
                    f"{before!r}, not {now!r}: set warm_start=False to begin anew"
                )


class EarlyStopping:
    """Ends training once the objective on held-out rows has not improved for a while.

    The objective is ``reconstruction - beta KL`` with the beta of the present epoch, for the best
    epoch before as well: a beta that rises is no reason to stop.
    """

    def __init__(self, model):
        self.model = model
        self.best = None
        self.waited = 0

    def __call__(self, figures):
        now = self._objective(figures, figures["beta"])
        best = self._objective(self.best, figures["beta"]) if self.best else -math.inf
        self.waited = 0 if now > best + self.model.tol else self.waited + 1
        if now > best or not self.best:
            self.best, self.kept = figures, (self.model._model.state(), self.model.likelihood_)
        return self.waited >= self.model.n_iter_no_change

    def restore_best(self):
        """Give the model the weights of its best epoch."""
        if self.best:
            network, self.model.likelihood_ = self.kept
            self.model._model.restore(network)

    @staticmethod
    def _objective(figures, beta):
        return figures["val_reconstruction"] - beta * figures["val_kl"]


class Progress:
    """A tqdm bar over epochs, a line for each where tqdm is not installed, or nothing."""

    def __init__(self, epochs, shown):
        self.epochs = epochs
        self.done = 0
        self._shown = shown
        self._bar = None
        if shown:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=epochs, unit="epoch", dynamic_ncols=True)

    def update(self, figures):
        """One more epoch, and its figures."""
        self.done += 1
        if self._shown:
            now = {n: f"{v:.2f}" if isinstance(v, float) else str(v) for n, v in figures.items()}
            if self._bar is not None:
                self._bar.set_postfix(now, refresh=False)
                self._bar.update()
            else:
                values = ", ".join(f"{name}={value}" for name, value in now.items())
                print(f"epoch {self.done}/{self.epochs}: {values}", flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()


def as_callbacks(callbacks):
    """The functions that are called after each epoch."""
    if callbacks is None:
        return ()
    several = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    for callback in several:
        if not callable(callback) or isinstance(callback, type):
            raise TypeError(
                "callbacks must be a function callback(model, figures), a sequence of such or "
                f"None, got {shown(callback)}"
            )
    return tuple(several)


def note(history, figures):
    """Add the figures of an epoch; NaN where one has not been found, in this epoch or before."""
    epochs = max(map(len, history.values()))
    for name in figures:
        history.setdefault(name, [math.nan] * epochs)
    for name, values in history.items():
        values.append(figures.get(name, math.nan))


def latest(history):
    """The figures of the last epoch."""
    return {name: values[-1] for name, values in history.items()}


def check_stopping(model):
    """Complain about the parameters that hold rows out and stop early."""
    as_flag(model.early_stopping, "early_stopping")
    as_whole(model.n_iter_no_change, "n_iter_no_change", 1)
    as_number(model.tol, "tol", 0)
    if model.validation_fraction is not None:
        fraction = as_number(model.validation_fraction, "validation_fraction")
        if not 0 < fraction < 1:
            raise ValueError(f"validation_fraction must be in (0, 1) or None, got {fraction}")


def rows_apart(model, X):
    """(rows to train on, rows held out or None) of X; which ones depends on their number alone."""
    fraction = model.validation_fraction
    if fraction is None:
        if not model.early_stopping:
            return X, None
        fraction = 0.1
    if not hasattr(X, "shape"):
        raise ValueError(
            "early_stopping and validation_fraction hold rows out, of which an iterable of batches "
            "has no number: set neither, or give one array"
        )
    n = len(X)
    held = max(1, round(fraction * n))
    if held >= n:
        raise ValueError(
            f"validation_fraction = {fraction} of {n} rows leaves none to train on: give more rows"
        )
    order = np.random.default_rng(0).permutation(n)
    return X.part(order[held:]), X.part(order[:held])


def warn(message):
    """For the line of the user's that led here."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals["__name__"].startswith("fastelbo."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, TrainingWarning, stacklevel=level)


def warn_of_scale(rows, likelihood):
    """Of real numbers that are far from standardised; others are as large as they are."""
    total, count = 0.0, 0
    for x in rows.portions(max(1, len(rows) // SAMPLED)):
        total = total + np.square(np.nan_to_num(x.astype(np.float64), nan=0.0)).sum(axis=0)
        count += len(x)
    sizes = np.sqrt(total / count)
    for block in likelihood._blocks(rows.shape[1]):
        if block.likelihood._domain or block.likelihood._layout.more_axes:
            sizes[block.columns] = 0
    largest = int(sizes.argmax())
    size = sizes[largest]
    if size > LARGE or 0 < size < 1 / LARGE:
        of = f"feature {largest}" if size > LARGE else "every feature"
        bound = "" if size > LARGE else "or less "
        warn(
            f"X is not scaled: the values of {of} are about {size:.3g} {bound}in size, where "
            "networks learn well from some of about 1. Standardise X (mean 0, standard deviation "
            "1), for instance by sklearn.preprocessing.StandardScaler"
        )


def warn_of_collapse(figures, latent_dim):
    """Of a posterior that is the same for every row."""
    if figures["active_units"] == 0:
        warn(
            f"the posterior has collapsed: none of the {latent_dim} latent dimensions tells rows "
            f"apart (active_units 0), the KL is {figures['kl']:.2g} nats. A smaller beta than "
            f"{figures['beta']:g} may help, a warm-up (beta=BetaSchedule(steps=...)) or "
            "free_bits=0.1; more epochs where training had hardly begun. Of features that are "
            "independent of each other there is nothing to tell"
        )


def diverged(epoch, found, rows, likelihood, learning_rate):
    """The error that training diverged, which names the likely cause."""
    reach = rows.reach()
    advice = f"a learning_rate lower than {learning_rate:g} may help"
    if reach > LARGE and not likelihood._of_counts:
        advice = (
            f"the likely cause is that X is not scaled, its values reach {reach:.3g}: "
            f"standardise it (mean 0, standard deviation 1); {advice}"
        )
    return FloatingPointError(f"training diverged in epoch {epoch} ({found}): {advice}")
