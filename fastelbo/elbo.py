"""The evidence lower bound, value and gradient."""

from typing import NamedTuple

import numpy as np

from fastelbo._arguments import as_whole
from fastelbo._objective import value, value_and_grad
from fastelbo.locations import SquaredError

_SQUARED_ERROR = SquaredError()


class ElboResult(NamedTuple):
    """The parts of an ELBO, in nats: floats, or (B,) arrays for ``reduction="none"``."""

    elbo: float | np.ndarray
    reconstruction: float | np.ndarray
    kl: float | np.ndarray
    z: np.ndarray | None


class ElboGrad(NamedTuple):
    """Gradients of an ELBO; x_recon is a tuple where the decoder has several outputs."""

    mu: np.ndarray
    logvar: np.ndarray
    x_recon: np.ndarray | tuple[np.ndarray, ...]


def elbo(
    x,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    prior=None,
    beta=1.0,
    free_bits=0.0,
    rng=None,
    noise=None,
    mask=None,
    reduction="mean",
    num_threads=None,
):
    """Evidence lower bound of a VAE with a diagonal Gaussian posterior.

    ELBO = E_q[log p(x|z)] - beta KL(q(z|x) || N(0, I)) [1]_ [2]_, with the decoder's output
    given, in one pass over memory and without temporaries.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Data; uint8 and other integers are read as they are (see the likelihood's ``x_scale``), and
        so is half precision: float16, and bfloat16 of ``ml_dtypes``.
    mu, logvar : array_like, shape (B, L)
        Parameters of q(z|x) = N(mu, diag(e^logvar)).
    x_recon : array_like, in the shape of x
        What the decoder gives: a mean, or logits, as the likelihood reads it. A tuple of arrays
        for a likelihood of several parameters.
    likelihood : Likelihood or str, optional
        log p(x | x_recon). ``SquaredError()`` gives -||x - x_recon||^2, without a constant. Names
        that :class:`~fastelbo.VAE` takes serve, too: ``"bernoulli"``, say.
    prior : object, optional
        p(z); None is N(0, I). Else what :func:`~fastelbo.log_weights` takes, and then the KL is
        estimated by the one z that rng or noise gives: log q(z|x) - log p(z).
    beta : float, optional
        Weight of the KL (beta-VAE [3]_). With 0 an infinite KL counts nothing, either.
    free_bits : float or FreeBits, optional
        A floor under the KL, per latent dimension if a number.
    rng : int, numpy.random.Generator, optional
        Draw z = mu + e^(logvar/2) eps in the same pass; see :func:`~fastelbo.reparameterize`.
    noise : array_like, shape (B, L), optional
        eps itself, instead of `rng`.
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x. Missing values add nothing to the log-likelihood
        and have no gradient.
    reduction : {"mean", "sum", "none"}
        Over the batch.
    num_threads : int, optional

    Returns
    -------
    ElboResult
        ``elbo``, ``reconstruction`` (the log-likelihood), ``kl``, in nats, and ``z``, which is None
        unless rng or noise is given.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or x lies outside the likelihood's domain. The
        message names the argument.

    References
    ----------
    .. [1] Kingma, Welling. Auto-encoding variational Bayes. ICLR 2014.
    .. [2] Rezende, Mohamed, Wierstra. Stochastic backpropagation and approximate inference in deep
       generative models. ICML 2014.
    .. [3] Higgins et al. beta-VAE: learning basic visual concepts with a constrained variational
       framework. ICLR 2017.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.elbo([[1.0, 2.0]], [[1.0]], [[0.0]], [[1.0, 0.0]])
    ElboResult(elbo=-4.5, reconstruction=-4.0, kl=0.5, z=None)
    """
    return value(
        ElboResult,
        x,
        mu,
        logvar,
        x_recon,
        likelihood,
        prior,
        beta,
        free_bits,
        rng,
        noise,
        mask,
        reduction,
        num_threads,
    )


