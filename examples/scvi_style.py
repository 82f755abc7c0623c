"""A single-cell model in the style of scVI on generated counts, and what its loss costs.

Counts of each cell and gene are negative binomial: the decoder gives the share of a gene in a cell,
the cell's library size scales it, and every gene has an inverse dispersion theta of its own. Trains
with fastelbo.torch, then times the loss as it is usually written beside it.
"""

import argparse
import time

import numpy as np
import torch
from torch import nn

from fastelbo.torch import kl_standard_normal, negative_binomial_loss, reparameterize

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--cells", type=int, default=2048)
parser.add_argument("--genes", type=int, default=2000)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--quick", action="store_true", help="two epochs of few cells")


def generated_counts(cells, genes, seed):
    """Counts (cells, genes) of five types of cells."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0.0, 1.5, genes)
    log_share = base + rng.normal(0.0, 0.7, (5, genes))[rng.integers(5, size=cells)]
    share = np.exp(log_share)
    share /= share.sum(axis=1, keepdims=True)
    library = rng.lognormal(np.log(genes), 0.3, (cells, 1))
    theta = rng.lognormal(0.5, 0.7, genes)
    return rng.poisson(library * share * rng.gamma(theta, 1 / theta, (cells, genes)))


class Model(nn.Module):
    def __init__(self, genes, hidden=128, latent=10):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(genes, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, genes), nn.Softmax(dim=1)
        )
        self.log_theta = nn.Parameter(torch.zeros(genes))

    def forward(self, x):
        """(mean, theta, mu, logvar)."""
        mu, logvar = self.encoder(torch.log1p(x)).chunk(2, dim=1)
        library = x.sum(dim=1, keepdim=True)
        mean = library * self.decoder(reparameterize(mu, logvar))
        return mean, self.log_theta.exp(), mu, logvar


def fast_loss(x, mean, theta, mu, logvar):
    return negative_binomial_loss(x, mean, theta) + kl_standard_normal(mu, logvar)


def plain_loss(x, mean, theta, mu, logvar, eps=1e-8):
    log_both = torch.log(theta + mean + eps)
    log_prob = (
        theta * (torch.log(theta + eps) - log_both)
        + x * (torch.log(mean + eps) - log_both)
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    return (kl.sum(dim=1) - log_prob.sum(dim=1)).mean()


def step(model, optimizer, loss_function, x):
    """Train on x; returns the loss and the seconds that it took with its gradients."""
    optimizer.zero_grad()
    outputs = model(x)
    leaves = [output.detach().requires_grad_() for output in outputs]
    start = time.perf_counter()
    loss = loss_function(x, *leaves)
    loss.backward()
    seconds = time.perf_counter() - start
    torch.autograd.backward(outputs, [leaf.grad for leaf in leaves])
    optimizer.step()
    return loss.item(), seconds


def epoch(model, optimizer, loss_function, batches):
    """(mean loss, seconds, seconds of the loss)."""
    start = time.perf_counter()
    losses, seconds = zip(*(step(model, optimizer, loss_function, x) for x in batches), strict=True)
    return sum(losses) / len(losses), time.perf_counter() - start, sum(seconds)


def main():
    args = parser.parse_args()
    if args.quick:
        args.cells, args.epochs = 512, 2
    torch.manual_seed(args.seed)
    counts = generated_counts(args.cells, args.genes, args.seed)
    batches = torch.tensor(counts, dtype=torch.float32).split(args.batch_size)
    model = Model(args.genes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(1, args.epochs + 1):
        loss, _, _ = epoch(model, optimizer, fast_loss, batches)
        print(f"epoch {i}: loss {loss:.3f}")
    for name, loss_function in (("plain formula", plain_loss), ("fastelbo", fast_loss)):
        _, seconds, of_loss = min(
            (epoch(model, optimizer, loss_function, batches) for _ in range(3)), key=lambda e: e[1]
        )
        ms = 1e3 / len(batches)
        print(
            f"{name:13}  {ms * seconds:.2f} ms a step, the loss {ms * of_loss:.2f} ms: "
            f"{of_loss / seconds:.0%}"
        )


if __name__ == "__main__":
    main()
