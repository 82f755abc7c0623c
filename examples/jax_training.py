"""Training steps with Flax NNX and optax: the loss in plain JAX, and of fastelbo.jax.

A VAE of scikit-learn's digits, and a single-cell model in the style of scVI on generated counts,
which are negative binomial. Both losses start from the same weights and draw the same noise, so
that they have to reach the same ELBO; then steps of either are timed in turns.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.scipy.special import gammaln
from sklearn.datasets import load_digits

import fastelbo.jax

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--genes", type=int, default=5000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--quick", action="store_true", help="30 steps, 500 genes")


class Model(nnx.Module):
    """What both have in common: dense layers, and z between them."""

    def __init__(self, features, hidden, latent, seed):
        rngs = nnx.Rngs(seed)
        self.encoder = nnx.Linear(features, hidden, rngs=rngs)
        self.posterior = nnx.Linear(hidden, 2 * latent, rngs=rngs)
        self.decoder = nnx.Linear(latent, hidden, rngs=rngs)
        self.output = nnx.Linear(hidden, features, rngs=rngs)

    def __call__(self, x, key):
        """(mu, logvar, what the decoder gives)."""
        mu, logvar = jnp.split(self.posterior(nnx.relu(self.encoder(x))), 2, axis=1)
        z = mu + jnp.exp(0.5 * logvar) * jax.random.normal(key, mu.shape, mu.dtype)
        return mu, logvar, self.output(nnx.relu(self.decoder(z)))


class Counts(Model):
    """The decoder gives shares of a cell's library; genes have inverse dispersions of their own."""

    def __init__(self, features, hidden, latent, seed):
        super().__init__(features, hidden, latent, seed)
        self.log_theta = nnx.Param(jnp.zeros(features, jnp.float32))

    def __call__(self, x, key):
        mu, logvar, scores = super().__call__(jnp.log1p(x), key)
        mean = x.sum(axis=1, keepdims=True) * nnx.softmax(scores)
        return mu, logvar, (mean, jnp.exp(self.log_theta[...]))


def plain_elbo(x, mu, logvar, log_prob):
    kl = -0.5 * (1 + logvar - mu**2 - jnp.exp(logvar)).sum(axis=1)
    return (log_prob.sum(axis=1) - kl).mean()


def plain_bernoulli(x, mu, logvar, logits):
    return plain_elbo(x, mu, logvar, x * logits - jax.nn.softplus(logits))


def plain_counts(x, mu, logvar, outputs, eps=1e-8):
    mean, theta = outputs
    log_both = jnp.log(theta + mean + eps)
    log_prob = (
        theta * (jnp.log(theta + eps) - log_both)
        + x * (jnp.log(mean + eps) - log_both)
        + gammaln(x + theta)
        - gammaln(theta)
        - gammaln(x + 1)
    )
    return plain_elbo(x, mu, logvar, log_prob)


def fast_bernoulli(x, mu, logvar, logits):
    return fastelbo.jax.elbo(x, mu, logvar, logits, likelihood=fastelbo.jax.Bernoulli()).elbo


def fast_counts(x, mu, logvar, outputs):
    likelihood = fastelbo.jax.NegativeBinomial()
    return fastelbo.jax.elbo(x, mu, logvar, outputs, likelihood=likelihood).elbo


def generated_counts(cells, genes, seed):
    """Counts (cells, genes) of five types of cells."""
    rng = np.random.default_rng(seed)
    log_share = rng.normal(0.0, 1.5, genes) + rng.normal(0.0, 0.7, (5, genes))
    share = np.exp(log_share[rng.integers(5, size=cells)])
    share /= share.sum(axis=1, keepdims=True)
    library = rng.lognormal(np.log(genes), 0.3, (cells, 1))
    theta = rng.lognormal(0.5, 0.7, genes)
    return rng.poisson(library * share * rng.gamma(theta, 1 / theta, (cells, genes)))


class Training:
    """A model, its optimizer, and a compiled step over minibatches in turn."""

    def __init__(self, model, elbo, batches, seed):
        graph, weights = nnx.split(model)
        optimizer = optax.adam(1e-3)
        self.state, self.batches, self.steps = (weights, optimizer.init(weights)), batches, 0
        self.key = jax.random.key(seed)

        def loss(weights, x, key):
            return -elbo(x, *nnx.merge(graph, weights)(x, key))

        def step(state, x, key):
            weights, moments = state
            value, gradients = jax.value_and_grad(loss)(weights, x, key)
            updates, moments = optimizer.update(gradients, moments, weights)
            return (optax.apply_updates(weights, updates), moments), -value

        self._step = jax.jit(step)

    def step(self):
        """The ELBO of the next batch, before it is learned from."""
        x = self.batches[self.steps % len(self.batches)]
        key = jax.random.fold_in(self.key, self.steps)
        self.steps += 1
        self.state, value = jax.block_until_ready(self._step(self.state, x, key))
        return value


def compare(title, model, elbos, data, args):
    """Train by either ELBO, print what they reach and what a step takes."""
    count = len(data) // args.batch_size
    batches = jnp.split(jnp.asarray(data[: count * args.batch_size], jnp.float32), count)
    trainings = {name: Training(model, elbo, batches, args.seed) for name, elbo in elbos.items()}
    reached = {name: [] for name in elbos}
    seconds = {name: [] for name in elbos}
    for _ in range(args.steps):
        for name, training in trainings.items():
            start = time.perf_counter()
            value = training.step()
            seconds[name].append(time.perf_counter() - start)
            reached[name].append(float(value))
    print(title)
    plain = min(seconds["plain JAX"])
    for name in elbos:
        least, first, last = min(seconds[name]), reached[name][0], np.mean(reached[name][-count:])
        print(
            f"  {name:12}  ELBO {first:.3f}, then {last:.3f};"
            f"  {1e3 * least:.2f} ms a step, {plain / least:.2f} of plain JAX's speed"
        )


def main():
    args = parser.parse_args()
    if args.quick:
        args.steps, args.genes = 30, 500
    digits = np.random.default_rng(args.seed).permutation(load_digits().data / 16)
    losses = {"plain JAX": plain_bernoulli, "fastelbo.jax": fast_bernoulli}
    compare("a VAE of the digits", Model(64, 256, 10, args.seed), losses, digits, args)
    counts = generated_counts(8 * args.batch_size, args.genes, args.seed)
    losses = {"plain JAX": plain_counts, "fastelbo.jax": fast_counts}
    model = Counts(args.genes, 128, 10, args.seed)
    compare(f"negative binomial counts of {args.genes} genes", model, losses, counts, args)


if __name__ == "__main__":
    main()
