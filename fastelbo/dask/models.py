"""What a fitted VAE makes of dask arrays, row by row."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
from dask import delayed

from fastelbo import _arrays
from fastelbo.dask._chunks import as_dask, over_chunks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo import VAE
    from fastelbo._typing import Rng


def transform(model: VAE, X: da.Array | ArrayLike) -> da.Array:
    """:meth:`fastelbo.VAE.transform` of a dask array, lazily; so is ``model.transform(X)``.

    Parameters
    ----------
    model : VAE
        Fitted, as it is now: what becomes of it later changes no result.
    X : dask array, shape (N, D)

    Returns
    -------
    dask array, shape (N, latent_dim)
        In the chunks of the rows of X.

    Raises
    ------
    ValueError, TypeError
        If X has other features or chunks of unknown size; and when it is computed, what the method
        says of a chunk, with the number of the chunk.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import fastelbo
    >>> bits = np.random.default_rng(0).integers(0, 2, (200, 8)).repeat(4, axis=1)
    >>> X = da.from_array(bits, chunks=(50, 32))
    >>> model = fastelbo.VAE(latent_dim=4, hidden=(32,), epochs=20, random_state=0).fit(bits)
    >>> model.transform(X)
    dask.array<transform, shape=(200, 4), dtype=float32, chunksize=(50, 4), chunktype=numpy.ndarray>
    """
    model._check_fitted()
    network = model._model
    return _by_rows(model, "transform", X, network.latent_dim, network.dtype)


def inverse_transform(model: VAE, Z: da.Array | ArrayLike) -> da.Array:
    """:meth:`fastelbo.VAE.inverse_transform` of a dask array, lazily.

    Parameters
    ----------
    model : VAE
        Fitted.
    Z : dask array, shape (N, latent_dim)

    Returns
    -------
    dask array, shape (N, D)

    Raises
    ------
    ValueError, TypeError
        As :func:`transform`.
    """
    model._check_fitted()
    return _by_rows(model, "inverse_transform", Z, model.n_features_in_, model._model.dtype)


def score_samples(
    model: VAE, X: da.Array | ArrayLike, *, samples: int | None = None, rng: Rng = None
) -> da.Array:
    """:meth:`fastelbo.VAE.score_samples` of a dask array, lazily: the same scores, bit for bit.

    Parameters
    ----------
    model : VAE
        Fitted, as it is now.
    X : dask array, shape (N, D)
    samples : int, optional
        As in the method.
    rng : int, numpy.random.Generator or None, optional
        As in the method; a Generator gives one key, for all chunks.

    Returns
    -------
    dask array, shape (N,)

    Raises
    ------
    ValueError, TypeError
        As :func:`transform`.
    """
    model._check_fitted()
    key = model._key_of(rng)
    return _by_rows(model, "score_samples", X, None, np.float64, samples=samples, rng=key)


def _by_rows(model, method, X, columns, dtype, **options):
    """A method of each chunk of rows, which gives so many columns; None: a number a row."""
    inverse = method == "inverse_transform"
    name = "Z" if inverse else "X"
    X = as_dask(X, name)
    width = model._model.latent_dim if inverse else model.n_features_in_
    if X.ndim != 2 or X.shape[1] != width:
        raise _arrays.shape_error(name, X.shape, f"(samples, {width})")
    X = X.rechunk({1: -1})
    found = over_chunks(
        _of_rows,
        {name: X},
        chunks=(X.chunks[0], (columns or 1,)),
        dtype=dtype,
        called=method,
        num_threads=model.num_threads,
        model=delayed(copy.deepcopy(model)),
        method=method,
        options=options,
    )
    return found if columns else found[:, 0]


def _of_rows(X, place, model, method, options):
    found = np.asarray(getattr(model, method)(X, **options))
    return found if found.ndim == 2 else found[:, None]
