r"""
M2: some labels
===============

The model has a class beside the code, :math:`p(x, y, z) = p(x|y, z)\, p(y)\, p(z)`. Where the class
is known, the bound is that of the pair; where it is not, it is summed out under a classifier
:math:`q(y|x)`, which so learns from both:

.. math::

   \begin{aligned}
   \mathcal{L}(x, y) &= \mathbb{E}_q[\log p(x|y, z)]
   - \mathrm{KL}(q(z|x, y) \,\|\, p(z)) + \log p(y) \\
   \mathcal{U}(x) &= \sum_y q(y|x)\, \mathcal{L}(x, y) + \mathrm{H}(q(y|x)) \\
   \mathcal{J} &= \sum_{\text{labelled}} \left(\mathcal{L}(x, y) + \alpha \log q(y|x)\right)
   + \sum_{\text{others}} \mathcal{U}(x)
   \end{aligned}

:func:`fastelbo.m2_elbo` takes both kinds of sample in one call, -1 for those without a label, and
:class:`fastelbo.SemiSupervisedVAE` is a classifier made of it.
"""

# %%
# Two moons with three labels each. What has no label says where the moons lie.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import fastelbo

x, y = make_moons(600, noise=0.08, random_state=0)
x = (x - x.mean(axis=0)) / x.std(axis=0)
labels = np.full(len(y), -1)
for label in (0, 1):
    labels[np.flatnonzero(y == label)[:3]] = label
model = fastelbo.SemiSupervisedVAE(
    likelihood=fastelbo.Gaussian(0.5),
    latent_dim=1,
    hidden=(64,),
    epochs=300,
    learning_rate=3e-3,
    random_state=0,
)
model.fit(x, labels)
print(f"right with 3 labels a moon: {model.score(x, y):.3f}")

figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
across, up = np.meshgrid(np.linspace(-2.2, 2.2, 60), np.linspace(-2.2, 2.2, 60))
probability = model.predict_proba(np.column_stack([across.ravel(), up.ravel()]))[:, 1]
drawn = ax.contourf(across, up, probability.reshape(across.shape), 10, cmap="RdBu", alpha=0.5)
ax.scatter(*x.T, s=4, color="0.4")
ax.scatter(*x[labels >= 0].T, s=70, c=labels[labels >= 0], cmap="RdBu", edgecolor="black")
ax.set(title="circles have a label; colour is q(y|x)")
figure.colorbar(drawn)

# %%
# See also
# --------
#
# :doc:`/gallery/semi_supervised`: digits of which a hundred have labels.
