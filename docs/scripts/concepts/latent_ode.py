r"""
Latent ODE
==========

A series observed at times of its own is a path through the latent space, of which the start alone
is random:

.. math::

   z_0 \sim q(z_0|x), \qquad \frac{dz}{dt} = f(z, t), \qquad
   \mathrm{ELBO} = \mathbb{E}_q \sum_{(t, d)\ \text{observed}} \log p(x_{td}|z_t)
   - \mathrm{KL}(q(z_0|x) \,\|\, p(z_0))

The solver is the user's. Series have their own times and a solver wants one grid:
:func:`fastelbo.union_of_times` makes it, and :func:`fastelbo.latent_ode_elbo` sums over what was
observed, reading nothing else.
"""

# %%
# Three damped oscillations at irregular times. With the right dynamics, the bound over the start of
# one series has its maximum where it began.

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp

import fastelbo

rng = np.random.default_rng(0)
matrix = np.array([[-0.2, -2.0], [2.0, -0.2]])
starts = np.array([[1.0, 0.5], [-1.0, 0.8], [0.3, -1.2]])
times = np.sort(rng.uniform(0, 4, (3, 14)), axis=1)
observed = rng.random(times.shape) < [[0.9], [0.7], [0.5]]
grid, positions = fastelbo.union_of_times(times, mask=observed)


def paths(z_0):
    """(G, B, L): where each start is at each time of the grid."""
    shape = z_0.shape
    solution = solve_ivp(
        lambda t, z: (z.reshape(shape) @ matrix.T).ravel(), (0, 4), z_0.ravel(), t_eval=grid
    )
    return solution.y.T.reshape(-1, *shape)


def at_observed(z_0):
    """(B, T, L): the same at the times of each series."""
    return paths(z_0)[positions, np.arange(len(z_0))[:, None]]


x = at_observed(starts) + 0.1 * rng.normal(size=(3, 14, 2))
x[~observed] = np.nan  # never read
logvar = np.full((3, 2), -6.0)
shifts, elbos = np.linspace(-0.6, 0.6, 13), []
for shift in shifts:
    mu = starts + np.array([shift, 0.0])
    result = fastelbo.latent_ode_elbo(
        x, times, mu, logvar, at_observed(mu),
        likelihood=fastelbo.Gaussian(0.1), mask=observed, reduction="none",
    )  # fmt: skip
    elbos.append(result.elbo)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for i in range(3):
    left.plot(grid, paths(starts)[:, i, 0], lw=1)
    left.plot(times[i], x[i, :, 0], "o", ms=4, color=left.lines[-1].get_color())
left.set(xlabel="t", ylabel="x", title="first coordinate, and what was observed")
right.plot(shifts, np.array(elbos))
right.set(xlabel="shift of the start", ylabel="ELBO, nats", ylim=(-130, 50))
print("best shift of each:", shifts[np.argmax(elbos, axis=0)])

# %%
# See also
# --------
#
# A model that learns f: :doc:`/gallery/latent_ode`.
