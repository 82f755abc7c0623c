"""KL divergences between Gaussians, with the floors known as free bits."""

import math
from typing import NamedTuple

import numpy as np

from fastelbo import _arrays, _builds
from fastelbo._arguments import as_number, check_choice
from fastelbo._arrays import LATENT_COST
from fastelbo._dense import divergence
from fastelbo._parameters import Settings
from fastelbo._threads import threads_for
from fastelbo.likelihoods import check_reduction

_kernels = _builds.kernels("latent")


class GaussianGrad(NamedTuple):
    """Gradients for the parameters of a diagonal Gaussian, each (B, L)."""

    mu: np.ndarray
    logvar: np.ndarray


class KlNormalGrad(NamedTuple):
    """Gradients for the parameters of two diagonal Gaussians, each (B, L)."""

    mu_q: np.ndarray
    logvar_q: np.ndarray
    mu_p: np.ndarray
    logvar_p: np.ndarray


class FreeBits(Settings):
    """A floor under the KL, below which it costs nothing to use the latents.

    Parameters
    ----------
    threshold : float
        lambda >= 0, in nats.
    granularity : {"dimension", "sample", "total"}, optional
        What is floored: the batch mean of each latent dimension [1]_; each dimension of each
        sample; the sum over the dimensions of each sample.
    below : {"floor", "zero"}, optional
        What counts for a KL at or below the threshold: the threshold, or nothing. The gradient is
        zero there either way.

    References
    ----------
    .. [1] Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved variational inference
       with inverse autoregressive flow. NeurIPS 2016.

    Examples
    --------
    >>> import fastelbo
    >>> floor = fastelbo.FreeBits(0.5, granularity="total")
    >>> fastelbo.kl_standard_normal([[0.0, 0.0]], [[0.0, 0.0]], free_bits=floor)
    0.5
    """

    def __init__(self, threshold, *, granularity="dimension", below="floor"):
        self.threshold = as_number(threshold, "threshold", 0)
        check_choice(granularity, "granularity", ("dimension", "sample", "total"))
        check_choice(below, "below", ("floor", "zero"))
        self.granularity = granularity
        self.below = below

    @property
    def _value_below(self):
        return self.threshold if self.below == "floor" else 0.0

    def __repr__(self):
        return f"FreeBits({self.threshold}, granularity={self.granularity!r}, below={self.below!r})"


def as_free_bits(free_bits):
    """A FreeBits from a number or a FreeBits; None where there is no floor."""
    if isinstance(free_bits, FreeBits):
        return free_bits if free_bits.threshold > 0 else None
    floor = FreeBits(as_number(free_bits, "free_bits", 0))
    return floor if floor.threshold else None


def weigh(gradients, weight, rows):
    """Multiply gradients in place by a weight, as `weighed` does, and by a number a row.

    In float64 where a product may fit, and the weight does not: as it is too large, or denormal.
    """
    factors = np.multiply(weight, rows, dtype=np.float64)
    sizes = np.abs(factors[factors != 0])
    for gradient in gradients:
        if weight == 0:
            gradient[np.isinf(gradient)] = 0
        with np.errstate(all="ignore"):
            holds = np.finfo(gradient.dtype)
            fits = ((sizes >= holds.tiny) & (sizes <= holds.max)).all()
            by = factors.astype(gradient.dtype) if fits else factors
            np.multiply(gradient, by, out=gradient, casting="unsafe")


def kl_pass(mu, logvar, noise, key, z, gradients, weight, free_bits, by_row, threads, wanted=True):
    """KL of checked latents: its total over the batch, or (B,) by_row; z and gradients on the way.

    gradients is a pair of arrays to fill with weight * dKL, or None. Where the KL is not `wanted`
    there is only z.
    """
    dmu, dlogvar = gradients if gradients is not None else (None, None)
    if free_bits is None and not by_row:
        return _kernels.latents(
            mu,
            logvar,
            noise,
            key,
            z,
            dmu,
            dlogvar,
            weight,
            None,
            None,
            0.0,
            0.0,
            "total" if wanted else "nothing",
            None,
            threads,
        )
    batch, dims = mu.shape

    def run(sums, out=None, *, first=True, grad=True, cols=None, rows=None, floor=0.0):
        return _kernels.latents(
            mu,
            logvar,
            noise if first else None,  # a later pass leaves z alone
            key if first else None,
            z if first else None,
            dmu if grad else None,
            dlogvar if grad else None,
            weight,
            cols,
            rows,
            floor,
            free_bits._value_below if floor else 0.0,
            sums,
            out,
            threads,
        )

    if free_bits is None or free_bits.granularity == "sample":
        floor = free_bits.threshold if free_bits else 0.0
        if not by_row:
            return run("total", floor=floor)
        values = np.empty(batch)
        run("rows", values, floor=floor)
        return values
    if free_bits.granularity == "total":
        values = np.empty(batch)
        run("rows", values, grad=False)
        keep = ~(values <= free_bits.threshold)
        if gradients is not None:
            run("total", rows=keep.astype(np.float64), first=False)
        values = np.where(keep, values, free_bits._value_below)
        return values if by_row else float(values.sum())
    columns = np.empty(dims)
    run("columns", columns, grad=False)
    columns /= batch
    keep = ~(columns <= free_bits.threshold)
    floored = float((~keep).sum()) * free_bits._value_below
    cols = keep.astype(np.float64)
    if by_row:
        values = np.empty(batch)
        run("rows", values, cols=cols, first=False)
        return values + floored
    if gradients is not None:
        run("total", cols=cols, first=False)
    return batch * (float(columns[keep].sum()) + floored)


