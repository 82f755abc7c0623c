"""The optimizer of every network here."""

import numpy as np

from fastelbo import _builds
from fastelbo._threads import threads_for

_kernels = _builds.kernels("network")

#: What is found out in training: the parameters, and Adam's moments of their gradients.
ARRAYS = ("parameters", "first_moments", "second_moments")


class Adam:
    """Adam, bias-corrected [1]_, one pass over flat arrays, uphill; with weight decay, AdamW [2]_.

    References
    ----------
    .. [1] Kingma, Ba. Adam: a method for stochastic optimization. ICLR 2015.
    .. [2] Loshchilov, Hutter. Decoupled weight decay regularization. ICLR 2019.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters, grads):
        self.parameters = parameters
        self.grads = grads
        self.first = np.zeros_like(parameters)
        self.second = np.zeros_like(parameters)
        self.steps = 0

    def arrays(self):
        """All that training has found out, by name."""
        return dict(zip(ARRAYS, (self.parameters, self.first, self.second), strict=True))

    def state(self):
        """Copies of all that steps change."""
        return self.steps, {name: array.copy() for name, array in self.arrays().items()}

    def restore(self, state):
        """Go back to what `state` gave."""
        self.steps, then = state
        for name, array in self.arrays().items():
            array[...] = then[name]

    def ascend(self, learning_rate, num_threads, weight_decay=0.0, max_grad_norm=None):
        """One step; before it, gradients longer than `max_grad_norm` are cut to that length."""
        if max_grad_norm is not None:
            norm = float(np.einsum("i,i->", self.grads, self.grads, dtype=np.float64)) ** 0.5
            if max_grad_norm < norm < np.inf:
                self.grads *= max_grad_norm / norm
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
            weight_decay,
            threads_for(self.parameters.size, num_threads),
        )
