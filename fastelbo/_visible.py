"""The visible side of networks: what the encoder sees of x, and what the decoder gives for it."""

import numpy as np

from fastelbo._arrays import SparseRows
from fastelbo._reading import dense


class Visible:
    """Of `features` columns of x, as a likelihood has them.

    The encoder sees numbers as they are, counts as log(1 + x), codes of classes as one-hot rows.
    Where values may be missing, `fill` stands for them, the mean of what is seen of each column
    of numbers, and a flag for every column follows, 1 where its value is missing.

    The decoder's last layer has the parameters of each block of columns, one after the other; the
    likelihood takes them as arrays of `widths`. ``scales`` are columns of the layer that begin at
    zero, so that every scale begins at one; ``positive`` are (array, columns of it) that pass
    through the exponential function.
    """

    def __init__(self, likelihood, features, fill=None):
        blocks = likelihood._blocks(features)
        self.likelihood = likelihood
        self.features = features
        self.fill = fill
        self.outputs = blocks[-1].stop
        together = blocks[0].likelihood is not likelihood
        #: Columns of each array that the likelihood takes.
        self.widths = (self.outputs,) if together else (features,) * len(likelihood.parameters)
        self.scales = [part for block in blocks for part in block.outputs[1:]]
        self.positive = [
            (0, part) if together else (i, slice(None))
            for block in blocks
            for i, (part, name) in enumerate(
                zip(block.outputs, block.likelihood.parameters, strict=True)
            )
            if name in block.likelihood._positive
        ]
        counted = np.zeros(features, bool)
        classes = {}
        for block in blocks:
            counted[block.columns] = block.likelihood._of_counts
            if block.likelihood._layout.more_axes:
                classes |= dict.fromkeys(block.numbers.tolist(), block.likelihood._outputs_each)
        #: How many classes columns have, by their numbers.
        self.classes = dict(sorted(classes.items()))
        numeric = np.setdiff1d(np.arange(features), list(classes))
        self.numeric = numeric if classes else slice(None)
        self.counted = slice(None) if counted.all() else np.flatnonzero(counted[self.numeric])
        self.numbers = len(numeric)
        flags = 0 if fill is None else features
        self.width = self.numbers + sum(classes.values()) + flags
        self._made_for = [
            (part.parameters, block.numbers.tolist(), part._of_counts, block.width)
            for block, part in ((block, block.likelihood) for block in blocks)
        ]
        self.all_counts = not classes and counted.all() and fill is None
        #: Whether the encoder sees x itself.
        self.plain = not classes and not counted.any() and fill is None

    @property
    def flags(self):
        """Columns of the encoder's input that say what is missing."""
        return slice(self.width if self.fill is None else self.width - self.features, self.width)

    def begin(self, encoder, decoder):
        """Of new weights of dense layers, None being other ones, those that are not drawn."""
        if encoder is not None:
            encoder.weights[0][self.flags] = 0
        for part in self.scales if decoder is not None else ():
            decoder.weights[-1][:, part] = 0

    def same(self, other):
        """Whether a network made for one of the two serves the other."""
        return self._made_for == other._made_for

    def learn(self, rows):
        """Find what stands for missing values, by all rows."""
        if self.fill is None:
            return
        total, count = 0.0, 0
        for x in rows.portions():
            numbers = self._numbers(x)
            seen = ~np.isnan(numbers)
            total = total + np.sum(numbers, axis=0, where=seen, dtype=np.float64)
            count = count + seen.sum(axis=0)
        self.fill = (total / np.maximum(count, 1)).astype(rows.dtype)

    def _numbers(self, x):
        """The columns that are no codes of classes, as the encoder sees them; a new array."""
        numbers = np.array(x[:, self.numeric])
        numbers[:, self.counted] = np.log1p(numbers[:, self.counted])
        return numbers

    def see(self, x, out=None):
        """What the encoder sees of rows of x, (N, width); x itself where that is all."""
        if self.plain and out is None:
            return x
        if type(x) is SparseRows:
            if self.all_counts and x.ascending:
                return x.into(np.empty(x.shape, x.dtype) if out is None else out, np.log1p)
            x = dense(x, x.dtype)
        out = np.empty((len(x), self.width), x.dtype) if out is None else out
        numbers, start = self._numbers(x), self.numbers
        if self.fill is not None:
            missing = np.isnan(x)
            out[:, self.flags] = missing
            np.copyto(numbers, self.fill, where=missing[:, self.numeric])
        out[:, :start] = numbers
        for column, count in self.classes.items():
            out[:, start : start + count] = x[:, column, None] == np.arange(count)
            start += count
        return out

    def cut(self, last):
        """The arrays that the likelihood takes, as views of the last layer's outputs (N, P)."""
        ends = np.cumsum(self.widths)
        return tuple(last[:, end - n : end] for end, n in zip(ends, self.widths, strict=True))

    def parameters(self, last):
        """The same, made positive in place where they must be."""
        outputs = self.cut(last)
        with np.errstate(over="ignore"):  # the ELBO tells
            for i, columns in self.positive:
                np.exp(outputs[i][:, columns], out=outputs[i][:, columns])
        return outputs

    def backward(self, gradients, outputs):
        """Take gradients by what was made positive back to before, in place."""
        for i, columns in self.positive:
            gradients[i][:, columns] *= outputs[i][:, columns]
