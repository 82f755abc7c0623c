"""How often posterior intervals cover the truth, where the posterior is known."""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="fewer rows and epochs")
parser.add_argument("--output", default="uncertainty.png")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

# z ~ N(0, I), x = z W + noise: orthogonal loadings, so that the posterior is diagonal.
rows, noise_scale = (300, 1.0) if options.quick else (4000, 1.0)
rng = np.random.default_rng(options.seed)
W = np.linalg.qr(rng.normal(size=(8, 2)))[0].T * [[1.0], [3.0]]
z = rng.normal(size=(rows, 2))
x = z @ W + noise_scale * rng.normal(size=(rows, 8))
precision = 1 + (W**2).sum(axis=1) / noise_scale**2
exact = x @ W.T / noise_scale**2 / precision, np.broadcast_to(-np.log(precision), z.shape)


def decoder(z):
    return z @ W, lambda by_x: by_x @ W.T


# Deliberately poor: right means at half the deviation, as an overconfident encoder has them.
poor = exact[0], exact[1] - 2 * np.log(2)
found = fastelbo.refine_posterior(
    decoder, x, *poor, likelihood=fastelbo.Gaussian(noise_scale), rng=options.seed
)
posteriors = {
    "exact": exact,
    "overconfident": poor,
    "refined from it": (found.mu, found.logvar),
}
nominal = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
half_widths = norm.ppf(0.5 + nominal / 2)

print("coverage of z by central intervals")
print("nominal         " + "".join(f"{level:8.2f}" for level in nominal[[0, 4, 8, 9, 10]]))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
left.plot([0, 1], [0, 1], color="gray", lw=1)
bins = np.linspace(0, 1, 21)
for style, (name, (mu, logvar)) in zip(("-", "o-", "x--"), posteriors.items(), strict=True):
    standardised = (z - mu) / np.exp(0.5 * logvar)
    covered = [np.mean(np.abs(standardised) <= width) for width in half_widths]
    print(f"{name:16}" + "".join(f"{covered[i]:8.3f}" for i in (0, 4, 8, 9, 10)))
    left.plot(nominal, covered, style, label=name)
    right.hist(norm.cdf(standardised).ravel(), bins, histtype="step", density=True, label=name)
error = np.abs(found.mu - exact[0]).max(), np.abs(found.logvar - exact[1]).max()
print(f"largest error of the refined: mu {error[0]:.1e}, logvar {error[1]:.1e}")
left.set(xlabel="nominal", ylabel="share of z in the interval")
left.legend()
right.set(xlabel="place of z in its posterior (uniform if calibrated)", ylabel="density")
right.legend()
figure.savefig(options.output, dpi=120)
print(options.output)