def elbo_and_grad(
    x,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    prior=None,
    beta=1.0,
    free_bits=0.0,
    rng=None,
    noise=None,
    mask=None,
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`elbo` and its gradients, still in one pass over memory.

    The gradients are those of the ELBO itself, to ascend. The one with respect to mu and logvar is
    that of -beta KL: what reaches them through z and the decoder is added by
    :func:`~fastelbo.reparameterize_backward`. With a `prior` it includes what its log density
    passes on through z; the prior's own parameters get ``prior.backward(result.z, beta / B)``.

    Parameters
    ----------
    x, mu, logvar, x_recon, likelihood, prior, beta, free_bits, rng, noise, mask
        As in :func:`elbo`.
    reduction, num_threads
        As in :func:`elbo`.
    out : tuple (mu, logvar, x_recon), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    result : ElboResult
    gradients : ElboGrad
        ``mu``, ``logvar`` and ``x_recon`` (a tuple if x_recon was one): the gradients of
        ``result.elbo`` (with ``reduction="none"``, of each sample's own). Of what has half
        precision they have it, too, unless something else is float64, or `out` float32: in float16
        what is less than 3e-8 is lost, as it easily is in a mean.

    Raises
    ------
    ValueError, TypeError
        As :func:`elbo`.

    Examples
    --------
    >>> import fastelbo
    >>> result, grad = fastelbo.elbo_and_grad([[1.0, 2.0]], [[1.0]], [[0.0]], [[1.0, 0.0]])
    >>> grad.x_recon, grad.mu
    (array([[0., 4.]]), array([[-1.]]))
    """
    return value_and_grad(
        ElboResult,
        ElboGrad,
        x,
        mu,
        logvar,
        x_recon,
        likelihood,
        prior,
        beta,
        free_bits,
        rng,
        noise,
        mask,
        reduction,
        out,
        num_threads,
    )


def elbo_from_buffers(
    x,
    mu,
    logvar,
    x_recon,
    batch_size,
    input_dim,
    latent_dim,
    *,
    dtype=None,
    x_dtype=None,
    **options,
):
    """:func:`elbo` over flat buffers: bytes, bytearray, array.array, mmap, memoryview; no copy.

    Parameters
    ----------
    x, x_recon : buffer of batch_size * input_dim elements
    mu, logvar : buffer of batch_size * latent_dim elements
    batch_size, input_dim, latent_dim : int
    dtype : dtype, optional
        float32 or float64: what raw bytes hold. Not needed for buffers that say so themselves, such
        as ``array.array("f")``.
    x_dtype : dtype, optional
        The same for x alone, ``"uint8"`` for example; `dtype` if not given.
    **options
        As in :func:`elbo`.

    Returns
    -------
    ElboResult

    Raises
    ------
    TypeError
        If something is no buffer, or raw bytes come without a dtype.
    ValueError
        If a buffer does not hold as many elements as the dimensions say.

    Examples
    --------
    >>> import array
    >>> import fastelbo
    >>> x, mu, logvar = array.array("d", [1, 2]), array.array("d", [1]), array.array("d", [0])
    >>> fastelbo.elbo_from_buffers(x, mu, logvar, x, 1, 2, 1).elbo
    -0.5
    """
    sizes = {"batch_size": batch_size, "input_dim": input_dim, "latent_dim": latent_dim}
    for name, size in sizes.items():
        sizes[name] = as_whole(size, name, 0)
    batch, event, latent = sizes.values()
    dtype = _as_dtype(dtype, "dtype")
    x_dtype = dtype if x_dtype is None else _as_dtype(x_dtype, "x_dtype")
    return elbo(
        _from_buffer(x, "x", batch, event, x_dtype),
        _from_buffer(mu, "mu", batch, latent, dtype),
        _from_buffer(logvar, "logvar", batch, latent, dtype),
        _from_buffer(x_recon, "x_recon", batch, event, dtype),
        **options,
    )


def _as_dtype(dtype, name):
    """A dtype of real numbers, or None."""
    if dtype is None:
        return None
    try:
        real = np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {dtype!r} is no dtype") from None
    if real.kind not in "fiub":
        raise TypeError(f"{name}: {real} holds no real numbers")
    return real


def _from_buffer(buffer, name, rows, cols, dtype):
    """A buffer as a (rows, cols) array that shares its memory."""
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError(f"{name} must be a buffer, got {type(buffer).__name__}") from None
    if not view.c_contiguous:
        raise ValueError(f"{name} is not contiguous")
    if view.format not in ("B", "b", "c"):
        own = _as_dtype(view.format, name)
        if dtype is not None and dtype != own:
            raise TypeError(f"{name} holds {own}, but dtype={dtype} was asked for")
        dtype = own
    elif dtype is None:
        raise TypeError(f"{name} is raw bytes: say what they hold by dtype=")
    if view.nbytes != rows * cols * dtype.itemsize:
        raise ValueError(
            f"{name} holds {view.nbytes} bytes, expected {rows} x {cols} of {dtype}: "
            f"{rows * cols * dtype.itemsize}"
        )
    return np.frombuffer(view, dtype).reshape(rows, cols)
