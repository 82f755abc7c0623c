"""The networks of a VAE on NumPy's matrix products; all that lies between those is a kernel.

Parameters of encoder and decoder live in one flat array, their gradients in another, so that the
optimizer is one pass. Dense layers: x is (B, widths[0]), the output of layer i (B, widths[i + 1]).
"""

from itertools import pairwise

import numpy as np

from fastelbo import _builds
from fastelbo._threads import threads_for
from fastelbo.divergences import kl_standard_normal_and_grad
from fastelbo.locations import Gaussian
from fastelbo.posterior import reparameterize_backward, reparameterize_kl
from fastelbo.priors import MixtureOfGaussians, VampPrior

_kernels = _builds.kernels("network")
_LOG_Q = Gaussian("learned").log_prob

PRIORS = ("standard", "mixture", "vamp")

#: What is found out in training: the parameters, and Adam's moments of their gradients.
ARRAYS = ("parameters", "first_moments", "second_moments")

#: Rows that go through a network at once when nothing is trained.
CHUNK = 1024


def _bias_backward(grad, activation, copy, sums, num_threads):
    """Column sums of grad (B, H), masked by a ReLU before and copied on the way if so wished."""
    _kernels.bias_backward(grad, activation, copy, sums, threads_for(grad.size, num_threads))


class Dense:
    """Dense layers with a ReLU between each two; weights are (in, out) views of a flat array."""

    def __init__(self, widths, parameters, grads):
        """Take the first `size(widths)` elements of both flat arrays."""
        self.widths = widths
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

    def initialise(self, generator):
        """He's normal weights before a ReLU, Glorot's uniform ones at the end, no bias."""
        for i, w in enumerate(self.weights):
            n, m = w.shape
            if i < len(self.weights) - 1:
                w[...] = generator.standard_normal(w.shape) * np.sqrt(2 / n)
            else:
                w[...] = generator.uniform(-1, 1, w.shape) * np.sqrt(6 / (n + m))
        for b in self.biases:
            b[...] = 0

    def buffers(self, batch):
        """One array per layer, for its output or for the gradient of that."""
        return [np.empty((batch, b.size), b.dtype) for b in self.biases]

    def forward(self, x, outputs, num_threads):
        """Fill `outputs` (see `buffers`); returns the last."""
        last = len(outputs) - 1
        for i, h in enumerate(outputs):
            np.matmul(x, self.weights[i], out=h)
            _kernels.add_bias(h, self.biases[i], i < last, threads_for(h.size, num_threads))
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
                _bias_backward(d_below, below, None, self.d_biases[i - 1], num_threads)
            elif d_x is not None:
                np.matmul(grads[i], self.weights[i].T, out=d_x)


