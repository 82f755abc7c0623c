"""Continuous-time VAE: the bound of irregular time series, and the grid that a solver needs."""

from typing import NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_numbers
from fastelbo.elbo import _SQUARED_ERROR, ElboGrad, elbo, elbo_and_grad


class TimeGrid(NamedTuple):
    """All times at which something was observed, and where in it those of each series are."""

    grid: np.ndarray
    positions: np.ndarray


def union_of_times(times, *, mask=None):
    """The times of all series as one increasing grid, which an ODE solver can visit in one go.

    A solver takes one vector of times for a whole batch, while each series has its own: solve on
    ``grid``, and read ``solution[positions, np.arange(B)[:, None]]``, (B, T, L), from what that
    gives, (G, B, L).

    Parameters
    ----------
    times : array_like, shape (B, T) or (T,)
        When each series was observed, in order; or one for all.
    mask : array_like of bool, shape (B, T) or (B, T, ...), optional
        True where something was observed. What else `times` hold, NaN say, is never read.

    Returns
    -------
    TimeGrid
        ``grid`` (G,), float64, strictly increasing, and ``positions``, whole numbers in the shape
        of times (of the mask's first two axes, with one): ``grid[positions]`` are the times where
        something was observed; elsewhere they are 0.

    Raises
    ------
    ValueError, TypeError
        If a shape or dtype does not fit, times are out of order or not finite, or there is none.

    See Also
    --------
    latent_ode_elbo : the bound, for what the decoder makes of the solution.

    Examples
    --------
    >>> import fastelbo
    >>> grid, positions = fastelbo.union_of_times([[0.0, 1.0, 3.0], [0.5, 1.0, 2.0]])
    >>> grid
    array([0. , 0.5, 1. , 2. , 3. ])
    >>> positions
    array([[0, 2, 4],
           [1, 2, 3]])
    """
    times = _as_times(times)
    if mask is not None:
        mask = _arrays.as_flags(mask)
        if mask.ndim < 2 or times.shape not in (mask.shape[:2], mask.shape[1:2]):
            wanted = "(batch, times) or (batch, times, ...) like times"
            raise _arrays.shape_error("mask", mask.shape, f"{wanted}, {times.shape}")
    times, seen = _in_order(times, mask)
    if not seen.any():
        raise ValueError("times: nothing was observed, so there is no time to visit")
    positions = np.zeros(times.shape, np.intp)
    grid, positions[seen] = np.unique(times[seen], return_inverse=True)
    return TimeGrid(grid, positions)


def latent_ode_elbo(
    x,
    times,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    beta=1.0,
    free_bits=0.0,
    mask=None,
    reduction="mean",
    num_threads=None,
):
    """Evidence lower bound of a latent ODE, of series with times of their own and gaps [1]_ [2]_.

    ELBO = E_q[sum over OBSERVED (t, d) of log p(x_td | z_t)] - beta KL(q(z_0|x) || N(0, I)), where
    z_t solves dz/dt = f(z, t) from a draw z_0 of the posterior. The solver is yours (SciPy's
    ``solve_ivp``, torchdiffeq, a few lines of Runge-Kutta): :func:`union_of_times` says at which
    times, and the decoder's output at those of each series is `x_recon`. One pass over memory.

    Parameters
    ----------
    x : array_like, shape (B, T, ...)
        Series of T values each; shorter ones are padded, with anything, and masked.
    times : array_like, shape (T,) or (B, T)
        When they were observed: not decreasing in any series. They are checked and do not enter
        the value, which they determine through the solver.
    mu, logvar : array_like, shape (B, L)
        Parameters of q(z_0|x) = N(mu, diag(e^logvar)).
    x_recon : array_like, in the shape of x
        What the decoder makes of z_t. A tuple of arrays for a likelihood of several parameters.
    likelihood : Likelihood or str, optional
        log p(x_t | x_recon).
    beta : float, optional
        Weight of the KL.
    free_bits : float or FreeBits, optional
        As in :func:`~fastelbo.elbo`.
    mask : array_like of bool, optional
        True where x was observed: (B, T) for whole times, else what broadcasts to x. What is
        missing adds nothing, and its times are not read.
    reduction : {"mean", "sum", "none"}
        Over the series.
    num_threads : int, optional

    Returns
    -------
    ElboResult
        ``elbo``, ``reconstruction``, ``kl``, in nats; ``z`` is None.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, times are out of order or not finite, or x lies
        outside the likelihood's domain. The message names the argument.

    References
    ----------
    .. [1] Chen, Rubanova, Bettencourt, Duvenaud. Neural ordinary differential equations.
       NeurIPS 2018.
    .. [2] Rubanova, Chen, Duvenaud. Latent ODEs for irregularly-sampled time series. NeurIPS 2019.

    See Also
    --------
    union_of_times : at which times to solve.

    Examples
    --------
    >>> import fastelbo
    >>> x, x_recon = [[[1.0], [2.0], [0.0]]], [[[1.0], [0.0], [9.0]]]
    >>> observed = [[True, True, False]]
    >>> fastelbo.latent_ode_elbo(x, [0.0, 0.7, 0.9], [[1.0]], [[0.0]], x_recon, mask=observed)
    ElboResult(elbo=-4.5, reconstruction=-4.0, kl=0.5, z=None)
    """
    return elbo(
        x,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        beta=beta,
        free_bits=free_bits,
        mask=_checked_series(x, times, mask),
        reduction=reduction,
        num_threads=num_threads,
    )


