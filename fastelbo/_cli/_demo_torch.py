"""The model of `fastelbo demo --framework torch`: networks, autograd and Adam are PyTorch's.

What is not training (history, scores, samples) is that of ``fastelbo.VAE``, so that both demos mean
the same by every number. They begin with the same weights and draw the same noise, too.
"""

import copy
from contextlib import contextmanager

import torch

import fastelbo.torch
from fastelbo import VAE, Gaussian
from fastelbo._cli._torch_vae import dense
from fastelbo._files import replacing
from fastelbo._network import Autoencoder
from fastelbo._reading import dense as dense_rows


class Network(torch.nn.Module):
    """A classic VAE and its optimizer, with the methods of ``fastelbo._network.Autoencoder``."""

    def __init__(self, visible, hidden, latent_dim, dtype, *prior):
        super().__init__()
        self.visible, self.latent_dim, self.dtype = visible, latent_dim, dtype
        self.outputs = len(visible.widths)
        self.positive = [i for i, _ in visible.positive]
        self.encoder = dense(visible.width, *hidden, 2 * latent_dim)
        self.decoder = dense(latent_dim, *hidden[::-1], visible.outputs)
        self.optimizer = torch.optim.Adam(self.parameters())
        self.steps = 0

    def initialise(self, generator, x=None):
        """The weights that ``fastelbo.VAE`` begins with."""
        hidden = [layer.out_features for layer in self.encoder[:-1:2]]
        other = Autoencoder(self.visible, hidden, self.latent_dim, self.dtype)
        other.initialise(generator)
        with torch.no_grad():
            for mine, theirs in ((self.encoder, other.encoder), (self.decoder, other.decoder)):
                for layer, weight in zip(mine[::2], theirs.weights, strict=True):
                    layer.weight.copy_(torch.from_numpy(weight.T))
                    layer.bias.zero_()

    def forward(self, seen, rng):
        mu, logvar = self.encoder(seen).chunk(2, dim=1)
        z = fastelbo.torch.reparameterize(mu, logvar, rng=rng)
        return mu, logvar, self.parameters_of(z)

    def parameters_of(self, z):
        """What the likelihood takes for rows of z."""
        outputs = self.decoder(z).chunk(self.outputs, dim=1)
        return tuple(a.exp() if i in self.positive else a for i, a in enumerate(outputs))

    def step(self, X, rows, likelihood, beta, free_bits, rng, learning_rate, *unused):
        """One step of training on X[rows]; returns the minibatch's mean log-likelihood and KL.

        Of posteriors as they are, by Adam as it is: all that the demo asks for.
        """
        read = X[rows]
        x = torch.from_numpy(dense_rows(read, self.dtype))
        mu, logvar, outputs = self(torch.from_numpy(self.visible.see(read)), rng)
        self.mu = mu.detach().numpy()
        arrays = tuple([output.detach().numpy() for output in outputs])
        self.variances = likelihood._variances(read, arrays, 1)
        result = fastelbo.torch.elbo(
            x, mu, logvar, outputs, likelihood=in_torch(likelihood), beta=beta, free_bits=free_bits
        )
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.zero_grad()
        (-result.elbo).backward()
        self.optimizer.step()
        self.steps += 1
        return result.reconstruction.item(), result.kl.item()

    def state(self):
        """Copies of all that training changes, to `restore`."""
        return copy.deepcopy((self.steps, self.state_dict(), self.optimizer.state_dict()))

    def restore(self, state):
        self.steps, weights, optimizer = state
        self.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)

    @property
    def largest_layer(self):
        """Multiplications of the largest layer's product, for each row."""
        return max(parameter.numel() for parameter in self.parameters())

    def prior(self, num_threads):
        """None: the standard normal."""
        return

    def scored(self, x):
        """What the likelihood reads of rows x."""
        return x

    @torch.no_grad()
    def encode(self, x, num_threads):
        """(mu, logvar) of rows, as arrays."""
        seen = torch.from_numpy(self.visible.see(x))
        return tuple(part.numpy() for part in self.encoder(seen).chunk(2, dim=1))

    @torch.no_grad()
    def decode(self, z, num_threads, x=None):
        """The likelihood's parameters for rows of z, as arrays."""
        return tuple(part.numpy() for part in self.parameters_of(torch.from_numpy(z)))


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
