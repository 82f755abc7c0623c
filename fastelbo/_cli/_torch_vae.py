"""The model that :class:`fastelbo.VAE` trains, as a PyTorch user would write it."""

from itertools import pairwise

import torch
from torch.nn import functional


class TorchVAE(torch.nn.Module):
    """Dense encoder and decoder with ReLU; Bernoulli likelihood by logits."""

    def __init__(self, features, hidden, latent_dim):
        super().__init__()
        self.encoder = dense(features, *hidden, 2 * latent_dim)
        self.decoder = dense(latent_dim, *hidden[::-1], features)

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=-1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


def dense(*widths):
    """Linear layers with a ReLU between each two."""
    layers = []
    for n, m in pairwise(widths):
        layers += [torch.nn.Linear(n, m), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def negative_elbo(logits, x, mu, logvar):
    reconstruction = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (reconstruction + kl_to_standard_normal(mu, logvar)) / x.shape[0]


def kl_to_standard_normal(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def train_epoch_factory(
    X, *, hidden=(256,), latent_dim=10, batch_size=128, learning_rate=1e-3, seed=0, compiled=False
):
    """A function that trains for one epoch over X and returns its mean ELBO.

    Eager PyTorch with its own Adam; minibatches are rows of one shuffled tensor, without a
    DataLoader, which would cost more than the training. `compiled` puts the model and the loss
    through torch.compile.
    """
    torch.manual_seed(seed)
    data = torch.as_tensor(X, dtype=torch.float32)
    model = TorchVAE(data.shape[1], tuple(hidden), latent_dim)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

    def loss_of(x):
        logits, mu, logvar = model(x)
        return negative_elbo(logits, x, mu, logvar)

    if compiled:
        loss_of = torch.compile(loss_of)

    def train_epoch():
        total = torch.zeros(())
        for rows in torch.randperm(len(data)).split(batch_size):
            x = data[rows]
            loss = loss_of(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total -= loss.detach() * len(rows)
        return float(total) / len(data)

    return train_epoch
