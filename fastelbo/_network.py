"""The networks of a VAE on NumPy's matrix products; all that lies between those is a kernel.

Parameters of encoder and decoder live in one flat array, their gradients in another, so that the
optimizer is one pass. Dense layers: x is (B, widths[0]), the output of layer i (B, widths[i + 1]).
"""

import math
from functools import partial
from itertools import pairwise

import numpy as np

from fastelbo import _builds
from fastelbo._adam import ARRAYS, Adam
from fastelbo._arguments import check_choice
from fastelbo._own_network import OwnNetwork, size_of
from fastelbo._threads import threads_for
from fastelbo.amortization import refine_posterior
from fastelbo.divergences import kl_standard_normal_and_grad
from fastelbo.posterior import (
    noise_key,
    posterior_log_prob,
    reparameterize_backward,
    reparameterize_kl,
)
from fastelbo.priors import MixtureOfGaussians, VampPrior

_kernels = _builds.kernels("network")

PRIORS = ("standard", "mixture", "vamp")

#: Rows that go through a network at once when nothing is trained.
CHUNK = 1024


def check_activation(name):
    """Complain unless it is one of those that may stand between two layers."""
    check_choice(name, "activation", tuple(_kernels.ACTIVATIONS))


def _bias_backward(grad, copy, sums, num_threads, *, rectified=None, slopes=None):
    """Column sums of grad (B, H), back through an activation before and copied if so wished."""
    threads = threads_for(grad.size, num_threads)
    _kernels.bias_backward(grad, rectified, slopes, copy, sums, threads)


class _Buffers(list):
    """An array for each layer; and for each activation one of its slopes, unless it is the ReLU."""

    slopes = ()


class Dense:
    """Dense layers, an activation between each two; weights are (in, out) views of a flat array."""

    def __init__(self, widths, parameters, grads, activation="relu"):
        """Take the first `size(widths)` elements of both flat arrays."""
        self.widths = widths
        self.activation = activation
        self.weights, self.biases = self._views(parameters)
        self.d_weights, self.d_biases = self._views(grads)

    @staticmethod
    def size(widths):
        """How many parameters layers of these widths have."""
        return sum((n + 1) * m for n, m in pairwise(widths))

    def _views(self, flat):
        weights, biases, start = [], [], 0
        for n, m in pairwise(self.widths):
            weights.append(flat[start : start + n * m].reshape(n, m))
            biases.append(flat[start + n * m : start + (n + 1) * m])
            start += (n + 1) * m
        return weights, biases

    def initialise(self, generator, means=None):
        """He's normal weights before an activation, Glorot's uniform ones at the end, no bias.

        What the last layer gives besides so many `means` begins at zero.
        """
        for i, w in enumerate(self.weights):
            n, m = w.shape
            if i < len(self.weights) - 1:
                w[...] = generator.standard_normal(w.shape) * np.sqrt(2 / n)
            else:
                w[...] = generator.uniform(-1, 1, w.shape) * np.sqrt(6 / (n + m))
        for b in self.biases:
            b[...] = 0
        if means is not None:
            self.weights[-1][:, means:] = 0

    def buffers(self, batch):
        """One array per layer, for its output or for the gradient of that."""
        return _Buffers(np.empty((batch, b.size), b.dtype) for b in self.biases)

    def forward(self, x, outputs, num_threads):
        """Fill `outputs` (see `buffers`); returns the last."""
        last = len(outputs) - 1
        if self.activation != "relu" and not outputs.slopes:
            outputs.slopes = [np.empty_like(h) for h in outputs[:-1]]
        for i, h in enumerate(outputs):
            np.matmul(x, self.weights[i], out=h)
            activation = self.activation if i < last else None
            slopes = outputs.slopes[i] if activation and outputs.slopes else None
            threads = threads_for(h.size, num_threads)
            _kernels.add_bias(h, self.biases[i], activation, slopes, threads)
            x = h
        return x

    def backward(self, x, outputs, grads, d_x, num_threads):
        """Parameter gradients, and that of x into `d_x` unless it is None.

        ``grads[-1]`` holds the gradient of the last output; that of its bias is the caller's, who
        has read it anyway. The other buffers of `grads` are filled on the way.
        """
        for i in range(len(outputs) - 1, -1, -1):
            below = outputs[i - 1] if i else x
            np.matmul(below.T, grads[i], out=self.d_weights[i])
            if i:
                d_below = np.matmul(grads[i], self.weights[i].T, out=grads[i - 1])
                slopes = outputs.slopes[i - 1] if outputs.slopes else None
                to = self.d_biases[i - 1]
                _bias_backward(d_below, None, to, num_threads, rectified=below, slopes=slopes)
            elif d_x is not None:
                np.matmul(grads[i], self.weights[i].T, out=d_x)

    def input_gradient(self, grads, rows, out):
        """The gradient of some rows of x, after `backward`."""
        np.matmul(grads[0][rows], self.weights[0].T, out=out)

    def backward_to_input(self, outputs, grads):
        """The gradient of x alone; `grads` as for `backward`, parameters' gradients untouched."""
        for i in range(len(outputs) - 1, 0, -1):
            d_below = np.matmul(grads[i], self.weights[i].T, out=grads[i - 1])
            d_below *= outputs.slopes[i - 1] if outputs.slopes else outputs[i - 1] > 0
        return grads[0] @ self.weights[0].T


