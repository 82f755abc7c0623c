"""A VAE that collapses, and what each remedy makes of it.

The data are 64 words of 64 pixels, the rows of a Hadamard matrix in noise. No two pixels are
correlated: knowing a little of the word predicts nothing, and costs its nats at once. So the plain
VAE settles where its code says nothing, although a code of all words has a far better ELBO. Every
remedy is one line of the training loop.
"""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.linalg import hadamard
from torch import nn

from fastelbo import active_units
from fastelbo.torch import (
    BetaSchedule,
    Gaussian,
    Geco,
    capacity,
    delta_posterior,
    kl_standard_normal,
    reparameterize,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--quick", action="store_true", help="few epochs on few data")
parser.add_argument("--output", default="posterior_collapse.png")

WORDS, LATENTS, BATCH = 64, 8, 128
REMEDIES = {
    "none": "the ELBO as it is",
    "annealing": "beta from 0 to 1 in the first half",
    "cycles": "beta from 0 to 1, four times",
    "free bits": "0.5 nats a dimension cost nothing",
    "delta-VAE": "at least 0.7 nats a dimension",
    "capacity": "a KL of 5 nats",
    "GECO": "a distortion of 92.5 nats",
}
LIKELIHOOD = Gaussian(scale=1.4)


def samples(count, rng):
    """(x, which words)."""
    words = rng.integers(WORDS, size=count)
    x = hadamard(WORDS)[words] + 0.5 * rng.normal(size=(count, WORDS))
    return torch.tensor(x, dtype=torch.float32), words


class Model(nn.Module):
    def __init__(self, remedy, hidden=128):
        super().__init__()
        self.remedy = remedy
        self.encoder = nn.Sequential(
            nn.Linear(WORDS, hidden), nn.ReLU(), nn.Linear(hidden, 2 * LATENTS)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENTS, hidden), nn.ReLU(), nn.Linear(hidden, WORDS)
        )

    def posterior(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        if self.remedy == "delta-VAE":
            return delta_posterior(mu, logvar, delta=0.7)
        return mu, logvar


def train(remedy, x, epochs, seed):
    """The model, and its KL after each epoch."""
    torch.manual_seed(seed)
    model = Model(remedy)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    steps = epochs * -(-len(x) // BATCH)
    beta = {
        "annealing": BetaSchedule(steps=max(1, steps // 2)),
        "cycles": BetaSchedule(steps=steps, cycles=4, ratio=0.5),
    }.get(remedy, lambda step: 1.0)
    geco = Geco(92.5, step=2e-3)
    step, kls = 0, []
    for _ in range(epochs):
        for batch in x[torch.randperm(len(x))].split(BATCH):
            mu, logvar = model.posterior(batch)
            outputs = model.decoder(reparameterize(mu, logvar))
            distortion = -LIKELIHOOD.log_prob(batch, outputs)
            free_bits = 0.5 if remedy == "free bits" else 0.0
            kl = kl_standard_normal(mu, logvar, free_bits=free_bits)
            if remedy == "capacity":
                loss = distortion + capacity(mu, logvar, 5.0, gamma=3.0)
            elif remedy == "GECO":
                loss = geco.loss(kl, distortion)
                geco.update(distortion)
            else:
                loss = distortion + beta(step) * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        kls.append(kl_standard_normal(mu.detach(), logvar.detach()).item())
    return model, kls


@torch.no_grad()
def measured(model, x, words):
    """(posterior means, KL, distortion, share of the words that a sample of the code tells)."""
    mu, logvar = model.posterior(x)
    outputs = model.decoder(reparameterize(mu, logvar, rng=0))
    told = (outputs.numpy() @ hadamard(WORDS).T).argmax(axis=1) == words
    distortion = -LIKELIHOOD.log_prob(x, outputs).item()
    return mu, kl_standard_normal(mu, logvar).item(), distortion, told.mean()


def draw(kls, spreads, told, path):
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    units = np.arange(1, LATENTS + 1)
    for i, name in enumerate(REMEDIES):
        style = {"color": "black" if name == "none" else f"C{i - 1}", "label": name}
        left.plot(kls[name], **style)
        middle.plot(units, np.sort(spreads[name])[::-1], "o-", ms=4, **style)
        right.barh(name, told[name], color=style["color"])
    left.set(xlabel="epoch", ylabel="KL [nats]", title="how much the code says")
    left.set_ylim(0, 20)
    left.legend(fontsize="small", ncols=2)
    middle.axhline(0.01, color="0.6", ls=":")
    middle.text(1, 0.011, "active above", color="0.4", va="bottom")
    middle.set(yscale="log", xlabel="latent dimension", title="Var of the posterior means over x")
    right.axvline(1 / WORDS, color="0.6", ls=":")
    right.set(xlim=(0, 1), title="words told by a sample of the code")
    right.invert_yaxis()
    figure.savefig(path, dpi=120)


def main():
    args = parser.parse_args()
    epochs, count = (4, 1000) if args.quick else (args.epochs, 4000)
    torch.set_num_threads(1)  # enough for so small a model
    rng = np.random.default_rng(args.seed)
    (x, _), (test, words) = samples(count, rng), samples(2000, rng)
    kls, spreads, told = {}, {}, {}
    print("remedy     active units     KL  distortion   -ELBO  words told")
    for name, what in REMEDIES.items():
        model, kls[name] = train(name, x, epochs, args.seed)
        mu, kl, distortion, told[name] = measured(model, test, words)
        spreads[name] = mu.var(dim=0, correction=0).numpy()
        active = active_units(mu).sum()
        print(
            f"{name:9}  {active:7} of {LATENTS}  {kl:5.2f}  {distortion:10.2f}  "
            f"{kl + distortion:6.2f}  {told[name]:10.0%}   {what}"
        )
    draw(kls, spreads, told, args.output)
    print(args.output)


if __name__ == "__main__":
    main()
