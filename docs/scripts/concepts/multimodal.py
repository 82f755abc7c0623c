r"""
Several modalities
==================

One code for what was seen in several ways, a picture and its caption say, of which any may be
missing:

.. math::

   \mathrm{ELBO} = \sum_m w_m\, \mathbb{E}_q[\log p(x_m|z)] -
   \beta\, \mathrm{KL}(q(z|x_1, \ldots, x_M) \,\|\, p(z))

The joint posterior is made of one Gaussian expert for each modality: their product (with the prior
as one more expert), their mixture, or the mixture of the products of all subsets (MoPoE). A product
multiplies what experts know,

.. math::

   \frac{1}{\sigma^2} = 1 + \sum_m \frac{1}{\sigma_m^2}, \qquad
   \mu = \sigma^2 \sum_m \frac{\mu_m}{\sigma_m^2},

and a mixture keeps their disagreement.
"""

# %%
# Two experts on one dimension, which disagree: the product lies between them and is surer than
# either.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

experts = {
    "picture": (np.array([[1.6]]), np.array([[-1.5]])),
    "caption": (np.array([[-1.0]]), np.array([[-0.5]])),
}
z = np.linspace(-4, 4, 300)


def density(mu, logvar):
    """Of a normal distribution, on the grid."""
    return np.exp(-0.5 * ((z - mu) ** 2 / np.exp(logvar) + logvar + np.log(2 * np.pi)))


figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
for ax, method in zip(axes, ("poe", "moe", "mopoe"), strict=True):
    q = fastelbo.joint_posterior(experts, method=method, rng=0)
    used = q.mask[:, 0]
    title = f"{method}: {len(used)} component{'s' * (len(used) > 1)}"
    parts = [density(m, v) for m, v in zip(q.mu[used, 0, 0], q.logvar[used, 0, 0], strict=True)]
    for mu, logvar in experts.values():
        ax.plot(z, density(mu[0, 0], logvar[0, 0]), color="0.7", lw=1)
    ax.fill_between(z, np.mean(parts, axis=0), alpha=0.5)
    ax.set(title=title, xlabel="z", yticks=[])

alone = fastelbo.joint_posterior(experts, present={"picture": [False]}, rng=0)
print("without the picture:", alone.mu[0].item(), alone.logvar[0].item())

# %%
# See also
# --------
#
# :func:`fastelbo.multimodal_elbo`, :func:`fastelbo.joint_posterior`, and a model that completes a
# digit from either half: :doc:`/gallery/multimodal`.
