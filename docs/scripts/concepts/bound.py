r"""
The bound
=========

A latent variable model :math:`p(x) = \int p(x|z)\, p(z)\, dz` has an integral that nobody can
compute. Any distribution :math:`q(z|x)` gives a lower bound of its logarithm, the *evidence lower
bound*:

.. math::

   \log p(x) = \underbrace{
   \mathbb{E}_{q}[\log p(x|z)] - \mathrm{KL}(q(z|x) \,\|\, p(z))}_{\mathrm{ELBO}}
   + \mathrm{KL}(q(z|x) \,\|\, p(z|x))

The last term is never negative, so the ELBO lies below, and meets the evidence where q is the
posterior. To raise the ELBO in q is to bring q nearer to the posterior; to raise it in the model is
to raise (a bound of) the evidence. For :math:`q = \mathcal{N}(\mu,
\mathrm{diag}(e^{\mathrm{logvar}}))` and a standard normal prior, the divergence has a closed form,
and :func:`fastelbo.elbo` gives all three parts of

.. math::

   \mathrm{ELBO} = \mathbb{E}_q[\log p(x|z)] - \tfrac{1}{2} \sum_l
   \left(\mu_l^2 + e^{\mathrm{logvar}_l} - 1 - \mathrm{logvar}_l\right)
"""

# %%
# A model in which everything is known
# ------------------------------------
#
# With :math:`z \sim \mathcal{N}(0, 1)` and :math:`x | z \sim \mathcal{N}(2z, 1)` the evidence is
# :math:`\mathcal{N}(x; 0, 5)` and the posterior :math:`\mathcal{N}(2x/5, 1/5)`. Around the
# posterior the bound falls off; at it, bound and evidence agree.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

x, likelihood = 1.5, fastelbo.Gaussian(1.0)
evidence = -0.5 * (x**2 / 5 + np.log(2 * np.pi * 5))
eps = np.random.default_rng(0).normal(size=(4000, 1))
eps = (eps - eps.mean()) / eps.std()  # so that the average over it is exact here


def bound(mu, variance):
    """The ELBO at q = N(mu, variance), in nats."""
    size = (len(eps), 1)
    z = mu + np.sqrt(variance) * eps
    mu, logvar = np.full(size, mu), np.full(size, np.log(variance))
    return fastelbo.elbo(np.full(size, x), mu, logvar, 2 * z, likelihood=likelihood)


print(f"log p(x)                 {evidence:.6f}")
print(f"ELBO at the posterior    {bound(2 * x / 5, 1 / 5).elbo:.6f}")
print(f"elsewhere                {bound(0.0, 1.0).elbo:.6f}")

# %%
# The figure: over the mean of q, the bound and what it consists of.

means = np.linspace(-0.6, 1.8, 60)
parts = [bound(mean, 1 / 5) for mean in means]
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.axhline(evidence, color="black", lw=1, label="log p(x)")
ax.plot(means, [part.elbo for part in parts], label="ELBO")
ax.plot(means, [part.reconstruction for part in parts], "--", label="E log p(x|z)")
ax.plot(means, [-part.kl for part in parts], ":", label="-KL")
ax.axvline(2 * x / 5, color="0.8", zorder=0)
ax.set(xlabel="mean of q (the line: that of the posterior)", ylabel="nats", ylim=(-6, 0.2))
ax.legend()

# %%
# See also
# --------
#
# :func:`fastelbo.elbo`, :func:`fastelbo.elbo_and_grad`; several samples make the bound tighter:
# :doc:`importance_weighting`.