def _size(widths, own):
    """How many parameters a network has: the user's own, or one of dense layers."""
    return Dense.size(widths) if own is None else size_of(own)


class Workspace:
    """Every array that a training step on `batch` rows writes.

    Pseudo-inputs go through the encoder as further rows.
    """

    def __init__(self, model, batch):
        dtype, latent, visible = model.dtype, model.latent_dim, model.visible
        rows = batch + len(model.pseudo_inputs)
        self.inputs = np.empty((rows, visible.width), dtype)
        self.rows = self.inputs[:batch]
        if not visible.plain:
            self.rows = np.empty((batch, visible.features), dtype)
        self.encoded = model.encoder.buffers(rows)
        self.decoded = model.decoder.buffers(batch)
        self.d_encoded = model.encoder.buffers(rows)
        self.d_decoded = model.decoder.buffers(batch)
        heads = _columns(self.encoded[-1], latent)
        self.mu, self.logvar = (head[:batch] for head in heads)
        self.pseudo_heads = tuple(head[batch:] for head in heads)
        self.d_heads = _columns(self.d_encoded[-1], latent)
        self.d_latents = np.empty((2, rows, latent), dtype)
        self.d_mu, self.d_logvar = self.d_latents[:, :batch]
        self.z, self.d_z, *self.d_kl = np.empty((4, batch, latent), dtype)
        self.d_parts = visible.cut(self.d_decoded[-1])
        self.d_outputs = (self.d_decoded[-1],)
        if len(self.d_parts) > 1:
            self.d_outputs = tuple(np.empty_like(part, order="C") for part in self.d_parts)
        #: Of the likelihood's parameters.
        self.d_parameters = self.d_outputs


def _columns(a, width):
    """Views of `width` columns each."""
    return tuple(a[:, i : i + width] for i in range(0, a.shape[1], width))


def pullback_of(model, buffers, outputs):
    """From gradients of a decoder's outputs to that of its input; buffers are of its layers."""

    def pullback(*gradients):
        grads = model.decoder.buffers(len(buffers[-1]))
        parts = model.visible.cut(grads[-1])
        for part, gradient in zip(parts, gradients, strict=True):
            part[...] = gradient
        model.visible.backward(parts, outputs)
        return model.decoder.backward_to_input(buffers, grads)

    return pullback


