"""Networks of the user's own in the place of dense layers: see the notes of ``fastelbo.VAE``."""

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import shown

METHODS = ("forward", "backward", "parameters")


def check_network(network, name):
    """Complain unless it is None or has the methods of a network."""
    if network is None:
        return
    lacking = [method for method in METHODS if not callable(getattr(network, method, None))]
    if lacking or isinstance(network, type):
        found = f"got {shown(network)}, which has no {', '.join(lacking)}"
        if isinstance(network, type):
            found = f"give an object, not the class {network.__name__}"
        raise TypeError(f"{name} must have methods forward, backward and parameters: {found}")


def size_of(network):
    """How many parameters it has."""
    return sum(np.size(array) for array in network.parameters())


class OwnNetwork:
    """One of the user's, with the methods of `Dense`.

    Its parameters are copies of a part of the flat array, and its gradients are copied there, so
    that optimizer, states and pickles need not know of it. Buffers are [what is known, output].
    """

    def __init__(self, network, name, width, parameters, grads):
        self.network = network
        self.name = name
        self.width = width
        self.weights = list(network.parameters())
        for i, array in enumerate(self.weights):
            ours = isinstance(array, np.ndarray) and array.dtype.kind == "f"
            if not ours or not array.flags.writeable:
                found = f"a read-only {array.dtype} array" if ours else _described(array)
                raise TypeError(
                    f"{name}.parameters()[{i}] must be an array of floats that can be written to, "
                    f"got {found}"
                )
        self._flat = self._views(parameters)
        self._grads = self._views(grads)
        self.d_biases = [np.empty(width, parameters.dtype)]  # which its last layer may not have
        for ours, array in zip(self._flat, self.weights, strict=True):
            ours[...] = array

    def _views(self, flat):
        ends = np.cumsum([0, *(array.size for array in self.weights)])
        return [
            flat[start:end].reshape(array.shape)
            for array, start, end in zip(self.weights, ends, ends[1:], strict=False)
        ]

    def publish(self):
        """Give the network the parameters as they stand in the flat array."""
        for array, ours in zip(self.weights, self._flat, strict=True):
            array[...] = ours

    def initialise(self, generator, means=None):
        """It begins with the parameters that it came with."""

    def buffers(self, batch):
        return [None, np.empty((batch, self.width), self.d_biases[0].dtype)]

    def forward(self, x, outputs, num_threads):
        x = x.view()
        x.flags.writeable = False
        found = self.network.forward(x)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(
                f"{self.name}.forward must return (output, cache), it returned {_described(found)}"
            )
        output, outputs[0] = found
        outputs[1][...] = self._checked(output, (len(x), self.width), "forward: its output")
        return outputs[1]

    def backward(self, x, outputs, grads, d_x, num_threads):
        by_x, by_parameters = self._back(outputs, grads)
        grads[0] = by_x
        if not isinstance(by_parameters, list | tuple) or len(by_parameters) != len(self.weights):
            count = f"a list of {len(self.weights)} gradients, as many as there are parameters"
            raise TypeError(
                f"{self.name}.backward must return {count}, it returned {_described(by_parameters)}"
            )
        for i, (ours, gradient) in enumerate(zip(self._grads, by_parameters, strict=True)):
            ours[...] = self._checked(gradient, ours.shape, f"backward: its gradient {i}")
        if d_x is not None:
            self.input_gradient(grads, slice(None), d_x)

    def input_gradient(self, grads, rows, out):
        """The gradient of some rows of x, after `backward`."""
        shape = len(grads[1]), out.shape[1]
        out[...] = self._checked(grads[0], shape, "backward: its gradient of x")[rows]

    def backward_to_input(self, outputs, grads):
        return np.asarray(self._back(outputs, grads)[0])

    def _back(self, outputs, grads):
        found = self.network.backward(outputs[0], grads[1])
        if not isinstance(found, tuple) or len(found) != 2:
            what = "(gradient of x, gradients of parameters)"
            raise TypeError(
                f"{self.name}.backward must return {what}, it returned {_described(found)}"
            )
        return found

    def _checked(self, array, shape, what):
        if array is None:
            raise TypeError(f"{self.name}.{what} must be an array of shape {shape}, got None")
        array = _arrays.as_floats(array, f"{self.name}.{what}")
        if array.shape != shape:
            raise _arrays.shape_error(f"{self.name}.{what}", array.shape, str(shape))
        return array

    def probe(self, x, needs_x):
        """Complain of what rows x show: shapes, and what is not finite before any training."""
        outputs, grads = self.buffers(len(x)), self.buffers(len(x))
        self.forward(x, outputs, 1)
        self._check_finite(outputs[1], "forward: its output")
        grads[1][...] = 1
        d_x = np.empty_like(x) if needs_x else None
        self.backward(x, outputs, grads, d_x, 1)
        for i, gradient in enumerate(self._grads):
            self._check_finite(gradient, f"backward: its gradient {i}")

    def _check_finite(self, array, what):
        finite = np.isfinite(array)
        if not finite.all():
            at = tuple(map(int, np.argwhere(~finite)[0]))
            raise ValueError(f"{self.name}.{what} has {array[at]} at {at}, before any training")


def _described(value):
    """What came instead of something else."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return shown(value)
