"""The specification: every public function again, in plain float64 NumPy, written to be read.

Names, arguments and the order of results are those of the public functions. Inputs are converted
to float64 and results are float64; where the public functions return a named tuple, these return
a plain one with the same fields in the same order. Options that change no number (``num_threads``,
``out``) are absent, and ``rng`` is an int key. Inputs are trusted: checks are the business of the
public functions. Only NumPy is imported.

``mu`` and ``logvar`` are (B, L), ``x`` and ``x_recon`` (B, ...); K samples add a leading axis to
``noise``, ``z`` and, in the likelihoods, ``x_recon``. Values are in nats, and gradients are those
of the value returned, the ELBO itself and not its negative. With ``reduction="none"`` a gradient
is that of the sum of the values.
"""

from typing import NamedTuple

import numpy as np

LOG_2PI = float(np.log(2.0 * np.pi))

# Overflow and NaN pass through here as they do in the kernels, without a warning.
quiet = np.errstate(all="ignore")


def as_float64(*arrays):
    """The arrays as float64; of a single one, the array itself."""
    converted = [np.asarray(a, dtype=np.float64) for a in arrays]
    return converted if len(converted) > 1 else converted[0]


def reduce_rows(rows, reduction):
    """One value a sample to what the caller asked for."""
    if reduction == "none":
        return rows
    return float({"mean": np.mean, "sum": np.sum}[reduction](rows))


def row_weight(rows, reduction):
    """The derivative of the reduced value by the value of one sample."""
    return 1.0 / rows if reduction == "mean" else 1.0


@quiet
def exp_minus_one_minus(x):
    """exp(x) - 1 - x without cancellation: 5e-19 at x = 1e-9.

    Examples
    --------
    >>> float(exp_minus_one_minus(1e-9))
    5.000000001666667e-19
    """
    x = as_float64(x)
    near = np.abs(x) < 0.5
    t = np.where(near, x, 0.0)
    tail = np.ones_like(t)
    for k in range(18, 2, -1):  # x^2/2 (1 + x/3 (1 + x/4 (1 + ...)))
        tail = 1.0 + tail * t / k
    return np.where(near, 0.5 * t * t * tail, np.expm1(x) - x)


# Noise ------------------------------------------------------------------------------------------


def philox4x32(counter, key):
    """Ten rounds of Philox4x32 (Salmon et al., SC 2011).

    Parameters
    ----------
    counter : array of 32-bit words, (..., 4)
    key : two 32-bit words

    Returns
    -------
    uint64 array of 32-bit words, (..., 4)

    Examples
    --------
    >>> [f"{word:08x}" for word in philox4x32([0, 0, 0, 0], [0, 0])]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    low = np.uint64(0xFFFFFFFF)
    high = np.uint64(32)
    a, b, c, d = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    k0, k1 = (int(word) for word in key)
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * a
        p1 = np.uint64(0xCD9E8D57) * c
        a, b = (p1 >> high) ^ b ^ np.uint64(k0), p1 & low
        c, d = (p0 >> high) ^ d ^ np.uint64(k1), p0 & low
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([a, b, c, d], axis=-1)


def uniforms_float32(words):
    """Of each counter's words (n, 4): u in (0, 1], eighth of a turn, two bits; each (n, 2)."""
    v, w = words[:, 0::2], words[:, 1::2]
    u = ((v >> 1).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-31)
    signed = (w << 2).astype(np.uint32).view(np.int32)  # the low 30 bits; wraps as intended
    turn = signed.astype(np.float32) * np.float32(2.0**-34)
    return u.astype(np.float64), turn.astype(np.float64), w >> 31, (w >> 30) & 1


def uniforms_float64(words):
    """As above from pairs of words; each (n, 1)."""
    v = (words[:, 0:1] << 32) | words[:, 1:2]
    w = (words[:, 2:3] << 32) | words[:, 3:4]
    u = (v >> 12) * 2.0**-52 + ((v & 0xFFF) + 0.5) * 2.0**-64  # (v + 1/2) / 2^64, rounded once
    turn = (((w >> 10) & (2**52 - 1)).astype(np.int64) - 2**51) * 2.0**-54
    return u, turn, w >> 63, (w >> 62) & 1


