r"""
Total correlation
=================

Averaged over the data, the KL falls into three parts, of which only the middle one asks whether the
dimensions of the code are independent of each other. With :math:`q(z)` the aggregate posterior, the
mean of all :math:`q(z|x)`:

.. math::

   \mathbb{E}\,\mathrm{KL}(q(z|x) \,\|\, p(z)) = \underbrace{I(x; z)}_{\text{mutual information}}
   + \underbrace{\mathrm{KL}\left(q(z) \,\|\, \prod_l q(z_l)\right)}_{\text{total correlation}}
   + \underbrace{\sum_l \mathrm{KL}(q(z_l) \,\|\, p(z_l))}_{\text{dimension-wise KL}}

The :math:`\beta`-TCVAE weighs the second alone. :func:`fastelbo.total_correlation` estimates all
from one minibatch, each sample against every other in :math:`O(B L)` memory; the parts add up to
:math:`\log q(z|x) - \log p(z)` exactly.
"""

# %%
# Codes of two dimensions with more and more correlation, each marginally standard normal.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

batch, noise = 2000, 0.05
rng = np.random.default_rng(0)
logvar = np.full((batch, 2), np.log(noise))
correlations, found = np.linspace(0, 0.9, 7), []
for correlation in correlations:
    covariance = (1 - noise) * np.array([[1, correlation], [correlation, 1]])
    mu = rng.multivariate_normal([0, 0], covariance, batch)
    z = fastelbo.reparameterize(mu, logvar, rng=rng)
    found.append(fastelbo.total_correlation(z, mu, logvar, dataset_size=batch, method="mss"))
exact = -0.5 * np.log(1 - ((1 - noise) * correlations) ** 2)  # of the Gaussian that q(z) tends to

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name in ("mutual_information", "total_correlation", "dimension_wise_kl"):
    ax.plot(correlations, [getattr(parts, name) for parts in found], "o-", label=name)
ax.plot(correlations, exact, "k:", label="total correlation, exact")
ax.set(xlabel="correlation of the two dimensions", ylabel="nats")
ax.legend()

parts = found[-1]
log_ratio = fastelbo.posterior_log_prob(z, mu, logvar) - np.mean(
    np.sum(-0.5 * (z**2 + np.log(2 * np.pi)), axis=1)
)
print(f"sum of the parts {sum(parts):.12f}, log q(z|x) - log p(z) {log_ratio:.12f}")

# %%
# Estimates from a minibatch are biased, the mutual information most: it cannot exceed log B.
# Stratified sampling, as here, is nearly exact where the minibatch is all of the data. The default,
# minibatch-weighted sampling, has densities that are too small by the same factor for all, which
# moves the parts against each other, and so their levels say less than their changes.
#
# See also
# --------
#
# :func:`fastelbo.beta_tcvae_elbo`, :func:`fastelbo.aggregate_posterior_log_density`,
# :func:`fastelbo.mmd`, and whether it helps: :doc:`/gallery/disentanglement`.
