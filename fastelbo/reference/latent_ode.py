"""The bound of a latent ODE, and the grid of times of a batch of series."""

import numpy as np

from fastelbo.reference.elbo import elbo_and_grad


def union_of_times(times, *, mask=None):
    """(every time that was observed, in order; where in it each series has its own, else 0).

    Examples
    --------
    >>> grid, positions = union_of_times([[0.0, 2.0], [1.0, 2.0]])
    >>> grid.tolist(), positions.tolist()
    ([0.0, 1.0, 2.0], [[0, 2], [1, 2]])
    """
    times = np.asarray(times, np.float64)
    seen = np.ones(times.shape, bool)
    if mask is not None:
        mask = np.asarray(mask)
        seen = mask.reshape(*mask.shape[:2], -1).any(axis=2)
        times = np.broadcast_to(times, seen.shape)
    grid = np.array(sorted(set(times[seen])))
    positions = np.zeros(times.shape, np.intp)
    for at in np.argwhere(seen):
        positions[tuple(at)] = np.flatnonzero(grid == times[tuple(at)])[0]
    return grid, positions


def latent_ode_elbo(
    x,
    times,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    beta=1.0,
    free_bits=0.0,
    mask=None,
    reduction="mean",
):
    """(elbo, reconstruction, kl, None); a mask (B, T) is one of whole times.

    Examples
    --------
    >>> latent_ode_elbo([[1.0, 2.0]], [0.0, 1.0], [[1.0]], [[0.0]], [[1.0, 0.0]])
    (-4.5, -4.0, 0.5, None)
    """
    return latent_ode_elbo_and_grad(
        x,
        times,
        mu,
        logvar,
        x_recon,
        likelihood=likelihood,
        beta=beta,
        free_bits=free_bits,
        mask=mask,
        reduction=reduction,
    )[0]


def latent_ode_elbo_and_grad(
    x,
    times,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=None,
    beta=1.0,
    free_bits=0.0,
    mask=None,
    reduction="mean",
):
    """(what :func:`latent_ode_elbo` returns, (mu, logvar, x_recon)).

    Examples
    --------
    >>> latent_ode_elbo_and_grad([[1.0]], [0.0], [[1.0]], [[0.0]], [[0.5]])[1]
    (array([[-1.]]), array([[-0.]]), array([[1.]]))
    """
    if mask is not None and np.shape(mask) == np.shape(x)[:2]:
        mask = np.reshape(mask, np.shape(mask) + (1,) * (np.ndim(x) - 2))
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
    )
