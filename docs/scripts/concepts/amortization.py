r"""
Amortization
============

An encoder answers for every x with one function, which costs something at each:

.. math::

   \log p(x) - \mathrm{ELBO}(q_\phi) =
   \underbrace{\log p(x) - \mathrm{ELBO}(q^*_x)}_{\text{the family's gap}} +
   \underbrace{\mathrm{ELBO}(q^*_x) - \mathrm{ELBO}(q_\phi)}_{\text{the amortization gap}}

where :math:`q^*_x` is the best Gaussian of this x alone. :func:`fastelbo.refine_posterior` climbs
to it from what the encoder says, each row by itself; a few steps of it at every x are
*semi-amortized* inference.
"""

# %%
# A decoder that bends: the posterior is no Gaussian, and the encoder's guess is poor. The figure
# has the posterior on a grid, and three Gaussians.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

x, noise = np.array([[1.2]]), 0.3


def decoder(z):
    """x from z, and the way back of gradients."""
    return np.sin(z) + 0.3 * z, lambda by_x: by_x * (np.cos(z) + 0.3)


options = {"likelihood": fastelbo.Gaussian(noise), "rng": 0}
guess = np.array([[0.3]]), np.array([[-1.5]])
found = {"encoder's": guess}
for steps in (3, 50):
    q = fastelbo.refine_posterior(decoder, x, *guess, steps=steps, **options)
    found[f"after {steps} steps"] = q.mu, q.logvar
for name, (mu, logvar) in found.items():
    gap = fastelbo.amortization_gap(decoder, x, mu, logvar, **options)
    print(f"{name:15} mu {mu.item():6.3f}  logvar {logvar.item():6.3f}  gap {gap:7.4f} nats")

grid = np.linspace(-1.5, 3.5, 400)
joint = -0.5 * grid**2 - 0.5 * ((x[0, 0] - np.sin(grid) - 0.3 * grid) / noise) ** 2
posterior = np.exp(joint - joint.max())
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.fill_between(grid, posterior / np.trapezoid(posterior, grid), color="0.88", label="p(z|x)")
for (name, (mu, logvar)), line in zip(found.items(), (":", "--", "-"), strict=True):
    log_q = fastelbo.posterior_log_prob(
        grid[:, None], np.full((400, 1), mu), np.full((400, 1), logvar), reduction="none"
    )
    ax.plot(grid, np.exp(log_q), line, label=name)
ax.set(xlabel="z", yticks=[])
ax.legend()

# %%
# See also
# --------
#
# :func:`fastelbo.generalization_gap`, ``VAE(refine_steps=...)``, and
# :doc:`/gallery/amortization_gap`.
