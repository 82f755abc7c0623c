"""A variational autoencoder in PyTorch, trained on scikit-learn's handwritten digits."""

import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--quick", action="store_true", help="two epochs")


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 256)
        self.fc21 = nn.Linear(256, 10)
        self.fc22 = nn.Linear(256, 10)
        self.fc3 = nn.Linear(10, 256)
        self.fc4 = nn.Linear(256, 64)

    def encode(self, x):
        h = F.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + std * torch.randn_like(std)

    def decode(self, z):
        return self.fc4(F.relu(self.fc3(z)))

    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def loss_function(logits, x, mu, logvar):
    """Minus the ELBO, summed over the batch."""
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kl


def train(model, loader, optimizer):
    model.train()
    total = 0.0
    for (x,) in loader:
        optimizer.zero_grad()
        logits, mu, logvar = model(x)
        loss = loss_function(logits, x, mu, logvar)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader.dataset)


@torch.no_grad()
def test(model, loader):
    model.eval()
    total = 0.0
    for (x,) in loader:
        logits, mu, logvar = model(x)
        total += loss_function(logits, x, mu, logvar).item()
    return total / len(loader.dataset)


def main():
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # enough for so small a model
    digits = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    digits = digits[torch.randperm(len(digits))]
    train_loader = DataLoader(TensorDataset(digits[360:]), args.batch_size, shuffle=True)
    test_loader = DataLoader(TensorDataset(digits[:360]), args.batch_size)
    model = VAE()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    start = time.perf_counter()
    for epoch in range(1, (2 if args.quick else args.epochs) + 1):
        loss = train(model, train_loader, optimizer)
        print(f"epoch {epoch}: train {loss:.4f}, test {test(model, test_loader):.4f}")
    print(f"{time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