def standard_normal(key, n, dtype=np.float64):
    """Normals 0 .. n - 1 of a key, by Box-Muller, in the layout of ``_kernels/terms/noise.pxd``.

    ``dtype`` says which sequence: the uniforms are formed as in a float32 or float64 kernel.
    The functions of them are then exact to float64 in both.

    Parameters
    ----------
    key : int in [0, 2**64)
    n : int
    dtype : float32 or float64

    Returns
    -------
    float64 array, (n,)

    Examples
    --------
    >>> standard_normal(2026, 3).shape
    (3,)
    """
    key, n, group = int(key), int(n), 16
    groups = -(-n // 64) * (64 // group // (2 if np.dtype(dtype) == np.float64 else 4))
    counters = np.arange(groups * group, dtype=np.uint64)
    zero = np.zeros_like(counters)
    words = philox4x32(
        np.stack([counters & 0xFFFFFFFF, counters >> 32, zero, zero], axis=-1),
        (key & 0xFFFFFFFF, key >> 32),
    )
    uniforms = uniforms_float64 if np.dtype(dtype) == np.float64 else uniforms_float32
    u, turn, negative, swapped = uniforms(words)
    radius = np.sqrt(-2.0 * np.log(u))
    sine = radius * np.sin(2.0 * np.pi * turn)
    cosine = radius * np.cos(2.0 * np.pi * turn) * np.where(negative == 1, -1.0, 1.0)
    first = np.where(swapped == 1, sine, cosine)
    second = np.where(swapped == 1, cosine, sine)
    normals = np.stack([first, second], axis=-1)  # (counter, pair, 2)
    return normals.reshape(groups, group, 2 * u.shape[1]).swapaxes(1, 2).ravel()[:n]


def noise_of(noise, rng, shape, *inputs):
    """The noise given, else that of the key ``rng``: float32's sequence if all inputs are."""
    if noise is not None:
        return as_float64(noise)
    dtypes = [np.asarray(a).dtype for a in inputs]
    single = all(dtype.kind == "f" and dtype.itemsize <= 4 for dtype in dtypes)
    return standard_normal(rng, np.prod(shape), np.float32 if single else np.float64).reshape(shape)


# The posterior ----------------------------------------------------------------------------------


@quiet
def reparameterize(mu, logvar, *, rng=None, noise=None, samples=None):
    """z = mu + exp(logvar / 2) noise (Kingma & Welling 2014).

    (B, L), or (K, B, L) with ``samples=K``. Element i of the flattened z takes normal i of the key.

    Examples
    --------
    >>> reparameterize([[1.0]], [[0.0]], noise=[[2.0]])
    array([[3.]])
    """
    shape = np.shape(mu) if samples is None else (samples, *np.shape(mu))
    eps = noise_of(noise, rng, shape, mu, logvar)
    mu, logvar = as_float64(mu, logvar)
    return mu + np.exp(0.5 * logvar) * eps


def reparameterize_kl(
    mu, logvar, *, rng=None, noise=None, samples=None, free_bits=0.0, reduction="mean"
):
    """(z, kl): :func:`reparameterize` and :func:`kl_standard_normal`.

    Examples
    --------
    >>> reparameterize_kl([[1.0]], [[0.0]], noise=[[2.0]])
    (array([[3.]]), 0.5)
    """
    z = reparameterize(mu, logvar, rng=rng, noise=noise, samples=samples)
    return z, kl_standard_normal(mu, logvar, free_bits=free_bits, reduction=reduction)


@quiet
def reparameterize_backward(grad_z, mu, logvar, z, *, kl_weight=0.0, noise=None, rng=None):
    """(mu, logvar): the gradients of f(z(mu, logvar)) - sum(kl_weight KL), given df/dz.

    sigma noise is z - mu, unless the noise or its key is given; then ``z`` is not read.
    ``kl_weight`` is a number or (L,).

    Examples
    --------
    >>> reparameterize_backward([[1.0]], [[1.0]], [[0.0]], [[3.0]], kl_weight=1.0)
    (array([[0.]]), array([[1.]]))
    """
    eps = None
    if noise is not None or rng is not None:
        eps = noise_of(noise, rng, np.shape(grad_z), mu, logvar)
    mu, logvar, grad_z, kl_weight = as_float64(mu, logvar, grad_z, kl_weight)
    step = as_float64(z) - mu if eps is None else np.exp(0.5 * logvar) * eps
    samples = tuple(range(grad_z.ndim - 2))  # the leading axis, if there is one
    return (
        grad_z.sum(axis=samples) - kl_weight * mu,
        0.5 * (grad_z * step).sum(axis=samples) - kl_weight * 0.5 * np.expm1(logvar),
    )


# Divergences ------------------------------------------------------------------------------------


class FreeBits(NamedTuple):
    """KL that costs nothing (Kingma et al. 2016); a bare number is its threshold in nats."""

    threshold: float
    granularity: str = "dimension"
    below: str = "floor"


def with_free_bits(kl, free_bits):
    """KL (B, L) to its value a sample (B,), and which elements have a gradient, (B, L)."""
    bits = free_bits if hasattr(free_bits, "threshold") else FreeBits(free_bits)
    floor = {"floor": bits.threshold, "zero": 0.0}[bits.below]
    level = {  # what is compared with the threshold
        "dimension": kl.mean(axis=0, keepdims=True),
        "sample": kl,
        "total": kl.sum(axis=1, keepdims=True),
    }[bits.granularity]
    above = (bits.threshold == 0) | ~(level <= bits.threshold)  # NaN counts as above
    counted = level if bits.granularity == "total" else kl
    return np.where(above, counted, floor).sum(axis=1), np.broadcast_to(above, kl.shape)


def kl_standard_normal(mu, logvar, *, free_bits=0.0, reduction="mean"):
    """KL(N(mu, e^logvar) || N(0, I)) = sum(mu^2 + e^logvar - 1 - logvar) / 2.

    Examples
    --------
    >>> kl_standard_normal([[1.0, 2.0]], [[0.0, 0.0]])
    2.5
    >>> kl_standard_normal([[1.0, 2.0]], [[0.0, 0.0]], free_bits=1.0)
    3.0
    """
    return kl_standard_normal_and_grad(mu, logvar, free_bits=free_bits, reduction=reduction)[0]


@quiet
def kl_standard_normal_and_grad(mu, logvar, *, free_bits=0.0, reduction="mean"):
    """(kl, (mu, logvar)).

    Examples
    --------
    >>> kl_standard_normal_and_grad([[1.0, 2.0]], [[0.0, 0.0]])
    (2.5, (array([[1., 2.]]), array([[0., 0.]])))
    """
    mu, logvar = as_float64(mu, logvar)
    kl = 0.5 * (mu * mu + exp_minus_one_minus(logvar))
    rows, above = with_free_bits(kl, free_bits)
    weight = row_weight(len(rows), reduction)
    dmu = np.where(above, weight * mu, 0.0)
    dlogvar = np.where(above, weight * 0.5 * np.expm1(logvar), 0.0)
    return reduce_rows(rows, reduction), (dmu, dlogvar)


def kl_normal(mu_q, logvar_q, mu_p, logvar_p, *, reduction="mean"):
    """KL(N(mu_q, e^logvar_q) || N(mu_p, e^logvar_p)), both diagonal.

    = sum(e^(logvar_q - logvar_p) - 1 - (logvar_q - logvar_p) + (mu_q - mu_p)^2 e^-logvar_p) / 2

    Examples
    --------
    >>> kl_normal([[1.0]], [[0.0]], [[3.0]], [[0.0]])
    2.0
    """
    return kl_normal_and_grad(mu_q, logvar_q, mu_p, logvar_p, reduction=reduction)[0]


@quiet
def kl_normal_and_grad(mu_q, logvar_q, mu_p, logvar_p, *, reduction="mean"):
    """(kl, (mu_q, logvar_q, mu_p, logvar_p)).

    Examples
    --------
    >>> kl_normal_and_grad([[1.0]], [[0.0]], [[3.0]], [[0.0]])[1]
    (array([[-2.]]), array([[0.]]), array([[2.]]), array([[-2.]]))
    """
    mu_q, logvar_q, mu_p, logvar_p = as_float64(mu_q, logvar_q, mu_p, logvar_p)
    difference = mu_q - mu_p
    pull = difference * np.exp(-logvar_p)
    rows = 0.5 * (exp_minus_one_minus(logvar_q - logvar_p) + difference * pull).sum(axis=1)
    weight = row_weight(len(rows), reduction)
    spread = 0.5 * np.expm1(logvar_q - logvar_p)
    grads = (pull, spread, -pull, -(spread + 0.5 * difference * pull))
    return reduce_rows(rows, reduction), tuple(weight * g for g in grads)


# Likelihoods ------------------------------------------------------------------------------------


class Likelihood:
    """What the likelihoods share: an element-wise log density and its reduction.

    ``elements(x, *parameters)`` returns log p of every element and a tuple of its derivatives by
    each parameter.
    """

    x_scale = 1.0

    def log_prob(self, x, *parameters, reduction="mean"):
        """log p(x | parameters), summed over the event."""
        return self.log_prob_and_grad(x, *parameters, reduction=reduction)[0]

    @quiet
    def log_prob_and_grad(self, x, *parameters, reduction="mean"):
        """(log_prob, gradients by each parameter, in a tuple)."""
        x = as_float64(x) * self.x_scale
        values, grads = self.elements(x, *(as_float64(p) for p in parameters))
        event = tuple(range(-(x.ndim - 1), 0))
        rows = values.sum(axis=event)
        weight = row_weight(rows.size, reduction)
        return reduce_rows(rows, reduction), tuple(weight * g for g in grads)


class SquaredError(Likelihood):
    """-||x - x_recon||^2, with no constant.

    Examples
    --------
    >>> SquaredError().log_prob_and_grad([[1.0, 0.0]], [[0.5, 1.0]])
    (-1.25, (array([[ 1., -2.]]),))
    """

    def __init__(self, *, x_scale=1.0):
        self.x_scale = x_scale

    def elements(self, x, x_recon):
        error = x - x_recon
        return -error * error, (2.0 * error,)


class Gaussian(Likelihood):
    """log N(x; x_recon, scale^2), normalised.

    ``scale`` is a number, an array that broadcasts to the event, ``"learned"`` (a second
    parameter, ``log_scale``) or ``"optimal"`` (sigma-VAE, Rybkin et al. 2021: the mean squared
    error of the minibatch as sigma^2).

    Examples
    --------
    >>> round(Gaussian(2.0).log_prob([[1.0]], [[0.0]]), 12)
    -1.737085713765
    >>> Gaussian("learned").log_prob_and_grad([[1.0]], [[0.0]], [[0.0]])[1]
    (array([[1.]]), array([[0.]]))
    """

    def __init__(self, scale=1.0, *, x_scale=1.0):
        self.scale = scale
        self.x_scale = x_scale

    def elements(self, x, x_recon, log_scale=None):
        error = x - x_recon
        learned = isinstance(self.scale, str) and self.scale == "learned"
        optimal = isinstance(self.scale, str) and self.scale == "optimal"
        if learned:
            precision = np.exp(-log_scale)
        else:  # the derivative by the optimal scale vanishes over the minibatch
            scale = np.sqrt(np.mean(error * error)) if optimal else as_float64(self.scale)
            precision, log_scale = 1.0 / scale, np.log(scale)
        scaled = error * precision
        values = -0.5 * scaled * scaled - log_scale - 0.5 * LOG_2PI
        by_mean = scaled * precision
        return values, (by_mean, scaled * scaled - 1.0) if learned else (by_mean,)


class Bernoulli(Likelihood):
    """x l - softplus(l) for logits l and x in [0, 1].

    Evaluated as (x - [l > 0]) l - log(1 + e^-|l|), from which the large parts are gone: x = 1,
    l = 40 keeps all its digits. Its derivative is x - sigmoid(l) in the same manner.

    Examples
    --------
    >>> Bernoulli().log_prob([[1.0]], [[40.0]])
    -4.248354255291589e-18
    """

    def __init__(self, *, x_scale=1.0, validate=True):
        self.x_scale = x_scale
        self.validate = validate

    def elements(self, x, logits):
        if self.validate and np.any((x < 0.0) | (x > 1.0)):
            raise ValueError("x must be in [0, 1]")
        positive = np.where(logits > 0.0, 1.0, 0.0)
        small = np.exp(-np.abs(logits))
        values = (x - positive) * logits - np.log1p(small)
        return values, ((x - positive) + np.where(logits > 0.0, small, -small) / (1.0 + small),)


# The evidence bound -----------------------------------------------------------------------------


def elbo(
    x,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    beta=1.0,
    free_bits=0.0,
    rng=None,
    noise=None,
    reduction="mean",
):
    """(elbo, reconstruction, kl, z), with elbo = reconstruction - beta kl.

    ``likelihood`` is one of this module's, :class:`SquaredError` unless given. z is None unless
    ``rng`` or ``noise`` is given. A likelihood of several parameters takes a tuple as ``x_recon``.

    Examples
    --------
    >>> elbo([[1.0]], [[1.0]], [[0.0]], [[0.5]], beta=2.0)
    (-1.25, -0.25, 0.5, None)
    """
    return elbo_and_grad(
        x,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        beta=beta,
        free_bits=free_bits,
        rng=rng,
        noise=noise,
        reduction=reduction,
    )[0]


def elbo_and_grad(
    x,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    beta=1.0,
    free_bits=0.0,
    rng=None,
    noise=None,
    reduction="mean",
):
    """(what :func:`elbo` returns, (mu, logvar, x_recon)).

    The gradients hold z and x_recon apart: none flows from x_recon through z to mu and logvar.

    Examples
    --------
    >>> elbo_and_grad([[1.0]], [[1.0]], [[0.0]], [[0.5]])[1]
    (array([[-1.]]), array([[-0.]]), array([[1.]]))
    """
    likelihood = SquaredError() if likelihood is None else likelihood
    several = isinstance(x_recon, tuple)
    parameters = x_recon if several else (x_recon,)
    reconstruction, grads = likelihood.log_prob_and_grad(x, *parameters, reduction=reduction)
    kl, (dmu, dlogvar) = kl_standard_normal_and_grad(
        mu, logvar, free_bits=free_bits, reduction=reduction
    )
    z = None
    if rng is not None or noise is not None:
        floats = [mu, logvar, *parameters]
        if np.asarray(x).dtype.kind == "f":  # integer data is read as such and decides nothing
            floats.append(x)
        z = reparameterize(mu, logvar, noise=noise_of(noise, rng, np.shape(mu), *floats))
    result = (reconstruction - beta * kl, reconstruction, kl, z)
    return result, (-beta * dmu, -beta * dlogvar, grads if several else grads[0])


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
    """:func:`elbo` of flat memory: bytes, array.array, mmap or memoryview.

    ``dtype`` (for x alone, ``x_dtype``) is what raw bytes hold; other buffers say so themselves.

    Examples
    --------
    >>> from array import array
    >>> one, half, zero = (array("d", [v]) for v in (1.0, 0.5, 0.0))
    >>> elbo_from_buffers(one, one, zero, half, 1, 1, 1)
    (-0.75, -0.25, 0.5, None)
    """

    def rows(buffer, size, dtype):
        view = memoryview(buffer)
        held = dtype if view.format in ("B", "b", "c") else view.format
        return np.frombuffer(view, held).reshape(batch_size, size)

    return elbo(
        rows(x, input_dim, x_dtype or dtype),
        rows(mu, latent_dim, dtype),
        rows(logvar, latent_dim, dtype),
        rows(x_recon, input_dim, dtype),
        **options,
    )