def as_one_batch(shapes):
    """The shapes, by name, with their leading axes made one: of (..., L) as the first, and, of
    factors (``tril_q``), of (..., L, L), or (L, L) where all share one."""
    first, (*leading, dims) = next(iter(shapes.items()))
    flat = []
    for name, shape in shapes.items():
        event = (dims, dims) if name.startswith("tril") else (dims,)
        if tuple(shape) == event == (dims, dims):
            flat.append(event)
            continue
        if tuple(shape) != (*leading, *event):
            raise _arrays.shape_error(name, shape, f"{(*leading, *event)} like {first}")
        flat.append((math.prod(leading), *event))
    return flat


def over_rows(compute, arguments, names, out, with_gradient):
    """`compute(arguments, out)` of arrays that have more than one leading axis, as of one batch."""
    arrays = [_arrays.as_floats(a, name) for a, name in zip(arguments, names, strict=True)]
    leading, shapes = arrays[0].shape[:-1], [array.shape for array in arrays]
    rows = as_one_batch(dict(zip(names, shapes, strict=True)))
    flat = [array.reshape(shape) for array, shape in zip(arrays, rows, strict=True)]
    if not with_gradient:
        value = compute(flat, None)
        return value.reshape(leading) if np.ndim(value) else value
    single = _arrays.computes_in_float32(tuple(arrays))
    out = _arrays.checked_outs(out, shapes, single, arguments, names)
    value, gradients = compute(
        flat, tuple(o.reshape(shape) for o, shape in zip(out, rows, strict=True))
    )
    value = value.reshape(leading) if np.ndim(value) else value
    return value, type(gradients)(*out)


def _standard(mu, logvar, free_bits, reduction, num_threads, out, with_gradient):
    if type(free_bits) is float and free_bits == 0:
        short = divergence((mu, logvar), reduction, num_threads, out, GaussianGrad, with_gradient)
        if short is not None:
            return short
    if _arrays.as_any_array(mu, "mu").ndim > 2:
        options = free_bits, reduction, num_threads

        def compute(arrays, out):
            return _standard(*arrays, *options, out, with_gradient)

        return over_rows(compute, (mu, logvar), GaussianGrad._fields, out, with_gradient)
    check_reduction(reduction)
    free_bits = as_free_bits(free_bits)
    given = (mu, logvar)
    mu, logvar = _arrays.latents(mu, logvar)
    batch = mu.shape[0]
    gradients = None
    if with_gradient:
        single = mu.dtype.itemsize == 4
        shapes = (mu.shape, mu.shape)
        gradients = GaussianGrad(
            *_arrays.checked_outs(out, shapes, single, given, ("mu", "logvar"))
        )
    weight = 1.0 / batch if reduction == "mean" else 1.0
    value = kl_pass(
        mu,
        logvar,
        None,
        None,
        None,
        gradients,
        weight,
        free_bits,
        reduction == "none",
        threads_for(mu.size * LATENT_COST, num_threads),
    )
    if reduction == "mean":
        value /= batch
    return (value, gradients) if with_gradient else value


def kl_standard_normal(mu, logvar, *, free_bits=0.0, reduction="mean", num_threads=None):
    """KL(N(mu, diag(e^logvar)) || N(0, I)) = 0.5 sum(mu^2 + e^logvar - 1 - logvar).

    Free of cancellation near mu = logvar = 0, where the plain formula loses its digits.

    Parameters
    ----------
    mu, logvar : array_like, shape (..., L)
        With any leading axes, such as (B, L) or (samples, B, L): all of them are the batch.
    free_bits : float or FreeBits, optional
        A floor under the KL, by latent dimension if a number.
    reduction : {"mean", "sum", "none"}
        Over the batch.
    num_threads : int, optional

    Returns
    -------
    float, or ndarray of shape (...) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError
        If shapes differ, the batch is empty or an option is unknown.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.kl_standard_normal([[1.0, 1.0]], [[0.0, 0.0]])
    1.0
    """
    return _standard(mu, logvar, free_bits, reduction, num_threads, None, False)


