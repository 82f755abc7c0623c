"""Philox4x32-10 and the standard normals made of it."""

import numpy as np

from fastelbo.reference._common import as_float64


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
