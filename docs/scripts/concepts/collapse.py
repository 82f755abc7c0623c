r"""
Collapse and its remedies
=========================

A latent dimension whose posterior is the prior for every x costs nothing and says nothing: it has
*collapsed*. That is right where it has nothing to say, and a trap early in training, when the
decoder does not listen yet and the KL is all that the encoder is taught. Each remedy changes what
the KL counts:

.. math::

   \begin{aligned}
   \text{annealing} &: \beta_t\, \mathrm{KL}, \quad \beta_t \text{ from } 0 \text{ to } 1 \\
   \text{free bits} &: \sum_l \max(\lambda, \mathrm{KL}_l) \\
   \text{capacity} &: \gamma\, |\mathrm{KL} - C| \\
   \text{GECO} &: \mathrm{KL} + \lambda_t (D - \kappa), \quad
   \lambda_t \text{ grows while } D > \kappa \\
   \delta\text{-VAE} &: \mathrm{KL}_l \ge \delta \text{ for every output of the encoder}
   \end{aligned}

They are :class:`fastelbo.BetaSchedule`, :class:`fastelbo.FreeBits`, :func:`fastelbo.capacity`,
:class:`fastelbo.Geco` and :func:`fastelbo.delta_posterior`.
"""

# %%
# The left figure is what a dimension with :math:`\mathrm{logvar} = 0` costs as its mean moves away
# from the prior's; at 0 it has collapsed. Floors take the pull towards 0 away, a target reverses
# it, and with delta-VAE no input gives less than delta. The right figure is :math:`\beta` by the
# step.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

mu = np.linspace(-2.5, 2.5, 101)[:, None]
logvar = np.zeros_like(mu)
floor = fastelbo.FreeBits(0.5, granularity="sample")
costs = {
    "KL": fastelbo.kl_standard_normal(mu, logvar, reduction="none"),
    "free bits, 0.5": fastelbo.kl_standard_normal(mu, logvar, free_bits=floor, reduction="none"),
    "capacity, C = 1": [
        fastelbo.capacity(mu[i : i + 1], logvar[i : i + 1], 1.0, gamma=1.0) for i in range(101)
    ],
    "delta-VAE, 0.5": fastelbo.kl_standard_normal(
        *fastelbo.delta_posterior(mu, logvar, delta=0.5), reduction="none"
    ),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for (name, cost), line in zip(costs.items(), ("-", "--", "-.", ":"), strict=True):
    left.plot(mu, cost, line, label=name)
left.set(xlabel="mu, as the encoder gives it", ylabel="nats")
left.legend()

steps = np.arange(1001)
for name, schedule in {
    "linear": fastelbo.BetaSchedule(steps=600),
    "sigmoid": fastelbo.BetaSchedule("sigmoid", steps=600),
    "four cycles": fastelbo.BetaSchedule(steps=1000, cycles=4, ratio=0.5),
}.items():
    right.plot(steps, [schedule(step) for step in steps], label=name)
right.set(xlabel="step", ylabel="beta")
right.legend()
print("least KL of delta-VAE:", np.min(costs["delta-VAE, 0.5"]))

# %%
# See also
# --------
#
# :func:`fastelbo.active_units` counts the dimensions that are used. A model that collapses, and
# what each remedy makes of it: :doc:`/gallery/posterior_collapse`.