def latent_ode_elbo_and_grad(
    x,
    times,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    beta=1.0,
    free_bits=0.0,
    mask=None,
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`latent_ode_elbo` and its gradients, to ascend.

    That of x_recon goes back through the decoder and the solver to z_0, and from there
    :func:`~fastelbo.reparameterize_backward` takes it to mu and logvar, beside the KL's, given
    here.

    Parameters
    ----------
    x, times, mu, logvar, x_recon, likelihood, beta, free_bits, mask, reduction, num_threads
        As in :func:`latent_ode_elbo`.
    out : tuple (mu, logvar, x_recon), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    result : ElboResult
    gradients : ElboGrad
        Zero where nothing was observed; with ``reduction="none"``, of the sum over the batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`latent_ode_elbo`.

    Examples
    --------
    >>> import fastelbo
    >>> x, x_recon = [[[1.0], [2.0], [0.0]]], [[[1.0], [0.0], [9.0]]]
    >>> result, grad = fastelbo.latent_ode_elbo_and_grad(
    ...     x, [0.0, 0.7, 0.9], [[1.0]], [[0.0]], x_recon, mask=[[True, True, False]]
    ... )
    >>> grad.x_recon.ravel(), grad.mu
    (array([0., 4., 0.]), array([[-1.]]))
    """
    mask = _checked_series(x, times, mask)
    _arrays.keep_apart(out, ElboGrad._fields, (times,))
    return elbo_and_grad(
        x,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        beta=beta,
        free_bits=free_bits,
        mask=mask,
        reduction=reduction,
        out=out,
        num_threads=num_threads,
    )


def _checked_series(x, times, mask):
    """The mask as it broadcasts to series x, whose times are in order."""
    shape = _arrays.as_any_array(x, "x").shape
    if len(shape) < 2:
        raise _arrays.shape_error("x", shape, "(batch, times, ...)")
    times = _as_times(times)
    if times.shape not in (shape[:2], shape[1:2]):
        raise _arrays.shape_error("times", times.shape, f"{shape[1:2]} or {shape[:2]} like x")
    seen = None
    if mask is not None:
        mask = seen = _arrays.as_flags(mask)
        if mask.shape == shape[:2]:
            mask = mask.reshape(shape[:2] + (1,) * (len(shape) - 2))
        elif mask.ndim <= len(shape):  # elbo complains about what else does not fit
            missing = len(shape) - mask.ndim
            seen = mask.reshape((1,) * missing + mask.shape)
        fits = seen.ndim >= 2 and all(
            n in (1, wanted) for n, wanted in zip(seen.shape, shape, strict=False)
        )
        seen = seen if fits else None
    _in_order(times, seen)
    return mask


def _as_times(times):
    times = as_numbers(times, "times")
    if times.ndim not in (1, 2):
        raise _arrays.shape_error("times", times.shape, "(times,) or (batch, times)")
    return times


def _in_order(times, mask):
    """(times, which of them count), in one shape; those that do, do not decrease."""
    seen = np.ones(times.shape, bool)
    if mask is not None:
        seen = mask.any(axis=tuple(range(2, mask.ndim)))
        times, seen = np.broadcast_arrays(times, seen)
    counted = np.where(seen & ~np.isnan(times), times, -np.inf)
    before = np.maximum.accumulate(counted, axis=-1)
    wrong = seen & ~((times >= before) & np.isfinite(times))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        place = ", ".join(map(str, at))
        if not np.isfinite(times[at]):
            raise ValueError(f"times[{place}] = {times[at]} is not finite: mask what is missing")
        raise ValueError(
            f"times out of order: times[{place}] = {times[at]:g} comes after {before[at]:g}; sort "
            "each series, and x and mask with it"
        )
    return times, seen
