r"""
Reparameterization
==================

The bound is an expectation over q, whose parameters are to be learned. Written as a function of
noise that has no parameters,

.. math::

   z = \mu + e^{\mathrm{logvar}/2}\, \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, I),

its gradient is an expectation, too, and one draw estimates it without bias:

.. math::

   \frac{\partial}{\partial \mu} = \frac{\partial f}{\partial z}, \qquad
   \frac{\partial}{\partial\, \mathrm{logvar}} =
   \frac{1}{2} \frac{\partial f}{\partial z} \odot (z - \mu)

The second shows why nothing need be stored: :math:`z - \mu` has the noise in it.
:func:`fastelbo.reparameterize_backward` reads z, or draws the noise again from its key, and adds
the gradient of the KL in the same pass.
"""

# %%
# Beside the score function
# -------------------------
#
# The other estimator, :math:`f(z)\, \partial \log q(z) / \partial \mu`, needs no derivative of f
# and pays for it in variance. Here f is the log-likelihood of the model of :doc:`bound`, whose
# gradient is known.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

x, mu, logvar, draws = 1.5, 0.2, -1.0, 20000
mus, logvars = np.full((draws, 1), mu), np.full((draws, 1), logvar)
z = fastelbo.reparameterize(mus, logvars, rng=0)
gaussian = fastelbo.Gaussian(1.0)
f, (by_recon,) = gaussian.log_prob_and_grad(np.full_like(z, x), 2 * z, reduction="none")

through, _ = fastelbo.reparameterize_backward(2 * by_recon, mus, logvars, z)
score = (f - f.mean())[:, None] * (z - mu) / np.exp(logvar)  # with the mean as a baseline
exact = 2 * (x - 2 * mu)
for name, estimate in (("reparameterized", through), ("score function", score)):
    print(f"{name:16} {estimate.mean():7.3f}  deviation {estimate.std():.2f}")
print(f"{'exact':16} {exact:7.3f}")

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
bins = np.linspace(-12, 16, 120)
ax.hist(score.ravel(), bins, alpha=0.6, label="score function, with a baseline")
ax.hist(through.ravel(), bins, alpha=0.6, label="reparameterized")
ax.axvline(exact, color="black", lw=1, label="exact")
ax.set(xlabel="estimate of the gradient by mu, from one draw", yticks=[])
ax.legend()

# %%
# See also
# --------
#
# :func:`fastelbo.reparameterize`, :func:`fastelbo.reparameterize_kl`; for classes
# :func:`fastelbo.gumbel_softmax`, and without derivatives :func:`fastelbo.reinforce` and
# :func:`fastelbo.vimco`, all compared in :doc:`/gallery/gradient_estimators`.
