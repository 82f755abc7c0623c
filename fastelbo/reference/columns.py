"""A likelihood over blocks of columns."""

import inspect
import math

import numpy as np

from fastelbo.reference._common import as_float64
from fastelbo.reference.likelihoods import Likelihood, is_word


def parameters_of(likelihood):
    """How many parameters a likelihood reads."""
    _, *always = inspect.signature(likelihood.elements).parameters.values()
    always = [p for p in always if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    names = ("scale", "df", "theta", "concentration")
    given = [getattr(likelihood, name, 1.0) for name in names]
    read = sum(value is None or (is_word(value) and value == "learned") for value in given)
    return len(always) + read


class ColumnLikelihood(Likelihood):
    """The sum of likelihoods, each of some columns of x (B, D), from outputs (B, P).

    ``blocks`` are pairs (likelihood, columns). Outputs are the parameters of the first block, a
    number for each of its columns or, of a Categorical, for each class of them, then those of the
    next.

    Examples
    --------
    >>> from fastelbo.reference import Bernoulli, SquaredError
    >>> likelihood = ColumnLikelihood([(SquaredError(), [0, 2]), (Bernoulli(), [1])])
    >>> value, gradients = likelihood.log_prob_and_grad([[1.0, 0.5, 3.0]], [[1.0, 1.0, 0.0]])
    >>> round(value, 12), gradients  # -(3 - 1)^2 - log 2
    (-4.69314718056, (array([[0., 4., 0.]]),))
    """

    def __init__(self, blocks, *, validate=True, missing=None):
        self.blocks = blocks
        self.validate = validate
        self.missing = missing

    def log_prob_and_grad(self, x, outputs, *, mask=None, reduction="mean"):
        """(log_prob, a tuple of the gradient by outputs)."""
        x, outputs = as_float64(x, outputs)
        keep = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
        shape = outputs.shape[:-1]
        elements, total = np.zeros((*shape, x.shape[1])), 0.0
        gradient, start = np.zeros(outputs.shape), 0
        for likelihood, columns in self.blocks:
            some, seen = x[:, columns], keep[:, columns]
            if self.missing == "nan":
                seen = seen & ~np.isnan(some)
            several = parameters_of(likelihood)
            classes = (likelihood.classes,) if hasattr(likelihood, "classes") else ()
            stop = start + several * some.shape[1] * math.prod(classes)
            parts = np.split(outputs[..., start:stop], several, axis=-1)
            parts = [part.reshape(*shape, some.shape[1], *classes) for part in parts]
            value, grads = likelihood.log_prob_and_grad(
                some, *parts, mask=seen, reduction=reduction
            )
            if reduction == "elementwise":
                elements[..., columns] = value
            else:
                total = total + value
            grads = [g.reshape(*shape, -1) for g in grads]
            gradient[..., start:stop] = np.concatenate(grads, axis=-1)
            start = stop
        return elements if reduction == "elementwise" else total, (gradient,)

    def elements(self, x, outputs):
        """log p of every element, and the derivatives of each by its own outputs."""
        return self.log_prob_and_grad(x, outputs, reduction="elementwise")
