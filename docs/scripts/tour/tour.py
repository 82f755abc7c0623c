"""
Ten-minute tour
===============

From one number to a trained model, on NumPy arrays alone. The page is a script, and a notebook:
both are below to be downloaded, and both ran when it was made. What is needed: ``pip install
".[demo]"`` in a clone.
"""

# %%
# One call
# --------
#
# A variational autoencoder's loss is made of data ``x``, the encoder's ``mu`` and ``logvar``, and
# what the decoder makes of the code. Suppose that networks of your own gave these:

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastelbo

rng = np.random.default_rng(0)
x = load_digits().data[:128] / 16  # (B, D): pictures of 64 pixels in [0, 1]
mu = rng.normal(0, 1, (128, 10))  # (B, L)
logvar = rng.normal(-1, 0.5, (128, 10))  # log of the variance
logits = rng.normal(0, 1, (128, 64))  # the decoder's output

result = fastelbo.elbo(x, mu, logvar, logits, likelihood=fastelbo.Bernoulli())
print(result)

# %%
# ``elbo = reconstruction - kl``, in nats, averaged over the batch (:doc:`/concepts/bound` says what
# these are). It is what the lines usually written give, to the last digits:

bernoulli = np.sum(x * logits - np.logaddexp(0, logits), axis=1)
kl = -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)
print(np.mean(bernoulli - kl) - result.elbo)

# %%
# Gradients in the same pass
# --------------------------
#
# Of everything that has a gradient there is an ``_and_grad``. Gradients are those of the ELBO
# itself, to ascend.

result, grad = fastelbo.elbo_and_grad(x, mu, logvar, logits, likelihood=fastelbo.Bernoulli())
print({name: array.shape for name, array in grad._asdict().items()})

# %%
# They are what a difference quotient says:

nudged = logits.copy()
nudged[3, 20] += 1e-6
after = fastelbo.elbo(x, mu, logvar, nudged, likelihood=fastelbo.Bernoulli())
print((after.elbo - result.elbo) / 1e-6, grad.x_recon[3, 20])

# %%
# Noise that needs no storage
# ---------------------------
#
# :func:`fastelbo.reparameterize_kl` draws the noise, makes z and adds up the KL in one pass. Noise
# is a function of a key and of the element's place: the same on any number of threads.

z, kl = fastelbo.reparameterize_kl(mu, logvar, rng=7)
with fastelbo.num_threads(1):
    again, _ = fastelbo.reparameterize_kl(mu, logvar, rng=7)
print(z.shape, kl, np.array_equal(z, again))

# %%
# A training step, then, is three calls and your matrix products. Here for a linear encoder and
# decoder, whose gradients fit in a line each:

weights = {
    "mu": rng.normal(0, 0.1, (64, 10)),
    "logvar": np.zeros((64, 10)),
    "decoder": rng.normal(0, 0.1, (10, 64)),
}
bernoulli = fastelbo.Bernoulli()


def step(x, rate=0.05):
    """One step of gradient ascent; the ELBO before it."""
    mu, logvar = x @ weights["mu"], x @ weights["logvar"]
    z, kl = fastelbo.reparameterize_kl(mu, logvar, rng=rng)
    log_px, (d_logits,) = bernoulli.log_prob_and_grad(x, z @ weights["decoder"])
    d_z = d_logits @ weights["decoder"].T
    d_mu, d_logvar = fastelbo.reparameterize_backward(d_z, mu, logvar, z, kl_weight=1 / len(x))
    weights["decoder"] += rate * z.T @ d_logits
    weights["mu"] += rate * x.T @ d_mu
    weights["logvar"] += rate * x.T @ d_logvar
    return log_px - kl


curve = [step(x) for _ in range(300)]
print(f"ELBO {curve[0]:.2f} -> {curve[-1]:.2f}")

# %%
# Other likelihoods, other bounds
# -------------------------------
#
# Counts, times, classes, pixels, tables: a likelihood is an object with ``log_prob`` and
# ``log_prob_and_grad``, which every objective takes. Negative binomials of 2000 genes, each with a
# dispersion of its own:

counts = rng.poisson(2.0, (50, 2000))
mean = rng.gamma(2.0, 1.0, (50, 2000))
genes = fastelbo.NegativeBinomial(theta=rng.gamma(2.0, 1.0, 2000))
print(genes.log_prob(counts, mean))

# %%
# With K samples of the code for each x (a leading axis), the bound is the importance weighted one:

mu, logvar = x @ weights["mu"], x @ weights["logvar"]
z = fastelbo.reparameterize(mu, logvar, samples=16, rng=0)
decoded = z @ weights["decoder"]
print(z.shape, fastelbo.iwae(x, z, mu, logvar, decoded, likelihood=bernoulli))

# %%
# A whole model
# -------------
#
# :class:`fastelbo.VAE` is an estimator in scikit-learn's style, made of these calls.

digits, labels = load_digits(return_X_y=True)
digits = digits / 16
model = fastelbo.VAE(latent_dim=8, hidden=(128,), epochs=30, random_state=0).fit(digits[:1500])
print("ELBO of new digits", model.score_samples(digits[1500:]).mean())

figure, ax = plt.subplots(figsize=(8, 2), layout="constrained")
model.plot_reconstructions(digits[1500:], ax=ax)
figure, ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
model.plot_latent(digits[1500:], labels[1500:], ax=ax)

# %%
# New digits are drawn from the prior, and missing pixels filled in from the rest:

new = model.sample(8)
holed = np.where(rng.random((8, 64)) < 0.4, np.nan, digits[1500:1508])
model = fastelbo.VAE(latent_dim=8, hidden=(128,), epochs=30, missing="nan", random_state=0)
model.fit(np.where(rng.random((1500, 64)) < 0.2, np.nan, digits[:1500]))  # some gaps here, too
rows = {"sampled": new, "missing": holed, "filled in": model.impute(holed, rng=0)}
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2), layout="constrained")
for row, (name, images) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(name)
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], facecolor="tab:orange")

# %%
# Where to go from here
# ---------------------
#
# * Concepts, each with its formula and a figure: :doc:`/concepts/index`.
# * One thing to be done: :doc:`/howto/index`.
# * PyTorch: change the line of the loss, :doc:`/howto/pytorch`.
# * Every function: :doc:`/api/index`.
