"""The model of `fastelbo demo --framework torch`: networks, autograd and Adam are PyTorch's.

What is not training (history, scores, samples) is that of ``fastelbo.VAE``, so that both demos mean
the same by every number. They begin with the same weights and draw the same noise, too.
"""

from contextlib import contextmanager

import torch

import fastelbo.torch
from fastelbo import VAE, Gaussian
from fastelbo._cli._torch_vae import dense
from fastelbo._files import replacing
from fastelbo._network import Autoencoder


class Network(torch.nn.Module):
    """A classic VAE and its optimizer, with the methods of ``fastelbo._network.Autoencoder``."""

    def __init__(self, features, hidden, latent_dim, outputs, dtype, *prior):
        super().__init__()
        self.latent_dim, self.outputs, self.dtype = latent_dim, outputs, dtype
        self.encoder = dense(features, *hidden, 2 * latent_dim)
        self.decoder = dense(latent_dim, *hidden[::-1], outputs * features)
        self.optimizer = torch.optim.Adam(self.parameters())

    def initialise(self, generator, x=None):
        """The weights that ``fastelbo.VAE`` begins with."""
        features, latent_dim = self.encoder[0].in_features, self.latent_dim
        hidden = [layer.out_features for layer in self.encoder[:-1:2]]
        other = Autoencoder(features, hidden, latent_dim, self.outputs, self.dtype)
        other.initialise(generator)
        with torch.no_grad():
            for mine, theirs in ((self.encoder, other.encoder), (self.decoder, other.decoder)):
                for layer, weight in zip(mine[::2], theirs.weights, strict=True):
                    layer.weight.copy_(torch.from_numpy(weight.T))
                    layer.bias.zero_()

    def forward(self, x, rng):
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        z = fastelbo.torch.reparameterize(mu, logvar, rng=rng)
        return mu, logvar, self.decoder(z).chunk(self.outputs, dim=1)

    def step(self, X, rows, likelihood, beta, free_bits, rng, learning_rate, num_threads):
        """One step of training on X[rows]; returns the minibatch's mean log-likelihood and KL."""
        x = torch.from_numpy(X[rows])
        mu, logvar, outputs = self(x, rng)
        result = fastelbo.torch.elbo(
            x, mu, logvar, outputs, likelihood=in_torch(likelihood), beta=beta, free_bits=free_bits
        )
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.zero_grad()
        (-result.elbo).backward()
        self.optimizer.step()
        return result.reconstruction.item(), result.kl.item()

    @property
    def largest_layer(self):
        """Multiplications of the largest layer's product, for each row."""
        return max(parameter.numel() for parameter in self.parameters())

    def prior(self, num_threads):
        """None: the standard normal."""
        return

    @torch.no_grad()
    def encode(self, x, num_threads):
        """(mu, logvar) of rows, as arrays."""
        return tuple(part.numpy() for part in self.encoder(torch.from_numpy(x)).chunk(2, dim=1))

    @torch.no_grad()
    def decode(self, z, num_threads):
        """The likelihood's parameters for rows of z, as arrays."""
        decoded = self.decoder(torch.from_numpy(z)).chunk(self.outputs, dim=1)
        return tuple(part.numpy() for part in decoded)


def in_torch(likelihood):
    """The likelihood of the same name in fastelbo.torch."""
    kind = getattr(fastelbo.torch, type(likelihood).__name__)
    return kind(likelihood.scale) if isinstance(likelihood, Gaussian) else kind()


class Model(VAE):
    """``fastelbo.VAE`` around that network, and what the demo says of it."""

    FILE, READ_BY = "vae.pt", "torch.load, a state_dict"
    _network = Network

    @property
    def n_parameters_(self):
        return sum(parameter.numel() for parameter in self._model.parameters())

    def save(self, path):
        """Write the weights, nothing but tensors: ``torch.load(path, weights_only=True)``."""
        with replacing(path) as file:
            torch.save(self._model.state_dict(), file)

    @staticmethod
    @contextmanager
    def threads(n):
        """A context in which PyTorch, and with it the kernels, uses n threads; None: as it is."""
        before = torch.get_num_threads()
        torch.set_num_threads(n or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def describe_threads(self):
        return f"{torch.get_num_threads()} for PyTorch {torch.__version__} and the kernels"
