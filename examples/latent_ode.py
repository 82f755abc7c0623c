"""A latent ODE in PyTorch: spirals at irregular times, interpolated and extrapolated.

Each spiral is seen at 20 moments of its own in the first two thirds of the time. The error at other
moments stands beside that of straight lines between observations, and of the last one from then on.
The solver is Runge-Kutta's in a few lines, on the union of all times.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import fastelbo
from fastelbo.torch import Gaussian, latent_ode_elbo, reparameterize

SEEN, END = 4.0, 6.0
NOISE = 0.05


def spiral(phase, speed, times):
    """Where a spiral is: it turns, and grows."""
    angle = phase + speed * times
    return (0.4 + 0.15 * times)[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def draw(rng, count, moments=20):
    """(phases and speeds, times of observations, what was observed)."""
    kind = rng.uniform(0, 2 * np.pi, (count, 1)), rng.choice([-1, 1], (count, 1)) * 1.5
    grid = np.linspace(0, SEEN, 81)  # irregular moments of a fine clock: the union stays small
    times = np.sort([rng.choice(grid, moments, replace=False) for _ in range(count)], axis=1)
    x = spiral(*kind, times) + NOISE * rng.normal(size=(count, moments, 2))
    return kind, times, x.astype(np.float32)


class LatentOde(nn.Module):
    def __init__(self, latent=4, hidden=48):
        super().__init__()
        self.encoder = nn.GRU(3, hidden, batch_first=True)
        self.posterior = nn.Linear(hidden, 2 * latent)
        self.slope = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def encode(self, times, x):
        backwards = torch.cat([x, times[..., None]], dim=2).flip(1)
        _, last = self.encoder(backwards)
        return self.posterior(last[0]).chunk(2, dim=1)

    def solve(self, z, grid):
        """z at 0 to z at the times of a grid, (G, B, L): Runge-Kutta's method of fourth order."""
        path, before = [], 0.0
        for t in grid.tolist():
            h, before = t - before, t
            a = self.slope(z)
            b = self.slope(z + h / 2 * a)
            c = self.slope(z + h / 2 * b)
            d = self.slope(z + h * c)
            z = z + h / 6 * (a + 2 * b + 2 * c + d)
            path.append(z)
        return torch.stack(path)


def train(model, times, x, epochs, batch=64):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    likelihood = Gaussian(2 * NOISE)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            mu, logvar = model.encode(times[rows], x[rows])
            grid, positions = fastelbo.union_of_times(times[rows])
            path = model.solve(reparameterize(mu, logvar), grid)
            z = path[torch.from_numpy(positions), torch.arange(len(rows))[:, None]]
            loss = -latent_ode_elbo(
                x[rows], times[rows], mu, logvar, model.decoder(z), likelihood=likelihood
            ).elbo
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 100.0)
            optimizer.step()
        schedule.step()


def straight(times, x, grid):
    """Lines between observations; before the first and after the last, these."""
    return np.array(
        [[np.interp(grid, t, a) for a in series.T] for t, series in zip(times, x, strict=True)]
    ).swapaxes(1, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short training, for a test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="latent_ode.png")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    count, epochs = (128, 2) if options.quick else (512, 60)
    _, times, x = draw(rng, count)
    model = LatentOde()
    train(model, torch.from_numpy(times.astype(np.float32)), torch.from_numpy(x), epochs)

    kind, times, x = draw(rng, 200)  # spirals that training has not seen
    grid = np.linspace(0, END, 121)
    truth = spiral(*kind, grid[None])
    with torch.no_grad():
        mu, _ = model.encode(torch.from_numpy(times.astype(np.float32)), torch.from_numpy(x))
        found = model.decoder(model.solve(mu, grid)).numpy().swapaxes(0, 1)
    paths = {"latent ODE": found, "straight lines": straight(times, x, grid)}
    print("root mean squared error on 200 held-out spirals")
    print(f"{'':>16} {'interpolation':>14} {'extrapolation':>14}")
    for name, path in paths.items():
        squares = ((path - truth) ** 2).sum(axis=2)
        errors = [np.sqrt(squares[:, part].mean()) for part in (grid <= SEEN, grid > SEEN)]
        print(f"{name:>16} {errors[0]:14.4f} {errors[1]:14.4f}")
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), sharex=True, sharey=True)
    for i, axis in enumerate(axes):
        axis.plot(*truth[i].T, color="0.75", linewidth=5, label="truth")
        axis.plot(*paths["straight lines"][i].T, color="#c06020", linewidth=1, label="lines")
        axis.plot(*found[i][grid <= SEEN].T, color="#20508c", label="latent ODE")
        axis.plot(*found[i][grid >= SEEN].T, "--", color="#20508c", label="extrapolated")
        axis.scatter(*x[i].T, s=12, color="black", zorder=3, label="observed")
        axis.set(aspect="equal", xticks=[], yticks=[])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(options.output, dpi=150)
    print(options.output)


if __name__ == "__main__":
    main()
