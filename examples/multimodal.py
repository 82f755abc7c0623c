"""A multimodal VAE on NumPy: either half of a digit, completed from the other.

Two encoders give an expert each, a product of experts joins them, two decoders go back. In training
the posterior of every third digit sees both halves, and of the others the upper or the lower one,
while the bound counts both. On digits that training has not seen the missing half is completed: its
error stands beside that of the training mean, and of the nearest training digit by the other half.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastelbo

HALVES = ("upper", "lower")


class Network:
    """Two dense layers with a tanh between, trained by Adam, uphill."""

    def __init__(self, rng, inputs, hidden, outputs):
        sizes = (inputs, hidden), (hidden, outputs)
        self.weights = [rng.normal(size=s) / np.sqrt(s[0]) for s in sizes]
        self.weights += [np.zeros(hidden), np.zeros(outputs)]
        self.moments = [(np.zeros_like(w), np.zeros_like(w)) for w in self.weights]
        self.steps = 0

    def __call__(self, x):
        first, second, bias, last = self.weights
        self.x, self.h = x, np.tanh(x @ first + bias)
        return self.h @ second + last

    def backward(self, grad, rate=2e-3):
        """Takes a step; returns the gradient of x."""
        first, second, *_ = self.weights
        d_h = grad @ second.T * (1 - self.h**2)
        d_x = d_h @ first.T
        grads = self.x.T @ d_h, self.h.T @ grad, d_h.sum(0), grad.sum(0)
        self.steps += 1
        for w, g, (m, v) in zip(self.weights, grads, self.moments, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            mean, square = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
            w += rate * mean / (np.sqrt(square) + 1e-8)
        return d_x


class MultimodalVae:
    def __init__(self, rng, pixels, latent=12, hidden=160):
        self.rng = rng
        self.encoders = {name: Network(rng, pixels, hidden, 2 * latent) for name in HALVES}
        self.decoders = {name: Network(rng, latent, hidden, pixels) for name in HALVES}

    def experts(self, halves):
        return {name: np.split(self.encoders[name](halves[name]), 2, axis=1) for name in HALVES}

    def step(self, halves, present):
        """One step uphill: of a posterior that sees what is present, and a bound of both halves."""
        experts = self.experts(halves)
        q = fastelbo.joint_posterior(experts, present=present, rng=self.rng)
        modalities = {
            name: (halves[name], "bernoulli", self.decoders[name](q.z)) for name in HALVES
        }
        _, grad = fastelbo.multimodal_elbo_and_grad(modalities, *q[:3])
        d_z = sum(self.decoders[name].backward(grad.x_recon[name]) for name in HALVES)
        back = fastelbo.joint_posterior_backward(
            d_z, grad.mu, grad.logvar, experts, q, present=present
        )
        for name in HALVES:
            self.encoders[name].backward(np.hstack(back[name]))

    def complete(self, halves, present, name):
        """The mean of a half, given what is present: over 64 draws of z."""
        q = fastelbo.joint_posterior(self.experts(halves), present=present, rng=0)
        z = fastelbo.reparameterize(q.mu[0], q.logvar[0], samples=64, rng=0)
        return fastelbo.Bernoulli().mean(self.decoders[name](z)).mean(axis=0)


def train(model, halves, rng, epochs, batch=100):
    count = len(halves["upper"])
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(count), count // batch):
            lacks = rng.integers(3, size=len(rows))
            present = {"upper": lacks != 0, "lower": lacks != 1}
            model.step({name: half[rows] for name, half in halves.items()}, present)


def nearest(known, train_known, train_missing):
    """The missing half of the training digit whose known half is the nearest."""
    squares = (known**2).sum(1)[:, None] + (train_known**2).sum(1) - 2 * known @ train_known.T
    return train_missing[squares.argmin(axis=1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short training, for a test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="multimodal.png")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    images = load_digits().data[rng.permutation(1797)] / 16
    halves = {"upper": images[:, :32], "lower": images[:, 32:]}
    trained = {name: half[:1400] for name, half in halves.items()}
    held_out = {name: half[1400:] for name, half in halves.items()}
    model = MultimodalVae(rng, 32)
    train(model, trained, rng, 20 if options.quick else 200)

    count = len(held_out["upper"])
    completed = {}
    print(f"mean squared error of a missing half, {count} held-out digits")
    print(f"{'missing':>8} {'VAE':>8} {'training mean':>14} {'nearest digit':>14}")
    for missing, known in (HALVES, HALVES[::-1]):
        present = {missing: np.zeros(count, bool)}
        completed[missing] = model.complete(held_out, present, missing)
        guesses = (
            completed[missing],
            trained[missing].mean(axis=0),
            nearest(held_out[known], trained[known], trained[missing]),
        )
        errors = [np.mean((held_out[missing] - guess) ** 2) for guess in guesses]
        print(f"{missing:>8} {errors[0]:8.4f} {errors[1]:14.4f} {errors[2]:14.4f}")
    shown = 14
    rows = {
        "digit": (held_out["upper"], held_out["lower"]),
        "upper half seen": (held_out["upper"], completed["lower"]),
        "lower half seen": (completed["upper"], held_out["lower"]),
        "training mean": [np.tile(trained[name].mean(0), (shown, 1)) for name in HALVES],
    }
    figure, axes = plt.subplots(len(rows), 1, figsize=(10, 3.4))
    for axis, (name, parts) in zip(axes, rows.items(), strict=True):
        whole = np.hstack([part[:shown] for part in parts]).reshape(shown, 8, 8)
        strip = np.pad(whole, [(0, 0), (0, 0), (0, 2)]).swapaxes(0, 1).reshape(8, -1)
        axis.imshow(strip, cmap="gray_r", vmin=0, vmax=1)
        if name != "digit":
            axis.axhline(3.5, color="#c06020", linewidth=0.8)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(options.output, dpi=150)
    print(options.output)


if __name__ == "__main__":
    main()
