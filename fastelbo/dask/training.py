"""Training of a VAE on the rows of a dask array."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import dask
import numpy as np
from dask import delayed

from fastelbo import VAE
from fastelbo._arguments import as_whole, shown
from fastelbo._blas import threads_worth
from fastelbo._network import Autoencoder
from fastelbo._vae_settings import as_dtype
from fastelbo.dask._rows import Rows
from fastelbo.divergences import as_free_bits
from fastelbo.posterior import NoiseFrom, noise_key, reparameterize

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client
    from numpy.typing import ArrayLike


def fit(
    model: VAE, X: da.Array | ArrayLike, *, client: Client | None = None, slice_rows: int = 1024
) -> VAE:
    """Train a VAE on a dask array, data-parallel; so does ``model.fit(X)``.

    It is the training of :meth:`fastelbo.VAE.fit`, with the same order of the rows and the same
    noise. A minibatch of at most `slice_rows` rows is one slice: it is gathered from its chunks,
    and the step is made here, so that the model is the same as from X in memory, bit for bit.
    Larger ones are cut into slices, whose gradients tasks compute and which are added in one fixed
    order: the same on any number of workers, and that of X in memory but for the rounding of sums.
    Tasks are functions of the weights, the rows and the key of the noise, so that those of a worker
    that fails are run again with the same result.

    Parameters
    ----------
    model : VAE
        Trained in place, once all has gone well: if not, it stays as it was.
    X : dask array, shape (N, D)
        Rows are drawn from all chunks. Each reading takes 64 MiB of them, in the order in which
        training wants them, from every chunk: keep X in the memory of the cluster,
        ``X.persist()``, where it fits.
    client : distributed.Client, optional
        Where to compute; by default where dask does.
    slice_rows : int, optional
        Rows of a slice.

    Returns
    -------
    VAE
        The model.

    Raises
    ------
    ValueError, TypeError
        If X or a parameter of the model does not fit; the message says where, and in which chunk.
    FloatingPointError
        If training diverges.

    Notes
    -----
    A floor under the KL's batch mean (``free_bits`` by dimension), ``refine_steps`` and networks of
    your own need the whole minibatch: it is one slice. Rows are not held out, and values that are
    missing are not filled in.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import fastelbo.dask
    >>> bits = np.random.default_rng(0).integers(0, 2, (200, 8)).repeat(4, axis=1)
    >>> X = da.from_array(bits, chunks=(50, 32))
    >>> model = fastelbo.VAE(latent_dim=4, hidden=(32,), epochs=20, random_state=0)
    >>> len(fastelbo.dask.fit(model, X).history_["elbo"])
    20
    """
    return _trained(model, "fit", X, client, slice_rows)


def partial_fit(
    model: VAE, X: da.Array | ArrayLike, *, client: Client | None = None, slice_rows: int = 1024
) -> VAE:
    """One more epoch, over a dask array, as :meth:`fastelbo.VAE.partial_fit`.

    Parameters, result and errors as for :func:`fit`.
    """
    return _trained(model, "partial_fit", X, client, slice_rows)


def _trained(model, method, X, client, slice_rows):
    """The model, trained by its method, or as it was."""
    slice_rows = as_whole(slice_rows, "slice_rows", 1)
    if not isinstance(model, VAE):
        raise TypeError(f"model must be a VAE, got {shown(model)}")
    model._check_parameters()
    kind = type(model)
    with nullcontext() if client is None else client.as_current():
        rows = Rows(X, as_dtype(model.dtype))
        try:
            _check_rows(model, rows)
            trained = copy.copy(model)
            found = vars(model).keys() - model.get_params(deep=False).keys()
            vars(trained).update((name, copy.deepcopy(getattr(model, name))) for name in found)
            trained.__class__ = type(kind.__name__, (_OnRows, kind), {})
            trained._network = partial(_Network, rows, slice_rows)
            getattr(kind, method)(trained, rows)
        except Exception as error:
            error.add_note(f"fastelbo.dask.{method}: the model is as it was before")
            raise
    del trained._network
    trained._model = trained._model.in_memory()
    vars(model).update(vars(trained))
    return model


def _check_rows(model, rows):
    """Complain about rows that cannot be trained on, and about what needs all of them at once."""
    if model.early_stopping or model.validation_fraction is not None:
        raise ValueError(
            "early_stopping and validation_fraction hold rows out, which are not read from a dask "
            "array: set neither, or fit in memory"
        )
    if model.missing is not None:
        raise ValueError(
            f"missing={model.missing!r} fills in by means of all rows, which are not read from a "
            "dask array at once: set missing=None, or fit in memory"
        )
    rows.check(model._trained_likelihood(rows.shape[1], None))


class _OnRows:
    """What a model does otherwise where its data are `Rows`."""

    def _start(self, X):
        super()._start(X[:1])  # all rows have been checked
        return X

    def _checked(self, X):
        self._checked_data(X[:1]).checked()  # all rows have been checked
        _, (_, network, steps, arrays) = self._model.__reduce__()
        self._model = self._network(**network)
        for name, array in self._model.arrays().items():
            array[...] = arrays[name]
        self._model.adam.steps = steps
        return X


class _Network(Autoencoder):
    """An autoencoder whose minibatches are rows of a dask array, in slices if they are large."""

    def __init__(self, rows, slice_rows, *shape, **network):
        super().__init__(*shape, **network)
        self._rows, self._slice_rows = rows, slice_rows

    def in_memory(self):
        """The same, of arrays in memory."""
        make, arguments = self.__reduce__()
        return make(*arguments)

    def initialise(self, generator, x=None):
        super().initialise(generator, self._rows)

    def step(
        self,
        x,
        rows,
        likelihood,
        beta,
        free_bits,
        rng,
        learning_rate,
        num_threads,
        refine_steps=0,
        weight_decay=0.0,
        max_grad_norm=None,
    ):
        floor = as_free_bits(free_bits)
        coupled = floor is not None and floor.granularity == "dimension"
        own = any(network is not None for network in self.given.values())
        if len(rows) <= self._slice_rows or coupled or own or refine_steps:
            return super().step(
                x,
                rows,
                likelihood,
                beta,
                free_bits,
                rng,
                learning_rate,
                num_threads,
                refine_steps,
                weight_decay,
                max_grad_norm,
            )
        key = noise_key(rng)
        network, weights = self.__reduce__()[1][1], delayed(self.adam.parameters.copy())
        starts = range(0, len(rows), self._slice_rows)
        shares = [min(self._slice_rows, len(rows) - start) / len(rows) for start in starts]
        slices = [
            (network, weights, part, NoiseFrom(key, start * self.latent_dim), num_threads)
            for part, start in zip(x.slices(rows, self._slice_rows), starts, strict=True)
        ]
        self.variances = []
        if likelihood._couples_rows():
            found = np.array(_computed(_variances, slices, likelihood))
            self.variances = (np.array(shares) @ found).tolist()
            likelihood = likelihood._at_variances(iter(self.variances))
        *found, means = zip(
            *_computed(_gradients, slices, likelihood, beta, free_bits), strict=True
        )
        self.mu = np.concatenate(means)
        gradients, value, kl = (
            sum(share * part for share, part in zip(shares, parts, strict=True)) for parts in found
        )
        self.adam.grads[...] = gradients
        self.adam.ascend(learning_rate, num_threads, weight_decay, max_grad_norm)
        return value, kl


def _computed(function, slices, *arguments):
    """A function of every slice, computed by tasks."""
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}):  # weights
        return dask.compute(*(delayed(function)(*given, *arguments) for given in slices))


def _restored(network, weights):
    model = Autoencoder(**network)
    model.adam.parameters[...] = weights
    return model


def _gradients(network, weights, x, noise, num_threads, likelihood, beta, free_bits):
    """Gradients of the mean over a slice, flat, its mean log-likelihood and KL, and its codes."""
    model = _restored(network, weights)
    with threads_worth(len(x) * model.largest_layer):
        # A step of no length leaves the gradients.
        value, kl = model.step(
            x, np.arange(len(x)), likelihood, beta, free_bits, noise, 0.0, num_threads
        )
    return model.adam.grads.astype(np.float64), value, kl, model.mu


def _variances(network, weights, x, noise, num_threads, likelihood):
    """The squares of the scales that a slice gives."""
    model = _restored(network, weights)
    with threads_worth(len(x) * model.largest_layer):
        mu, logvar = model.encode(x, num_threads)
        z = reparameterize(mu, logvar, rng=noise, num_threads=num_threads)
        outputs = model.decode(z, num_threads)
        return likelihood._variances(x, outputs, num_threads or 1)
