"""Variational flow matching in PyTorch: learns a checkerboard, and samples it by an ODE.

A network guesses where a point on its way from noise will end; that guess is the velocity. The
figure of merit is the MMD to data that training has not seen: of samples, of as many fresh points
of the density itself, and of a Gaussian with the data's mean and covariance.
"""

import argparse
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import fastelbo
from fastelbo.torch import endpoint_velocity, flow_matching

BANDWIDTHS = [0.25, 0.5, 1.0]


def checkerboard(rng, count):
    """Points of the dark squares of a board of 4 x 4, from -2 to 2."""
    column, row = rng.integers(4, size=count), rng.integers(2, size=count)
    corner = np.stack([column, 2 * row + column % 2], axis=1) - 2
    return (corner + rng.uniform(size=(count, 2))).astype(np.float32)


class Endpoint(nn.Module):
    """The mean of x given x_t and t, which are seen as waves of random lengths, too."""

    def __init__(self, width, waves=64):
        super().__init__()
        self.register_buffer("frequencies", 2 * torch.randn(3, waves))
        layers = [nn.Linear(3 + 2 * waves, width), nn.SiLU()]
        for _ in range(2):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x_t, t):
        given = torch.cat([x_t, t[:, None]], dim=1)
        waves = given @ self.frequencies
        return self.layers(torch.cat([given, waves.sin(), waves.cos()], dim=1))


def train(model, rng, steps, batch=512):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = torch.from_numpy(checkerboard(rng, batch))
        t = 0.95 * torch.rand(batch)
        x_t = (1 - t[:, None]) * torch.randn(batch, 2) + t[:, None] * x
        loss = -flow_matching(x, t, model(x_t, t))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def sample(model, count, steps=50, end=0.95):
    """Heun's method up to the last moment, and then to the endpoint itself."""
    x = torch.randn(count, 2)
    times = torch.linspace(0, end, steps + 1)

    def velocity(x, t):
        return endpoint_velocity(model(x, t.expand(count)), x, t)

    for t, after in pairwise(times):
        step = after - t
        first = velocity(x, t)
        x = x + step / 2 * (first + velocity(x + step * first, after))
    return model(x, times[-1].expand(count)).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short training, for a test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="flow_matching.png")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    steps, count = (300, 1000) if options.quick else (5000, 4000)
    model = Endpoint(64 if options.quick else 128)
    train(model, rng, steps)
    held_out = checkerboard(rng, count)
    gaussian = rng.multivariate_normal(held_out.mean(0), np.cov(held_out.T), count)
    clouds = {
        "data": checkerboard(rng, count),
        "flow matching": sample(model, count),
        "Gaussian": gaussian.astype(np.float32),
    }
    print(f"MMD^2 to {count} points that were held out, unbiased (0 is perfect)")
    found = {}
    for name, cloud in clouds.items():
        found[name] = fastelbo.mmd(cloud, held_out, bandwidth=BANDWIDTHS)
        on_board = (np.floor(cloud).sum(1) % 2 == 0) & (np.abs(cloud) < 2).all(1)
        print(f"{name:>14} {found[name]:10.6f}   {on_board.mean():6.1%} in dark squares")
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 4.3), sharex=True, sharey=True)
    for axis, (name, cloud) in zip(axes, clouds.items(), strict=True):
        axis.scatter(*cloud.T, s=3, alpha=0.5, linewidths=0, color="#20508c")
        axis.set_title(f"{name}\nMMD$^2$ {found[name]:.5f}")
        axis.set(aspect="equal", xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(options.output, dpi=150)
    print(options.output)


if __name__ == "__main__":
    main()
