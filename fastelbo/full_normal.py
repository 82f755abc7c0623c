"""The KL divergence between Gaussians of full covariance, by their Cholesky factors."""

from typing import NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._dense import full_divergence
from fastelbo.divergences import over_rows
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


def check_diagonal(a, name):
    if (np.diagonal(a, axis1=-2, axis2=-1) <= 0).any():
        raise ValueError(f"{name} must have a positive diagonal")


def _between(arguments, reduction, out, with_gradient):
    short = full_divergence(tuple(arguments), reduction, out, KlFullNormalGrad, with_gradient)
    if short is not None:
        return short
    if _arrays.as_any_array(arguments[0], "mu_q").ndim > 2:

        def compute(arrays, out):
            return _between(arrays, reduction, out, with_gradient)

        return over_rows(compute, arguments, _NAMES, out, with_gradient)
    check_reduction(reduction)
    arrays = checked_shapes(arguments)
    for name, tril in zip(_NAMES[1::2], arrays[1::2], strict=True):
        check_diagonal(tril, name)
    single, gradients = _arrays.computes_in_float32(arrays), None
    if with_gradient:
        shapes = [a.shape for a in arrays]
        gradients = KlFullNormalGrad(*_arrays.checked_outs(out, shapes, single, arguments, _NAMES))
    dense = tuple(np.ascontiguousarray(_arrays.in_dtype(a, single)) for a in arrays)
    result = full_divergence(dense, reduction, None, KlFullNormalGrad, with_gradient)
    if result is None:
        raise ValueError("tril_p is singular to working precision")
    if not with_gradient:
        return result
    _arrays.hand_over(tuple(result[1]), tuple(gradients))
    return result[0], gradients


def kl_full_normal(mu_q, tril_q, mu_p, tril_p, *, reduction="mean"):
    """KL(N(mu_q, tril_q tril_q^T) || N(mu_p, tril_p tril_p^T)), covariances by Cholesky factors.

    In float64 throughout, by forward substitution, in O(L^2) memory.

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
        batch is summed over it. With ``reduction="none"``, of the sum over the batch.

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