def kl_standard_normal_and_grad(
    mu, logvar, *, free_bits=0.0, reduction="mean", out=None, num_threads=None
):
    """:func:`kl_standard_normal` and its gradients in one pass.

    Parameters
    ----------
    mu, logvar, free_bits, reduction, num_threads
        As in :func:`kl_standard_normal`.
    out : tuple of two ndarray, optional
        Where to write the gradients of mu and logvar.

    Returns
    -------
    value : float or ndarray of shape (...)
    gradients : GaussianGrad
        Gradient of the value with respect to mu and logvar (with ``reduction="none"``, of each
        sample's own value).

    Raises
    ------
    ValueError, TypeError
        As :func:`kl_standard_normal`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.kl_standard_normal_and_grad([[2.0]], [[0.0]])
    >>> value, grad.mu, grad.logvar
    (2.0, array([[2.]]), array([[0.]]))
    """
    return _standard(mu, logvar, free_bits, reduction, num_threads, out, True)


_NAMES = ("mu_q", "logvar_q", "mu_p", "logvar_p")


def pairs(arguments):
    """(mu_q, logvar_q) and (mu_p, logvar_p), checked."""
    q = _arrays.latents(*arguments[:2], *_NAMES[:2])
    p = _arrays.latents(*arguments[2:], *_NAMES[2:])
    if q[0].shape != p[0].shape:
        raise _arrays.shape_error("mu_p", p[0].shape, f"that of mu_q, {q[0].shape}")
    return q, p


def _between(arguments, reduction, num_threads, out, with_gradient):
    short = divergence(tuple(arguments), reduction, num_threads, out, KlNormalGrad, with_gradient)
    if short is not None:
        return short
    if _arrays.as_any_array(arguments[0], "mu_q").ndim > 2:

        def compute(arrays, out):
            return _between(arrays, reduction, num_threads, out, with_gradient)

        return over_rows(compute, arguments, _NAMES, out, with_gradient)
    check_reduction(reduction)
    q, p = pairs(arguments)
    single = _arrays.computes_in_float32((*q, *p))
    operands = tuple(_arrays.in_dtype(a, single) for a in (*q, *p))
    batch, _ = shape = q[0].shape
    gradients = None
    if with_gradient:
        gradients = _arrays.checked_outs(out, [shape] * 4, single, arguments, _NAMES)
    weight = 1.0 / batch if reduction == "mean" else 1.0
    values = np.empty(batch)
    threads = threads_for(q[0].size * LATENT_COST, num_threads)
    total = _kernels.between(operands, gradients, weight, values, threads)
    if reduction != "none":
        values = total / batch if reduction == "mean" else total
    return (values, KlNormalGrad(*gradients)) if with_gradient else values


def kl_normal(mu_q, logvar_q, mu_p, logvar_p, *, reduction="mean", num_threads=None):
    """KL(N(mu_q, diag(e^logvar_q)) || N(mu_p, diag(e^logvar_p))).

    Parameters
    ----------
    mu_q, logvar_q, mu_p, logvar_p : array_like, shape (..., L)
        With any leading axes: all of them are the batch. A prior shared by it can be passed as
        ``np.broadcast_to(mu_p, (B, L))``: it is not copied.
    reduction : {"mean", "sum", "none"}
        Over the batch.
    num_threads : int, optional

    Returns
    -------
    float, or ndarray of shape (...) for ``reduction="none"``
        In nats.

    Raises
    ------
    ValueError
        If shapes differ, the batch is empty or an option is unknown.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.kl_normal([[3.0]], [[0.0]], [[1.0]], [[0.0]])
    2.0
    """
    return _between((mu_q, logvar_q, mu_p, logvar_p), reduction, num_threads, None, False)


def kl_normal_and_grad(
    mu_q, logvar_q, mu_p, logvar_p, *, reduction="mean", out=None, num_threads=None
):
    """:func:`kl_normal` and its four gradients in one pass.

    Parameters
    ----------
    mu_q, logvar_q, mu_p, logvar_p, reduction, num_threads
        As in :func:`kl_normal`.
    out : tuple of four ndarray, optional
        Where to write the gradients.

    Returns
    -------
    value : float or ndarray of shape (...)
    gradients : KlNormalGrad
        In the shapes of the arguments; with ``reduction="none"``, of the sum over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`kl_normal`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.kl_normal_and_grad([[3.0]], [[0.0]], [[1.0]], [[0.0]])
    >>> grad.mu_q, grad.mu_p
    (array([[2.]]), array([[-2.]]))
    """
    return _between((mu_q, logvar_q, mu_p, logvar_p), reduction, num_threads, out, True)
