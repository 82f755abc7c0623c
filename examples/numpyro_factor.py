"""A VAE in NumPyro, its likelihood once numpyro.distributions and once a factor of fastelbo.jax.

Pixels of scikit-learn's digits are counts out of 16. SVI trains both from the same seeds, so that
they have to reach the same ELBO.
"""

import argparse

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from flax import nnx
from numpyro.contrib.module import nnx_module
from numpyro.infer import SVI, Trace_ELBO
from sklearn.datasets import load_digits

from fastelbo.jax import Binomial

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--quick", action="store_true", help="100 steps")

PIXELS, LATENT, LEVELS = 64, 10, 16


def dense(*widths, rngs):
    return nnx.Sequential(
        nnx.Linear(widths[0], widths[1], rngs=rngs), nnx.relu, nnx.Linear(*widths[1:], rngs=rngs)
    )


def own(x, logits):
    numpyro.sample("x", dist.Binomial(LEVELS, logits=logits).to_event(1), obs=x)


def factor(x, logits):
    numpyro.factor("x", Binomial(LEVELS).log_prob(x, logits, reduction="none"))


def svi(observe, seed):
    """SVI with what `observe` makes of pixels and logits."""
    rngs = nnx.Rngs(seed)
    encoder = dense(PIXELS, 256, 2 * LATENT, rngs=rngs)
    decoder = dense(LATENT, 256, PIXELS, rngs=rngs)

    def model(x):
        decode = nnx_module("decoder", decoder)
        with numpyro.plate("digits", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            observe(x, decode(z))

    def guide(x):
        encode = nnx_module("encoder", encoder)
        with numpyro.plate("digits", len(x)):
            mu, logvar = jnp.split(encode(x / LEVELS), 2, axis=1)
            numpyro.sample("z", dist.Normal(mu, jnp.exp(0.5 * logvar)).to_event(1))

    return SVI(model, guide, optax.adam(1e-3), Trace_ELBO())


def trained(observe, digits, steps, batch_size, seed):
    """ELBO per digit: of the first batches, of the last, and of all digits."""
    inference = svi(observe, seed)

    @jax.jit
    def run(state, rows):
        def step(state, rows):
            return inference.update(state, digits[rows])

        state, losses = jax.lax.scan(step, state, rows)
        return losses / batch_size, inference.evaluate(state, digits) / len(digits)

    state = jax.jit(inference.init)(jax.random.key(seed), digits[:batch_size])
    rows = jax.random.choice(jax.random.key(seed + 1), len(digits), (steps, batch_size))
    losses, final = run(state, rows)
    return -losses[:10].mean(), -losses[-10:].mean(), -final


def main():
    args = parser.parse_args()
    steps = 100 if args.quick else args.steps
    digits = jnp.asarray(load_digits().data, jnp.float32)
    for name, observe in (("numpyro.distributions", own), ("fastelbo.jax", factor)):
        first, last, final = trained(observe, digits, steps, args.batch_size, args.seed)
        print(f"{name:21}  ELBO {first:.3f} at first, {last:.3f} at last, of all {final:.3f}")


if __name__ == "__main__":
    main()
