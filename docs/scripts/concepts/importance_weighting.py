r"""
Importance weighting
====================

With K samples of q the evidence is an average of weights, whose logarithm is a tighter bound:

.. math::

   \mathcal{L}_K = \mathbb{E}\left[\log \frac{1}{K} \sum_{k=1}^{K} w_k\right], \qquad
   w_k = \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}

:math:`\mathcal{L}_1` is the ELBO, and :math:`\mathcal{L}_K` rises with K to :math:`\log p(x)`. The
Rényi bounds replace the mean of the weights by a power mean, and the CUBO, by another, bounds from
above:

.. math::

   \mathcal{L}_\alpha = \frac{1}{1-\alpha} \log \frac{1}{K} \sum_k w_k^{1-\alpha}, \qquad
   \mathrm{CUBO}_n = \frac{1}{n} \log \frac{1}{K} \sum_k w_k^n

What :func:`fastelbo.iwae` returns is the bound, and its gradient the bound's. (The sum
:math:`\sum_k \mathrm{stop}(\tilde w_k) \log w_k`, which some libraries return, has the right
gradient under automatic differentiation and is another number.)
"""

# %%
# The model is that of :doc:`bound`, with a q that is twice as wide as the posterior. Weights come
# in chunks and are forgotten: :class:`fastelbo.StreamingBound` holds O(B) numbers however large K
# is.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

x, rows = 1.5, 400
evidence = -0.5 * (x**2 / 5 + np.log(2 * np.pi * 5))
mu, logvar = np.full((rows, 1), 0.3), np.full((rows, 1), np.log(4 / 5))
xs, likelihood = np.full((rows, 1), x), fastelbo.Gaussian(1.0)


def log_w(samples, rng):
    """(K, B) log weights of so many draws."""
    z = fastelbo.reparameterize(mu, logvar, samples=samples, rng=rng)
    return fastelbo.log_weights(xs, z, mu, logvar, 2 * z, likelihood=likelihood)


counts = [1, 2, 4, 8, 16, 32, 64, 128, 256]
rng = np.random.default_rng(0)
weights = {k: log_w(k, rng) for k in counts}
bounds = {
    "IWAE": [fastelbo.importance_bound(w) for w in weights.values()],
    "Rényi, alpha = 0.5": [fastelbo.importance_bound(w, alpha=0.5) for w in weights.values()],
    "CUBO, n = 2": [fastelbo.cubo(w) for w in weights.values()],
}
stream = fastelbo.StreamingBound()
for _ in range(20):
    stream = stream.update(log_w(256, rng))
print(f"log p(x) {evidence:.4f}, L_{20 * 256} {np.mean(stream.bound()):.4f}")

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.axhline(evidence, color="black", lw=1, label="log p(x)")
for name, values in bounds.items():
    ax.plot(counts, values, "o-", ms=4, label=name)
ax.set(xscale="log", xlabel="K", ylabel="nats, mean of 400")
ax.legend()

# %%
# An average of few squared weights is too small, which is why the upper bound begins below: it
# holds in expectation of the weights, not of their logarithm's estimate.
#
# See also
# --------
#
# :func:`fastelbo.iwae_and_grad` for the gradient's estimators (standard, STL, DReG),
# :func:`fastelbo.effective_sample_size`, and :doc:`/howto/iwae_5000`.
