"""The KL divergence between Gaussians of full covariance, by their Cholesky factors."""

from typing import NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo.bounds import reduce_rows
from fastelbo.divergences import kl_standard_normal, over_rows
from fastelbo.likelihoods import check_reduction


class KlFullNormalGrad(NamedTuple):
    """Gradients for two means, (B, L), and two Cholesky factors, in their own shapes."""

    mu_q: np.ndarray
    tril_q: np.ndarray
    mu_p: np.ndarray
    tril_p: np.ndarray


_NAMES = KlFullNormalGrad._fields


def checked_shapes(arguments):
    """The four arguments as arrays whose shapes fit each other."""
    mu_q, mu_p = _arrays.latents(arguments[0], arguments[2], "mu_q", "mu_p")
    trils = [_arrays.as_floats(arguments[i], _NAMES[i]) for i in (1, 3)]
    batch, dims = mu_q.shape
    for name, a in zip(_NAMES[1::2], trils, strict=True):
        if a.shape not in ((batch, dims, dims), (dims, dims)):
            wanted = f"{(batch, dims, dims)} or {(dims, dims)} like {name.replace('tril', 'mu')}"
            raise _arrays.shape_error(name, a.shape, wanted)
    return mu_q, trils[0], mu_p, trils[1]


def _factor(a, name):
    """A stack of lower triangles in float64, (B, L, L) or (L, L)."""
    check_diagonal(a, name)
    return np.tril(a).astype(np.float64)


def check_diagonal(a, name):
    if (np.diagonal(a, axis1=-2, axis2=-1) <= 0).any():
        raise ValueError(f"{name} must have a positive diagonal")


def _inverse_times(tril, b, transposed=False):
    """tril_p^-1 b, or tril_p^-T b, for stacks of both."""
    try:
        return np.linalg.solve(tril.swapaxes(-1, -2) if transposed else tril, b)
    except np.linalg.LinAlgError:
        raise ValueError("tril_p is singular to working precision") from None


@np.errstate(all="ignore")
def _between(arguments, reduction, out, with_gradient):
    if _arrays.as_any_array(arguments[0], "mu_q").ndim > 2:

        def compute(arrays, out):
            return _between(arrays, reduction, out, with_gradient)

        return over_rows(compute, arguments, _NAMES, out, with_gradient)
    check_reduction(reduction)
    mu_q, tril_q, mu_p, tril_p = checked_shapes(arguments)
    tril_q, tril_p = _factor(tril_q, "tril_q"), _factor(tril_p, "tril_p")
    batch, dims = mu_q.shape
    ratio = _inverse_times(tril_p, tril_q)
    scaled = _inverse_times(
        np.broadcast_to(tril_p, (batch, dims, dims)), (mu_q.astype(np.float64) - mu_p)[..., None]
    )
    # The ratio's own diagonal: two small factors that are alike need not have logarithms that are.
    logvar = np.broadcast_to(2 * np.log(np.diagonal(ratio, axis1=-2, axis2=-1)), mu_q.shape)
    rows = kl_standard_normal(np.broadcast_to(0.0, mu_q.shape), logvar, reduction="none")
    rows += 0.5 * ((np.tril(ratio, -1) ** 2).sum(axis=(-1, -2)) + (scaled**2).sum(axis=(-1, -2)))
    value = reduce_rows(rows, reduction)
    if not with_gradient:
        return value
    floats = [_arrays.as_floats(a, name) for a, name in zip(arguments, _NAMES, strict=True)]
    single = _arrays.computes_in_float32(tuple(floats))
    shapes = [a.shape for a in floats]
    gradients = KlFullNormalGrad(*_arrays.checked_outs(out, shapes, single, arguments, _NAMES))
    weight = 1.0 / batch if reduction == "mean" else 1.0
    pull = weight * _inverse_times(tril_p, scaled, transposed=True)
    gradients.mu_q[...] = pull[..., 0]
    gradients.mu_p[...] = -pull[..., 0]
    spread = ratio @ ratio.swapaxes(-1, -2) + scaled @ scaled.swapaxes(-1, -2)
    by_q = _inverse_times(tril_p, ratio, transposed=True)
    by_p = -_inverse_times(tril_p, spread, transposed=True)
    for to, by, tril, sign in (
        (gradients.tril_q, by_q, tril_q, -1.0),
        (gradients.tril_p, by_p, tril_p, 1.0),
    ):
        by = np.broadcast_to(np.tril(by), (batch, dims, dims)) + sign * _inverse_diagonal(tril)
        to[...] = weight * (by if to.ndim == 3 else by.sum(axis=0))
    return value, gradients


def _inverse_diagonal(tril):
    """Diagonal matrices of one over the diagonals."""
    return np.eye(tril.shape[-1]) / np.diagonal(tril, axis1=-2, axis2=-1)[..., None]


def kl_full_normal(mu_q, tril_q, mu_p, tril_p, *, reduction="mean"):
    """KL(N(mu_q, tril_q tril_q^T) || N(mu_p, tril_p tril_p^T)), covariances by Cholesky factors.

    In float64 throughout, by LAPACK through NumPy, in O(B L^2) memory.

    Parameters
    ----------
    mu_q, mu_p : array_like, shape (..., L)
        Means, with any leading axes: all of them are the batch. One shared by it can be passed as
        ``np.broadcast_to(mu_p, (B, L))``.
    tril_q, tril_p : array_like, shape (..., L, L) or (L, L)
        Lower-triangular factors with a positive diagonal, of each sample or of all. What lies above
        the diagonal is not read.
    reduction : {"mean", "sum", "none"}
        Over the batch.

    Returns
    -------
    float, or ndarray of shape (...) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError
        If shapes do not fit, the batch is empty, a diagonal is not positive or tril_p is singular.

    Examples
    --------
    >>> import fastelbo
    >>> import numpy as np
    >>> tril_p = np.linalg.cholesky([[1.0, 0.2], [0.2, 1.0]])
    >>> kl = fastelbo.kl_full_normal([[1.0, 3.0]], np.eye(2), [[0.0, 0.0]], tril_p)
    >>> round(kl, 12)
    4.60458900274
    """
    return _between((mu_q, tril_q, mu_p, tril_p), reduction, None, False)


def kl_full_normal_and_grad(mu_q, tril_q, mu_p, tril_p, *, reduction="mean", out=None):
    """:func:`kl_full_normal` and its four gradients.

    Parameters
    ----------
    mu_q, tril_q, mu_p, tril_p, reduction
        As in :func:`kl_full_normal`.
    out : tuple of four ndarray, optional
        Where to write the gradients.

    Returns
    -------
    value : float or ndarray of shape (...)
    gradients : KlFullNormalGrad
        In the shapes of the arguments, zero above the diagonals; that of a factor shared by the
        batch is summed over it.

    Raises
    ------
    ValueError, TypeError
        As :func:`kl_full_normal`.

    Examples
    --------
    >>> import fastelbo
    >>> one = [[1.0]]
    >>> value, grad = fastelbo.kl_full_normal_and_grad([[3.0]], one, [[1.0]], one)
    >>> value, grad.mu_q, grad.tril_p
    (2.0, array([[2.]]), array([[-4.]]))
    """
    return _between((mu_q, tril_q, mu_p, tril_p), reduction, out, True)
