r"""
Rate and distortion
===================

Read as a code, the bound has two costs: the *rate*, how many nats a code says about x, and the
*distortion*, what is lost in decoding. A :math:`\beta`-VAE minimises a weighted sum:

.. math::

   D + \beta R, \qquad D = -\mathbb{E}_q[\log p(x|z)], \qquad R = \mathrm{KL}(q(z|x) \,\|\, p(z))

The points that models of a size can reach are bounded by a convex curve, and :math:`\beta` is its
slope, the price of a nat of rate in nats of distortion. :math:`\beta = 1` is the ELBO, :math:`-(D +
R)`. Far above it the cheapest code is none at all.
"""

# %%
# :func:`fastelbo.rate_distortion` trains a :class:`fastelbo.VAE` over a grid of :math:`\beta`, each
# model from the weights of the one before.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

rng = np.random.default_rng(0)
x = rng.integers(0, 2, (600, 4)).repeat(6, axis=1)  # 4 bits, each written six times: 2.77 nats
model = fastelbo.VAE(latent_dim=4, hidden=(32,), learning_rate=5e-3, random_state=0)
curve = fastelbo.rate_distortion(model, x, np.geomspace(0.4, 10, 6), epochs=60)

print("  beta    rate  distortion")
for beta, rate, distortion in zip(curve.beta, curve.rate, curve.distortion, strict=True):
    print(f"{beta:6.2f} {rate:7.2f} {distortion:11.2f}")

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
curve.plot(ax)
across = np.linspace(0, curve.rate.max(), 20)
for beta, rate, distortion in zip(curve.beta, curve.rate, curve.distortion, strict=True):
    ax.plot(across, distortion - beta * (across - rate), color="0.85", lw=0.8, zorder=0)
ax.set(ylim=(-1, 1.1 * curve.distortion.max()), title="the curve, and lines of slope -beta")

# %%
# See also
# --------
#
# :doc:`/howto/choosing_beta`, :doc:`/gallery/rate_distortion`; what a collapsed model is:
# :doc:`collapse`.