class Autoencoder:
    """Encoder to (mu, logvar), decoder to the likelihood's parameters, and their optimizer.

    A prior of `components` is learned with them: a mixture, or the pseudo-inputs of a VampPrior. A
    MixtureOfGaussians that is given stays as it is.

    What networks see of x and give for it is a `Visible`; pseudo-inputs are what the encoder sees.
    An `encoder` or `decoder` of the user's takes the place of dense layers.
    """

    Workspace = Workspace

    def __init__(
        self,
        visible,
        hidden,
        latent_dim,
        dtype,
        prior="standard",
        components=0,
        activation="relu",
        encoder=None,
        decoder=None,
    ):
        self.visible = visible
        self.hidden = tuple(hidden)
        self.latent_dim = latent_dim
        self.dtype = np.dtype(dtype)
        down, up = self._widths(visible, self.hidden, latent_dim)
        self.given_prior = None if isinstance(prior, str) else prior
        self.prior_kind = prior if isinstance(prior, str) else "given"
        self.components = components
        self.given = {"encoder": encoder, "decoder": decoder}
        first = _size(down, encoder)
        last = first + _size(up, decoder)
        shape = visible, self.hidden, latent_dim
        size = self.size(*shape, prior, components, encoder, decoder)
        parameters, grads = np.zeros((2, size), self.dtype)
        self.activation = activation
        self.encoder, self.decoder = (
            Dense(layers, parameters[part], grads[part], activation)
            if self.given[name] is None
            else OwnNetwork(self.given[name], name, layers[-1], parameters[part], grads[part])
            for name, layers, part in (
                ("encoder", down, slice(first)),
                ("decoder", up, slice(first, last)),
            )
        )
        self.mixture = self._mixture_views(parameters[last:])
        self.d_mixture = self._mixture_views(grads[last:])
        shape = components if self.prior_kind == "vamp" else 0, visible.width
        self.pseudo_inputs, self.d_pseudo_inputs = (
            flat[last : last + shape[0] * shape[1]].reshape(shape) for flat in (parameters, grads)
        )
        self.adam = Adam(parameters, grads)
        self._workspaces = {}

    @staticmethod
    def _widths(visible, hidden, latent_dim):
        down = (visible.width, *hidden, 2 * latent_dim)
        return down, (latent_dim, *hidden[::-1], visible.outputs)

    @classmethod
    def size(
        cls,
        visible,
        hidden,
        latent_dim,
        prior="standard",
        components=0,
        encoder=None,
        decoder=None,
        **_,
    ):
        """How many parameters networks and prior have; of all the constructor's arguments."""
        down, up = cls._widths(visible, hidden, latent_dim)
        learned = {"mixture": 2 * latent_dim + 1, "vamp": visible.width}
        each = learned.get(prior, 0) if isinstance(prior, str) else 0
        return _size(down, encoder) + _size(up, decoder) + each * components

    def _mixture_views(self, flat):
        """(mu (C, L), logvar (C, L), logits (C,)) of a learned mixture; nothing without one."""
        if self.prior_kind != "mixture":
            return ()
        logits, rest = np.split(flat, [self.components])
        shape = 2, self.components, self.latent_dim
        return *rest[: math.prod(shape)].reshape(shape), logits

    @property
    def largest_layer(self):
        """Weights of the largest layer: multiplications of its product, for each row."""
        return max((w.size for w in (*self.encoder.weights, *self.decoder.weights)), default=1)

    def prior(self, num_threads):
        """The prior as it is now, None being the standard normal."""
        if self.prior_kind == "mixture":
            return MixtureOfGaussians(*self.mixture)
        if self.prior_kind == "vamp":
            return VampPrior(*self._encode(self.pseudo_inputs, num_threads))
        return self.given_prior

    def __reduce__(self):
        # Views of the flat arrays would be copied one by one, and no longer be views.
        network = {
            "visible": self.visible,
            "hidden": self.hidden,
            "latent_dim": self.latent_dim,
            "dtype": self.dtype.name,
            "prior": self.prior_kind if self.given_prior is None else self.given_prior,
            "components": self.components,
            "activation": self.activation,
            **self.given,
        }
        return restored, (Autoencoder, network, self.adam.steps, self.arrays())

    def arrays(self):
        """All that training has found out, by name."""
        return self.adam.arrays()

    def initialise(self, generator, x=None):
        """New weights; components begin where a standard normal has its mass, or at rows of x."""
        # Every scale begins at one: logvar and what the decoder gives besides the mean are zero.
        self.encoder.initialise(generator, self.latent_dim)
        self.decoder.initialise(generator)
        own_encoder, own_decoder = (self.given[name] is not None for name in self.given)
        self.visible.begin(
            None if own_encoder else self.encoder, None if own_decoder else self.decoder
        )
        if own_encoder:
            self.encoder.probe(self.visible.see(x[:2]), self.prior_kind == "vamp")
        if own_decoder:
            self.decoder.probe(generator.standard_normal((2, self.latent_dim), self.dtype), True)
        if self.prior_kind == "mixture":
            self.mixture[0][...] = generator.standard_normal(self.mixture[0].shape)
        elif self.prior_kind == "vamp":
            few = len(x) < self.components
            chosen = x[generator.choice(len(x), self.components, replace=few)]
            self.pseudo_inputs[...] = self.visible.see(chosen)

    def _workspace(self, batch):
        if batch not in self._workspaces:
            if len(self._workspaces) == 2:  # whole minibatches and what is left over
                self._workspaces.clear()
            self._workspaces[batch] = self.Workspace(self, batch)
        return self._workspaces[batch]

    @property
    def steps(self):
        """Of training, so far."""
        return self.adam.steps

    def state(self):
        """Copies of all that training changes, to `restore`."""
        return self.adam.state()

    def restore(self, state):
        self.adam.restore(state)
        self.publish()

    def publish(self):
        """Tell networks of the user's what their parameters are now."""
        for name, own in self.given.items():
            if own is not None:
                getattr(self, name).publish()

    def step(
        self,
        x,
        rows,
        likelihood,
        beta,
        free_bits,
        rng,
        learning_rate,
        num_threads,
        refine_steps=0,
        weight_decay=0.0,
        max_grad_norm=None,
    ):
        """One step of training on x[rows]; returns the minibatch's mean log-likelihood and KL.

        `mu` is what the encoder said of them, until the next step.

        With refined posteriors the encoder climbs the ELBO of its own, all else that of those.
        """
        batch = len(rows)
        w = self._workspace(batch)
        self.mu = w.mu
        w.x = x.take(rows, axis=0, out=w.rows, mode="clip")
        if not self.visible.plain:
            self.visible.see(w.x, w.inputs[:batch])
        w.inputs[batch:] = self.pseudo_inputs
        self.encoder.forward(w.inputs, w.encoded, num_threads)
        options = likelihood, beta, free_bits, rng, num_threads
        value, kl = self._decoder_step(w, w.mu, w.logvar, *options)
        floored = free_bits != 0.0
        estimated = self.prior_kind != "standard"
        reparameterize_backward(
            w.d_z,
            w.mu,
            w.logvar,
            w.z,
            kl_weight=0.0 if floored or estimated else beta / batch,
            out=(w.d_mu, w.d_logvar),
            num_threads=num_threads,
        )
        if floored:
            kl_standard_normal_and_grad(
                w.mu, w.logvar, free_bits=free_bits, out=tuple(w.d_kl), num_threads=num_threads
            )
            w.d_mu -= beta * w.d_kl[0]
            w.d_logvar -= beta * w.d_kl[1]
        if estimated:
            w.d_logvar += 0.5 * beta / batch  # of the entropy of q
        if refine_steps:  # what decoder and prior learn is overwritten, what the encoder does stays
            fixed = likelihood._at_variances(self.variances)
            found = self.refine(
                w.x, w.mu, w.logvar, fixed, beta, refine_steps, noise_key(rng), num_threads
            )
            value, kl = self._decoder_step(w, *found, *options)
        d_biases = _columns(self.encoder.d_biases[-1][None], self.latent_dim)
        for d_head, part, d_bias in zip(w.d_latents, w.d_heads, d_biases, strict=True):
            _bias_backward(d_head, part, d_bias[0], num_threads)
        self.encoder.backward(w.inputs, w.encoded, w.d_encoded, None, num_threads)
        if self.prior_kind == "vamp":
            rows = slice(batch, None)
            self.encoder.input_gradient(w.d_encoded, rows, self.d_pseudo_inputs)
        self.adam.ascend(learning_rate, num_threads, weight_decay, max_grad_norm)
        self.publish()
        return value, kl

    def _decoder_step(self, w, mu, logvar, likelihood, beta, free_bits, rng, num_threads):
        """From samples of q through the decoder and back: its gradients, the prior's, and w.d_z.

        Returns the mean log-likelihood and KL.
        """
        _, kl = reparameterize_kl(
            mu, logvar, rng=rng, free_bits=free_bits, out=w.z, num_threads=num_threads
        )
        outputs = self._decoded(w, num_threads)
        x = self.scored(w.x)
        value, _ = likelihood.log_prob_and_grad(
            x, *outputs, out=w.d_parameters, num_threads=num_threads
        )
        #: Of the last minibatch, those of scales that it gives.
        self.variances = likelihood._variances(
            x, outputs, threads_for(outputs[0].size, num_threads)
        )
        self._decoder_back(w, outputs, num_threads)
        if self.prior_kind != "standard":
            kl = self._prior_backward(w, mu, logvar, beta / len(w.z), num_threads)
        return value, kl

    def _decoded(self, w, num_threads):
        """The likelihood's parameters for w.z."""
        return self._decode(w.z, w.decoded, num_threads)

    def _decoder_back(self, w, outputs, num_threads):
        """From their gradients to those of the decoder's parameters, and w.d_z."""
        self.visible.backward(w.d_outputs, outputs)
        self._layers_back(w, w.z, w.d_z, num_threads)

    def _layers_back(self, w, inputs, d_inputs, num_threads):
        """From the gradients of the last layer's outputs to those of parameters and inputs."""
        d_biases = self.visible.cut(self.decoder.d_biases[-1][None])
        for d_output, part, d_bias in zip(w.d_outputs, w.d_parts, d_biases, strict=True):
            copy = part if len(d_biases) > 1 else None
            _bias_backward(d_output, copy, d_bias[0], num_threads)
        self.decoder.backward(inputs, w.decoded, w.d_decoded, d_inputs, num_threads)

    def refine(self, x, mu, logvar, likelihood, beta, steps, key, num_threads):
        """(mu, logvar) after so many steps of `refine_posterior` from those of the encoder."""
        found = refine_posterior(
            partial(self.decode_and_pull, num_threads=num_threads),
            x,
            mu,
            logvar,
            likelihood=likelihood,
            prior=self.prior(num_threads),
            beta=beta,
            steps=steps,
            rng=key,
            num_threads=num_threads,
        )
        return found.mu, found.logvar

    def _prior_backward(self, w, mu, logvar, weight, num_threads):
        """The estimated KL; the gradients of -weight times it by z and what the prior learns."""
        vamp = self.prior_kind == "vamp"
        prior = VampPrior(*w.pseudo_heads) if vamp else self.prior(num_threads)
        log_p, grad = prior._run(w.z, weight, num_threads)
        log_q = posterior_log_prob(w.z, mu, logvar, num_threads=num_threads)
        w.d_z += grad.z
        if vamp:
            w.d_latents[0, len(w.z) :], w.d_latents[1, len(w.z) :] = grad.mu, grad.logvar
        elif self.prior_kind == "mixture":
            for to, by in zip(self.d_mixture, grad[1:], strict=True):
                to[...] = by
        return log_q - float(log_p.mean())

    def encode(self, x, num_threads):
        """(mu, logvar) of a chunk of rows, as views."""
        return self._encode(self.visible.see(x), num_threads)

    def _encode(self, inputs, num_threads):
        buffers = self.encoder.buffers(len(inputs))
        return _columns(self.encoder.forward(inputs, buffers, num_threads), self.latent_dim)

    def scored(self, x):
        """What the likelihood reads of rows x."""
        return x

    def decode(self, z, num_threads, x=None):
        """The likelihood's parameters for a chunk of rows, as views; `x` is what they are to be."""
        return self._decode(z, self.decoder.buffers(len(z)), num_threads)

    def decode_and_pull(self, z, num_threads):
        """`decode`, and the function that takes gradients of its outputs back to z."""
        buffers = self.decoder.buffers(len(z))
        outputs = self._decode(z, buffers, num_threads)
        return outputs, pullback_of(self, buffers, outputs)

    def _decode(self, z, buffers, num_threads):
        return self.visible.parameters(self.decoder.forward(z, buffers, num_threads))


def restored(kind, network, steps, arrays):
    """The model that `arrays` came from: `Autoencoder`, say, and the arguments of that class."""
    found = {name: arrays[name] for name in ARRAYS}
    size, dtype = kind.size(**network), network["dtype"]
    for name, source in found.items():
        if source.shape != (size,) or source.dtype != dtype:
            raise ValueError(f"{name} is {source.dtype} {source.shape}, not {dtype} ({size},)")
    model = kind(**network)
    model.restore((steps, found))
    return model
