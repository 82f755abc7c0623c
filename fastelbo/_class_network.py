"""The networks of M2: q(y|x), q(z|x, y) and p(x|y, z), and a training step on all classes at once.

A class enters a network as its one-hot row beside x or z. What belongs to every class is
(C, B, ...) or, as rows of a network, (C B, ...).
"""

import numpy as np

from fastelbo._adam import Adam
from fastelbo._network import Dense, _bias_backward, _columns, pullback_of, restored
from fastelbo.divergences import kl_standard_normal_and_grad
from fastelbo.posterior import reparameterize, reparameterize_backward
from fastelbo.semi_supervised import m2_elbo_and_grad


class ClassAutoencoder:
    """Classifier, encoder and decoder of `classes` classes, and their optimizer.

    What networks see of x and give for it is a `Visible`.
    """

    def __init__(self, visible, classes, hidden, latent_dim, dtype, activation="relu"):
        self.visible = visible
        self.classes = classes
        self.hidden = tuple(hidden)
        self.latent_dim = latent_dim
        self.dtype = np.dtype(dtype)
        self.activation = activation
        widths = self._widths(visible, classes, self.hidden, latent_dim)
        ends = np.cumsum([0, *map(Dense.size, widths)])
        parameters, grads = np.zeros((2, ends[-1]), self.dtype)
        self.networks = [
            Dense(layers, parameters[start:end], grads[start:end], activation)
            for layers, start, end in zip(widths, ends, ends[1:], strict=False)
        ]
        self.classifier, self.encoder, self.decoder = self.networks
        self.adam = Adam(parameters, grads)

    @staticmethod
    def _widths(visible, classes, hidden, latent_dim):
        return (
            (visible.width, *hidden, classes),
            (visible.width + classes, *hidden, 2 * latent_dim),
            (latent_dim + classes, *hidden[::-1], visible.outputs),
        )

    @classmethod
    def size(cls, visible, classes, hidden, latent_dim, **_):
        """How many parameters the networks have; of all the constructor's arguments."""
        return sum(map(Dense.size, cls._widths(visible, classes, hidden, latent_dim)))

    def __reduce__(self):
        # Views of the flat arrays would be copied one by one, and no longer be views.
        network = {
            "visible": self.visible,
            "classes": self.classes,
            "hidden": self.hidden,
            "latent_dim": self.latent_dim,
            "dtype": self.dtype.name,
            "activation": self.activation,
        }
        return restored, (ClassAutoencoder, network, self.adam.steps, self.arrays())

    def arrays(self):
        """All that training has found out, by name."""
        return self.adam.arrays()

    def state(self):
        """Copies of all that training changes, to `restore`."""
        return self.adam.state()

    def restore(self, state):
        self.adam.restore(state)

    @property
    def largest_layer(self):
        """Weights of the largest layer: multiplications of its product, for each row."""
        return max(w.size for network in self.networks for w in network.weights)

    def initialise(self, generator):
        """New weights; as in `Autoencoder`, every scale begins at one."""
        for network in self.networks:
            network.initialise(generator)
        self.encoder.weights[-1][:, self.latent_dim :] = 0
        self.visible.begin(self.classifier, self.decoder)
        self.visible.begin(self.encoder, self.decoder)

    def of_class(self, rows, y):
        """These rows, each beside the one-hot row of its class."""
        return np.hstack([rows, np.eye(self.classes, dtype=self.dtype)[y]])

    def _of_every_class(self, rows):
        """(C B, ...) of rows (B, ...): all with the first class, all with the second, ..."""
        y = np.repeat(np.arange(self.classes), len(rows))
        return self.of_class(np.tile(rows, (self.classes, 1)), y)

    def logits(self, x, num_threads):
        """Of q(y|x), (B, C)."""
        return self._forward(self.classifier, self.visible.see(x), num_threads)[-1]

    def encode(self, x, y, num_threads):
        """(mu, logvar) of q(z|x, y)."""
        inputs = self.of_class(self.visible.see(x), y)
        return _columns(self._forward(self.encoder, inputs, num_threads)[-1], self.latent_dim)

    def decode(self, z, y, num_threads):
        """The likelihood's parameters of p(x|y, z)."""
        decoded = self._forward(self.decoder, self.of_class(z, y), num_threads)
        return self.visible.parameters(decoded[-1])

    def decode_and_pull(self, z, y, num_threads):
        """`decode`, and the function that takes gradients of its outputs back to z."""
        buffers = self._forward(self.decoder, self.of_class(z, y), num_threads)
        outputs = self.visible.parameters(buffers[-1])
        pullback = pullback_of(self, buffers, outputs)
        return outputs, lambda *gradients: pullback(*gradients)[:, : self.latent_dim]

    def _forward(self, network, inputs, num_threads):
        buffers = network.buffers(len(inputs))
        network.forward(inputs, buffers, num_threads)
        return buffers

    def step(
        self,
        x,
        y,
        likelihood,
        alpha,
        beta,
        rng,
        learning_rate,
        num_threads,
        weight_decay=0.0,
        max_grad_norm=None,
    ):
        """One step of training; returns the mean objective and the classes found, (B,)."""
        shape = self.classes, len(x)
        threads = {"num_threads": num_threads}
        rowwise = {"reduction": "none", **threads}
        seen = self.visible.see(x)
        classified = self._forward(self.classifier, seen, num_threads)
        inputs = self._of_every_class(seen)
        encoded = self._forward(self.encoder, inputs, num_threads)
        mu, logvar = _columns(encoded[-1], self.latent_dim)
        kl, d_kl = kl_standard_normal_and_grad(mu, logvar, **rowwise)
        z = reparameterize(mu, logvar, rng=rng, **threads)
        codes = self.of_class(z, np.repeat(np.arange(self.classes), len(x)))
        decoded = self._forward(self.decoder, codes, num_threads)
        outputs = self.visible.parameters(decoded[-1])
        log_p, d_outputs = likelihood.log_prob_and_grad(
            x, *(a.reshape(*shape, -1) for a in outputs), **rowwise
        )
        log_joint = log_p - beta * kl.reshape(shape) - np.log(self.classes)
        logits = classified[-1]
        value, grad = m2_elbo_and_grad(
            np.ascontiguousarray(log_joint.T, self.dtype), logits, y, alpha=alpha, **threads
        )

        # Rows' gradients are of their own terms; those of the objective weigh each class.
        weight = np.ascontiguousarray(grad.log_joint.T).reshape(-1, 1)
        d_decoded = self.decoder.buffers(len(codes))
        parts = self.visible.cut(d_decoded[-1])
        for part, d_output in zip(parts, _as_tuple(d_outputs), strict=True):
            np.multiply(d_output.reshape(part.shape), weight, out=part)
        self.visible.backward(parts, outputs)
        d_codes = np.empty_like(codes)
        self._backward(self.decoder, codes, decoded, d_decoded, d_codes, num_threads)
        d_encoded = self.encoder.buffers(len(inputs))
        d_z = np.ascontiguousarray(d_codes[:, : self.latent_dim])
        d_latents = reparameterize_backward(d_z, mu, logvar, z, kl_weight=0.0, **threads)
        heads = _columns(d_encoded[-1], self.latent_dim)
        for head, by_z, by_kl in zip(heads, d_latents, d_kl, strict=True):
            np.subtract(by_z, beta * weight * by_kl, out=head)
        self._backward(self.encoder, inputs, encoded, d_encoded, None, num_threads)
        d_classified = self.classifier.buffers(len(x))
        d_classified[-1][...] = grad.logits
        self._backward(self.classifier, seen, classified, d_classified, None, num_threads)
        self.adam.ascend(learning_rate, num_threads, weight_decay, max_grad_norm)
        return value, logits.argmax(axis=1)

    @staticmethod
    def _backward(network, inputs, buffers, grads, d_inputs, num_threads):
        _bias_backward(grads[-1], None, network.d_biases[-1], num_threads)
        network.backward(inputs, buffers, grads, d_inputs, num_threads)


def _as_tuple(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)
