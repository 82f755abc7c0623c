r"""
Variational flow matching
=========================

A flow carries noise at :math:`t = 0` to data at :math:`t = 1` along the lines :math:`x_t = (1 -
t)\, \varepsilon + t\, x`. Its velocity is known once one knows where the flow ends, which is a
question of inference:

.. math::

   v_t(x_t) = \frac{\mathbb{E}[x\,|\,x_t] - x_t}{1 - t}, \qquad
   \max_\theta \; \mathbb{E}\left[\log q^\theta_t(x\,|\,x_t)\right]

A Gaussian q of variance :math:`(1-t)^2/2` makes it ordinary flow matching, :math:`-\lVert v -
v_\theta \rVert^2`; classes make it a cross-entropy. Training is :func:`fastelbo.flow_matching`,
sampling an ODE whose right-hand side is :func:`fastelbo.endpoint_velocity`.
"""

# %%
# Data that are few points: there :math:`\mathbb{E}[x|x_t]` is known, a softmax over the points, and
# no network is needed to see what the flow does.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

angles = np.arange(5) * 2 * np.pi / 5
points = 1.5 * np.column_stack([np.cos(angles), np.sin(angles)])
rng = np.random.default_rng(0)


def endpoint(x_t, t):
    """E[x | x_t] when x is one of the points."""
    distances = np.sum((x_t[:, None] - t * points) ** 2, axis=2)
    logits = -0.5 * distances / (1 - t) ** 2
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights @ points / weights.sum(axis=1, keepdims=True)


steps, x_t = 50, rng.normal(size=(80, 2))
paths = [x_t]
for i in range(steps):
    t = i / steps
    x_t = x_t + fastelbo.endpoint_velocity(endpoint(x_t, t), x_t, t) / steps
    paths.append(x_t)
paths = np.array(paths)

figure, ax = plt.subplots(figsize=(5.4, 5), layout="constrained")
ax.plot(paths[..., 0], paths[..., 1], color="tab:blue", lw=0.5, alpha=0.6)
ax.scatter(*paths[0].T, s=8, color="0.6", label="noise, t = 0", zorder=3)
ax.scatter(*points.T, s=60, color="tab:red", label="data, t = 1", zorder=3)
ax.set(aspect="equal")
ax.legend(loc="upper right")

# %%
# The true endpoints have the highest objective; any other guess has less.

x = points[rng.integers(5, size=4000)]
x_t, t = 0.5 * rng.normal(size=x.shape) + 0.5 * x, np.full(len(x), 0.5)
for name, guess in {"E[x|x_t]": endpoint(x_t, 0.5), "0": np.zeros_like(x), "x_t": x_t}.items():
    print(f"guess {name:9} {fastelbo.flow_matching(x, t, guess):8.3f}")

# %%
# See also
# --------
#
# :func:`fastelbo.flow_elbo` for flows in a latent space, and :doc:`/gallery/flow_matching`.