class Adam:
    """Adam, bias-corrected [1]_, one pass over flat arrays, uphill.

    References
    ----------
    .. [1] Kingma, Ba. Adam: a method for stochastic optimization. ICLR 2015.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters, grads):
        self.parameters = parameters
        self.grads = grads
        self.first = np.zeros_like(parameters)
        self.second = np.zeros_like(parameters)
        self.steps = 0

    def ascend(self, learning_rate, num_threads):
        self.steps += 1
        _kernels.adam(
            self.parameters,
            self.grads,
            self.first,
            self.second,
            self.steps,
            learning_rate,
            self.BETA1,
            self.BETA2,
            self.EPSILON,
            threads_for(self.parameters.size, num_threads),
        )


class _Workspace:
    """Every array that a training step on `batch` rows writes.

    Pseudo-inputs go through the encoder as further rows.
    """

    def __init__(self, model, batch):
        dtype, latent, features = model.dtype, model.latent_dim, model.features
        rows = batch + len(model.pseudo_inputs)
        self.inputs = np.empty((rows, features), dtype)
        self.x = np.empty((batch, features), dtype) if model.of_counts else self.inputs[:batch]
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
        self.outputs = _columns(self.decoded[-1], features)
        self.d_parts = _columns(self.d_decoded[-1], features)
        self.d_outputs = (self.d_decoded[-1],)
        if model.outputs > 1:
            self.d_outputs = tuple(np.empty((model.outputs, batch, features), dtype))


def _columns(a, width):
    """Views of `width` columns each."""
    return tuple(a[:, i : i + width] for i in range(0, a.shape[1], width))


class Autoencoder:
    """Encoder to (mu, logvar), decoder to the likelihood's parameters, and their optimizer.

    A prior of `components` is learned with them: a mixture, or the pseudo-inputs of a VampPrior. A
    MixtureOfGaussians that is given stays as it is.

    Of the decoder's outputs, those whose numbers are in `positive` pass through the exponential
    function. What the encoder sees of counts is log(1 + x), and so are pseudo-inputs.
    """

    def __init__(
        self,
        features,
        hidden,
        latent_dim,
        outputs,
        dtype,
        prior="standard",
        components=0,
        positive=(),
        of_counts=False,
    ):
        self.features = features
        self.hidden = tuple(hidden)
        self.latent_dim = latent_dim
        self.outputs = outputs
        self.positive = tuple(positive)
        self.of_counts = of_counts
        self.dtype = np.dtype(dtype)
        down, up = self._widths(features, self.hidden, latent_dim, outputs)
        self.given_prior = None if isinstance(prior, str) else prior
        self.prior_kind = prior if isinstance(prior, str) else "given"
        self.components = components
        first = Dense.size(down)
        last = first + Dense.size(up)
        size = self.size(features, self.hidden, latent_dim, outputs, prior, components)
        parameters, grads = np.zeros((2, size), self.dtype)
        self.encoder = Dense(down, parameters[:first], grads[:first])
        self.decoder = Dense(up, parameters[first:last], grads[first:last])
        self.mixture = self._mixture_views(parameters[last:])
        self.d_mixture = self._mixture_views(grads[last:])
        shape = components if self.prior_kind == "vamp" else 0, features
        self.pseudo_inputs, self.d_pseudo_inputs = (
            flat[last : last + shape[0] * shape[1]].reshape(shape) for flat in (parameters, grads)
        )
        self.adam = Adam(parameters, grads)
        self._workspaces = {}

    @staticmethod
    def _widths(features, hidden, latent_dim, outputs):
        return (features, *hidden, 2 * latent_dim), (latent_dim, *hidden[::-1], outputs * features)

    @classmethod
    def size(cls, features, hidden, latent_dim, outputs, prior, components):
        """How many parameters networks and prior have."""
        layers = cls._widths(features, hidden, latent_dim, outputs)
        learned = {"mixture": 2 * latent_dim + 1, "vamp": features}
        each = learned.get(prior, 0) if isinstance(prior, str) else 0
        return sum(map(Dense.size, layers)) + each * components

    def _mixture_views(self, flat):
        """(logits (C,), mu (C, L), logvar (C, L)) of a learned mixture; nothing without one."""
        if self.prior_kind != "mixture":
            return ()
        mu, logvar = flat[self.components :].reshape(2, self.components, self.latent_dim)
        return flat[: self.components], mu, logvar

    @property
    def largest_layer(self):
        """Weights of the largest layer: multiplications of its product, for each row."""
        return max(w.size for w in (*self.encoder.weights, *self.decoder.weights))

    def prior(self, num_threads):
        """The prior as it is now, None being the standard normal."""
        if self.prior_kind == "mixture":
            return MixtureOfGaussians(*self.mixture)
        if self.prior_kind == "vamp":
            return VampPrior(*self._encode(self.pseudo_inputs, num_threads))
        return self.given_prior

    def __reduce__(self):
        # Views of the flat arrays would be copied one by one, and no longer be views.
        shape = (
            self.features,
            self.hidden,
            self.latent_dim,
            self.outputs,
            self.dtype.name,
            self.prior_kind if self.given_prior is None else self.given_prior,
            self.components,
            self.positive,
            self.of_counts,
        )
        return restored, (shape, self.adam.steps, self.arrays())

    def arrays(self):
        """All that training has found out, by name."""
        return dict(
            zip(ARRAYS, (self.adam.parameters, self.adam.first, self.adam.second), strict=True)
        )

    def initialise(self, generator, x=None):
        """New weights; components begin where a standard normal has its mass, or at rows of x."""
        self.encoder.initialise(generator)
        self.decoder.initialise(generator)
        # Every scale begins at one: logvar and what the decoder gives besides the mean are zero.
        self.encoder.weights[-1][:, self.latent_dim :] = 0
        self.decoder.weights[-1][:, self.features :] = 0
        if self.prior_kind == "mixture":
            self.mixture[1][...] = generator.standard_normal(self.mixture[1].shape)
        elif self.prior_kind == "vamp":
            few = len(x) < self.components
            chosen = x[generator.choice(len(x), self.components, replace=few)]
            self.pseudo_inputs[...] = self._seen(chosen)

    def _workspace(self, batch):
        if batch not in self._workspaces:
            if len(self._workspaces) == 2:  # whole minibatches and what is left over
                self._workspaces.clear()
            self._workspaces[batch] = _Workspace(self, batch)
        return self._workspaces[batch]

    def step(self, x, rows, likelihood, beta, free_bits, rng, learning_rate, num_threads):
        """One step of training on x[rows]; returns the minibatch's mean log-likelihood and KL."""
        batch = len(rows)
        w = self._workspace(batch)
        np.take(x, rows, axis=0, out=w.x, mode="clip")
        if self.of_counts:
            np.log1p(w.x, out=w.inputs[:batch])
        w.inputs[batch:] = self.pseudo_inputs
        self.encoder.forward(w.inputs, w.encoded, num_threads)
        _, kl = reparameterize_kl(
            w.mu, w.logvar, rng=rng, free_bits=free_bits, out=w.z, num_threads=num_threads
        )
        self._decode(w.z, w.decoded, num_threads)
        value, _ = likelihood.log_prob_and_grad(
            w.x, *w.outputs, out=w.d_outputs, num_threads=num_threads
        )

        for i in self.positive:
            w.d_outputs[i][...] *= w.outputs[i]
        d_biases = _columns(self.decoder.d_biases[-1][None], self.features)
        for d_output, part, d_bias in zip(w.d_outputs, w.d_parts, d_biases, strict=True):
            copy = part if self.outputs > 1 else None
            _bias_backward(d_output, None, copy, d_bias[0], num_threads)
        self.decoder.backward(w.z, w.decoded, w.d_decoded, w.d_z, num_threads)
        floored = free_bits != 0.0
        estimated = self.prior_kind != "standard"
        if estimated:
            kl = self._prior_backward(w, beta / batch, num_threads)
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
        d_biases = _columns(self.encoder.d_biases[-1][None], self.latent_dim)
        for d_head, part, d_bias in zip(w.d_latents, w.d_heads, d_biases, strict=True):
            _bias_backward(d_head, None, part, d_bias[0], num_threads)
        self.encoder.backward(w.inputs, w.encoded, w.d_encoded, None, num_threads)
        if self.prior_kind == "vamp":
            first = self.encoder.weights[0]
            np.matmul(w.d_encoded[0][batch:], first.T, out=self.d_pseudo_inputs)
        self.adam.ascend(learning_rate, num_threads)
        return value, kl

    def _prior_backward(self, w, weight, num_threads):
        """The estimated KL; the gradients of -weight times it by z and what the prior learns."""
        vamp = self.prior_kind == "vamp"
        prior = VampPrior(*w.pseudo_heads) if vamp else self.prior(num_threads)
        log_p, grad = prior._run(w.z, weight, num_threads)
        log_q = _LOG_Q(w.z, w.mu, 0.5 * w.logvar, num_threads=num_threads)
        w.d_z += grad.z
        if vamp:
            w.d_latents[0, len(w.z) :], w.d_latents[1, len(w.z) :] = grad.mu, grad.logvar
        elif self.prior_kind == "mixture":
            for to, by in zip(self.d_mixture, grad[1:], strict=True):
                to[...] = by
        return log_q - float(log_p.mean())

    def encode(self, x, num_threads):
        """(mu, logvar) of a chunk of rows, as views."""
        return self._encode(self._seen(x), num_threads)

    def _seen(self, x):
        return np.log1p(x) if self.of_counts else x

    def _encode(self, inputs, num_threads):
        buffers = self.encoder.buffers(len(inputs))
        return _columns(self.encoder.forward(inputs, buffers, num_threads), self.latent_dim)

    def decode(self, z, num_threads):
        """The likelihood's parameters for a chunk of rows, as views."""
        return self._decode(z, self.decoder.buffers(len(z)), num_threads)

    def _decode(self, z, buffers, num_threads):
        outputs = _columns(self.decoder.forward(z, buffers, num_threads), self.features)
        with np.errstate(over="ignore"):  # the ELBO tells
            for i in self.positive:
                np.exp(outputs[i], out=outputs[i])
        return outputs


def restored(shape, steps, arrays):
    """The model that `Autoencoder.arrays` came from; shape is that class's arguments."""
    found = {name: arrays[name] for name in ARRAYS}
    size = Autoencoder.size(*shape[:4], *shape[5:7])
    for name, source in found.items():
        if source.shape != (size,) or source.dtype != shape[4]:
            raise ValueError(f"{name} is {source.dtype} {source.shape}, not {shape[4]} ({size},)")
    model = Autoencoder(*shape)
    for name, target in model.arrays().items():
        target[...] = found[name]
    model.adam.steps = steps
    return model
