"""Columns of x that one likelihood has, and where a decoder's last layer has its parameters."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastelbo.likelihoods import Likelihood


class Block:
    """`count` columns of x, their likelihood, and the first of their outputs.

    The outputs are its parameters one after the other; of each there is a number for every column,
    or one for every class of it.
    """

    def __init__(self, likelihood: Likelihood, columns: slice | np.ndarray, count: int, start: int):
        self.likelihood = likelihood
        self.columns = columns
        self.count = count
        self.start = start

    @cached_property
    def width(self):
        """Outputs that are one parameter."""
        return self.count * self.likelihood._outputs_each

    @cached_property
    def stop(self):
        return self.start + self.width * len(self.likelihood.parameters)

    @cached_property
    def outputs(self):
        """Where each parameter is among the outputs."""
        starts = range(self.start, self.stop, self.width)
        return [slice(start, start + self.width) for start in starts]

    @property
    def numbers(self):
        """The columns by their numbers in x."""
        whole = isinstance(self.columns, slice)
        return np.arange(self.columns.start, self.columns.stop) if whole else self.columns

    def cut(self, outputs):
        """The parameters as views of the outputs (..., P) of all blocks."""
        parts = [outputs[..., where] for where in self.outputs]
        if self.likelihood._layout.more_axes:
            parts = [part.reshape(*part.shape[:-1], self.count, -1) for part in parts]
        return tuple(parts)

    def take(self, array):
        """Its columns of x, or of a mask: in place, or gathered; samples may be broadcast."""
        if array is None or isinstance(self.columns, slice):
            return None if array is None else array[..., self.columns]
        if array.ndim > 2 and array.strides[0] == 0:
            return np.broadcast_to(self.take(array[0]), (*array.shape[:-1], self.count))
        return np.take(array, self.columns, axis=-1)
