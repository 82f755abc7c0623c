"""Bias and variance of gradient estimators, on an ELBO whose exact gradient is known.

The latent is a class (its gradient by enumeration) or a Gaussian number (in closed form), and what
decodes it is fixed. REINFORCE, with and without the baseline of the other samples, serves both;
VIMCO estimates the gradient of the bound from K samples, which has an exact gradient of its own;
Gumbel-softmax, soft and straight-through, serves classes, and reparameterization numbers.
"""

import argparse
import itertools
from typing import NamedTuple

import numpy as np

import fastelbo

SAMPLES = 4  # K, of each estimate
TAU = 0.5
REST = -5.0  # nats that no latent explains, as data have
PHI, MEANS, X = np.array([0.5, -0.3, 0.9, -1.0]), np.array([-1.0, 0.0, 1.0, 2.5]), 1.5
LOG_P = REST - (X - MEANS) ** 2 - np.log(len(PHI))
LOG_Q = PHI - np.log(np.exp(PHI).sum())
Q, CLASSES = np.exp(LOG_Q), len(PHI)
MU, LOGVAR = 0.3, -0.5


class Estimates(NamedTuple):
    """Estimates (trials, parameters) of a gradient that is known, and whether they are unbiased."""

    problem: str
    name: str
    found: np.ndarray
    exact: np.ndarray
    unbiased: bool = True

    @property
    def bias(self):
        return self.found.mean(axis=0) - self.exact

    @property
    def standard_error(self):
        return self.found.std(axis=0) / np.sqrt(len(self.found))

    @property
    def variance(self):
        """Of the whole gradient."""
        return self.found.var(axis=0).sum()


def by_score(log_w, scores, estimator, **options):
    """From the library's signals, where d log w = - d log q, the scores (K, trials, parameters)."""
    _, grad = estimator(log_w, reduction="sum", **options)
    return ((grad.log_q - grad.log_w)[..., None] * scores).sum(axis=0)


def exact_gradient_of_the_bound():
    """Of E[log mean_k p(z_k) / q(z_k)] over all draws of K classes."""
    draws = np.array(list(itertools.product(range(CLASSES), repeat=SAMPLES))).T
    log_w, scores = (LOG_P - LOG_Q)[draws], np.eye(CLASSES)[draws] - Q
    bound, grad = fastelbo.importance_bound_and_grad(log_w, reduction="none")
    by_draw = ((bound - grad.log_w)[..., None] * scores).sum(axis=0)
    return Q[draws].prod(axis=0) @ by_draw


def by_gumbel(trials, rng, hard, tau=TAU):
    """Through y in the place of z: the expectation of d log q is zero, so it is left out."""
    key = int(rng.integers(1 << 63))
    logits = np.broadcast_to(PHI, (trials, CLASSES))
    y = fastelbo.gumbel_softmax(logits, tau=tau, hard=hard, rng=key, samples=SAMPLES)
    by_y = (2 * (X - y @ MEANS)[..., None] * MEANS - LOG_Q) / SAMPLES  # decoded: y @ MEANS
    return fastelbo.gumbel_softmax_backward(by_y, logits, None, tau=tau, rng=key)


def of_classes(trials, rng):
    z = rng.choice(CLASSES, (SAMPLES, trials), p=Q)
    log_w, scores = (LOG_P - LOG_Q)[z], np.eye(CLASSES)[z] - Q
    exact = -fastelbo.kl_categorical_and_grad([PHI], LOG_P)[1].logits[0]
    plain = by_score(log_w, scores, fastelbo.reinforce_and_grad, baseline="none")
    others = by_score(log_w, scores, fastelbo.reinforce_and_grad)
    several = by_score(log_w, scores, fastelbo.vimco_and_grad)
    yield Estimates("class", "REINFORCE", plain, exact)
    yield Estimates("class", "REINFORCE, baseline", others, exact)
    yield Estimates("class", "VIMCO", several, exact_gradient_of_the_bound())
    yield Estimates("class", "Gumbel-softmax", by_gumbel(trials, rng, False), exact, False)
    yield Estimates("class", "straight-through", by_gumbel(trials, rng, True), exact, False)


def of_numbers(trials, rng):
    """log p(x, z) = REST - (z - 1)^2: the ELBO is log sigma - (mu - 1)^2 - sigma^2 + constant."""
    mu, logvar = np.full((trials, 1), MU), np.full((trials, 1), LOGVAR)
    z = fastelbo.reparameterize(mu, logvar, rng=rng, samples=SAMPLES)
    back = fastelbo.reparameterize_backward(-2 * (z - 1) / SAMPLES, mu, logvar, z)
    through = np.hstack([back.mu, back.logvar + 0.5])
    error = (z - mu) / np.exp(logvar)
    scores = np.concatenate([error, 0.5 * (error * (z - mu) - 1)], axis=-1)
    log_q = -0.5 * (error * (z - mu) + logvar + np.log(2 * np.pi))
    log_w = (REST - (z - 1) ** 2 - log_q)[..., 0]
    exact = np.array([2 * (1 - MU), 0.5 - np.exp(LOGVAR)])
    plain = by_score(log_w, scores, fastelbo.reinforce_and_grad, baseline="none")
    others = by_score(log_w, scores, fastelbo.reinforce_and_grad)
    yield Estimates("number", "REINFORCE", plain, exact)
    yield Estimates("number", "REINFORCE, baseline", others, exact)
    yield Estimates("number", "reparameterization", through, exact)


def estimates(trials, seed):
    rng = np.random.default_rng(seed)
    return [*of_classes(trials, rng), *of_numbers(trials, rng)]


def draw(found, trials, seed, path):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    labels = [f"{e.name} ({e.problem})" for e in found]
    colors = ["tab:blue" if e.problem == "class" else "tab:green" for e in found]
    left.barh(labels, [e.variance for e in found], color=colors)
    left.set(
        xscale="log",
        xlim=(0.1, None),
        xlabel="variance of the gradient",
        title=f"K = {SAMPLES} samples",
    )
    left.invert_yaxis()
    taus = np.geomspace(0.1, 3, 12)
    exact = found[0].exact
    for hard, name in ((False, "soft"), (True, "straight-through")):
        rng = np.random.default_rng(seed)
        swept = [
            Estimates("class", name, by_gumbel(trials, rng, hard, tau), exact, False)
            for tau in taus
        ]
        (line,) = right.plot(taus, [np.linalg.norm(e.bias) for e in swept], label=f"{name}: bias")
        spread = [np.sqrt(e.variance) for e in swept]
        right.plot(taus, spread, "--", color=line.get_color(), label=f"{name}: deviation")
    right.set(xscale="log", yscale="log", xlabel="tau", title="Gumbel-softmax by temperature")
    right.set_ylim(top=30)
    right.legend(loc="upper right", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    parser.add_argument("--output", default="gradient_estimators.png")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    trials = 10_000 if arguments.quick else 200_000
    found = estimates(trials, arguments.seed)
    print(f"{trials} estimates of each, from K = {SAMPLES} samples; norms over the parameters")
    print(f"{'latent':8}{'estimator':22}{'|exact|':>9}{'|bias|':>9}{'+-':>9}{'variance':>10}")
    for e in found:
        sizes = [np.linalg.norm(a) for a in (e.exact, e.bias, e.standard_error)]
        print(f"{e.problem:8}{e.name:22}" + "".join(f"{s:9.4f}" for s in sizes), end="")
        print(f"{e.variance:10.4f}")
    draw(found, trials // 10, arguments.seed, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
