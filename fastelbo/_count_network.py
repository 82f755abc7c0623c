"""The networks of ``CountVAE``: as those of a VAE, with cells' library sizes and batches.

The encoder sees log(1 + x) beside the one-hot row of the batch; the decoder is given z beside the
same, and the softmax of what it says are the shares of genes in a cell. Times the library size they
are the means of counts. The dispersion of each gene is a parameter of its own.
"""

from functools import partial

import numpy as np

from fastelbo._arguments import check_choice
from fastelbo._arrays import SparseRows
from fastelbo._network import Autoencoder, Workspace
from fastelbo.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from fastelbo.discrete import Poisson
from fastelbo.likelihoods import sigmoid

#: By the names that single-cell models give them.
LIKELIHOODS = {
    "nb": NegativeBinomial,
    "zinb": ZeroInflatedNegativeBinomial,
    "poisson": partial(Poisson, log_input=False),
}

#: The logits of further zeros, at first.
FURTHER = -4.0
#: A theta from which on rates no longer vary, as far as float64 tells.
VARIES = 1e15


def likelihood_of_counts(name):
    """The Likelihood of that name."""
    check_choice(name, "likelihood", tuple(LIKELIHOODS))
    return LIKELIHOODS[name]()


class CountVisible:
    """What the encoder sees of cells, and what the decoder gives for them; as `Visible`.

    `labels` are those of batches, None without any.
    """

    fill, plain = None, False

    def __init__(self, likelihood, features, labels=None):
        self.likelihood, self.features, self.labels = likelihood, features, labels
        self.dispersed = "theta" in likelihood.parameters
        self.inflated = "zero_logits" in likelihood.parameters
        self.outputs = features * (1 + self.inflated)
        self.first_logits = 0.0

    @property
    def batches(self):
        return 0 if self.labels is None else len(self.labels)

    @property
    def width(self):
        return self.features + self.batches

    def same(self, other):
        return self.likelihood.parameters == other.likelihood.parameters

    def learn(self, cells):
        """Which batches there are, and with what shares of genes to begin."""
        self.labels = cells.labels
        totals = sum(counts.sum(axis=0, dtype=np.float64) for counts in cells.portions())
        self.first_logits = np.log(totals + 1)

    def begin(self, encoder, decoder):
        """Of new weights, those that are not drawn: shares are those of all cells together, and
        few zeros are further ones."""
        decoder.weights[-1][:, self.features :] = 0
        decoder.biases[-1][: self.features] = self.first_logits
        decoder.biases[-1][self.features :] = FURTHER

    def see(self, cells, out=None):
        """log(1 + x) beside one-hot rows, (B, width)."""
        out = np.empty((len(cells), self.width)) if out is None else out
        seen, counts = out[:, : self.features], cells.counts
        if type(counts) is SparseRows and counts.ascending:
            counts.into(seen, np.log1p)
        else:
            np.log1p(cells.dense(seen), out=seen)
        self.tell(cells.codes, out[:, self.features :])
        return out

    @staticmethod
    def tell(codes, out):
        """One-hot rows of batches; of one code for all rows, too."""
        if codes is not None:
            np.equal(codes[:, None], np.arange(out.shape[1]), out=out, casting="unsafe")

    def cut(self, last):
        """Logits of shares and, if there are some, of zeros: views of the last layer's outputs."""
        return (last[:, : self.features], last[:, self.features :])[: 1 + self.inflated]


class CountWorkspace(Workspace):
    """Every array that a training step writes."""

    def __init__(self, model, batch):
        super().__init__(model, batch)
        inputs = batch, model.latent_dim + model.visible.batches
        self.codes, self.d_codes = np.empty((2, *inputs), model.dtype)
        self.d_theta = np.empty(model.log_theta.shape, model.dtype)
        self.d_parameters = self.d_outputs
        if model.visible.dispersed:
            self.d_parameters = self.d_outputs[0], self.d_theta, *self.d_outputs[1:]


class CountAutoencoder(Autoencoder):
    """An Autoencoder of cells, `SomeCells`; ``log_theta`` (G,) is trained with it."""

    Workspace = CountWorkspace

    def __init__(self, visible, *shape, **network):
        super().__init__(visible, *shape, **network)
        own = self._dispersions(visible)
        start = self.adam.parameters.size - own
        self.log_theta, self.d_log_theta = self.adam.parameters[start:], self.adam.grads[start:]

    @staticmethod
    def _dispersions(visible):
        return visible.features if visible.dispersed else 0

    @staticmethod
    def _widths(visible, hidden, latent_dim):
        down, (_, *up) = Autoencoder._widths(visible, hidden, latent_dim)
        return down, (latent_dim + visible.batches, *up)

    @classmethod
    def size(cls, visible, *shape, **network):
        return super().size(visible, *shape, **network) + cls._dispersions(visible)

    def __reduce__(self):
        make, (_, *rest) = super().__reduce__()
        return make, (CountAutoencoder, *rest)

    @property
    def theta(self):
        """The inverse dispersion of each gene, (G,)."""
        with np.errstate(over="ignore"):  # infinity is Poisson's
            return np.exp(self.log_theta)

    def initialise(self, generator, x=None):
        super().initialise(generator, x)
        self.log_theta[...] = 0

    def encode(self, cells, num_threads):
        inputs = np.empty((len(cells), self.visible.width), self.dtype)
        return self._encode(self.visible.see(cells, inputs), num_threads)

    def scored(self, cells):
        return cells.counts

    def decode(self, z, num_threads, cells):
        """Parameters of p(x|z) with the library sizes and batches of these cells.

        They are as many as z, or one for all; theta is one for all rows.
        """
        return self._decode_with(z, self.decoder.buffers(len(z)), num_threads, cells)

    def _decode_with(self, z, buffers, num_threads, cells):
        inputs = np.empty((len(z), self.decoder.widths[0]), self.dtype)
        return self._parameters(self._inputs(z, cells, inputs), buffers, num_threads, cells)

    def _inputs(self, z, cells, out):
        out[:, : self.latent_dim] = z
        self.visible.tell(cells.codes, out[:, self.latent_dim :])
        return out

    def _parameters(self, inputs, buffers, num_threads, cells):
        mean, *logits = self.visible.cut(self.decoder.forward(inputs, buffers, num_threads))
        scaled_softmax(mean, cells.library[:, None].astype(self.dtype))
        theta = [self.theta] if self.visible.dispersed else []
        return (mean, *theta, *logits)

    def _decoded(self, w, num_threads):
        return self._parameters(self._inputs(w.z, w.x, w.codes), w.decoded, num_threads, w.x)

    def _decoder_back(self, w, outputs, num_threads):
        d_mean, mean = w.d_outputs[0], outputs[0]
        scaled_softmax_backward(d_mean, mean)
        if self.visible.dispersed:
            np.multiply(w.d_theta, outputs[1], out=self.d_log_theta)
        self._layers_back(w, w.codes, w.d_codes, num_threads)
        w.d_z[...] = w.d_codes[:, : self.latent_dim]

    def decode_and_pull(self, z, num_threads, cells):
        """`decode`, theta a row for each, and the way back to z."""
        buffers = self.decoder.buffers(len(z))
        outputs = self._decode_with(z, buffers, num_threads, cells)

        def pullback(d_mean, *others):
            grads = self.decoder.buffers(len(z))
            by_shares, *by_zeros = self.visible.cut(grads[-1])
            by_shares[...] = d_mean
            scaled_softmax_backward(by_shares, outputs[0])
            if by_zeros:
                by_zeros[0][...] = others[-1]
            return self.decoder.backward_to_input(buffers, grads)[:, : self.latent_dim]

        return tuple(np.broadcast_to(a, (len(z), a.shape[-1])) for a in outputs), pullback


def scaled_softmax(h, scale):
    """scale (B, 1) times the softmax of each row of h, in place."""
    h -= h.max(axis=1, keepdims=True)
    np.exp(h, out=h)
    h *= scale / h.sum(axis=1, keepdims=True)


def scaled_softmax_backward(grad, scaled):
    """From the gradient by what `scaled_softmax` gave to that by h, in place."""
    grad *= scaled
    total = scaled.sum(axis=1, keepdims=True)
    grad -= scaled * np.divide(
        grad.sum(axis=1, keepdims=True), total, out=np.zeros_like(total), where=total > 0
    )


def drawn_counts(visible, outputs, generator):
    """Counts of a likelihood's parameters, int64."""
    rate, *others = outputs
    if visible.dispersed:
        theta = np.minimum(others[0], VARIES)
        rate = rate * (generator.standard_gamma(theta, rate.shape) / theta)
    counts = generator.poisson(rate)
    if visible.inflated:
        counts[generator.random(counts.shape) < sigmoid(others[-1])] = 0
    return counts
