"""Row of likelihoods over blocks of columns."""

from dataclasses import dataclass, replace

import numpy as np

from fastelbo._catalogue import discrete, likelihoods
from fastelbo._catalogue.likelihoods import Variant, row_of
from fastelbo._catalogue.sizes import STANDARD


@dataclass(frozen=True)
class _Blocks(Variant):
    """Forms of likelihoods, each of some of seven columns."""

    blocks: tuple = ()

    def make(self, module):
        blocks = [(variant.make(module), columns) for variant, columns in self.blocks]
        return module.ColumnLikelihood(blocks, **self.options)


def _numbers(columns):
    return np.arange(7)[columns]


def _each(blocks, x, outputs):
    """(variant, columns, its part of x, its parameters, where they are among the outputs)."""
    start = 0
    for variant, columns in blocks:
        count, parts = len(_numbers(columns)), []
        for axes in variant.parameters.values():
            classes = variant.arguments if axes.endswith("C") else ()
            shape = (*outputs.shape[:-1], count, *classes)
            stop = start + int(np.prod(shape[outputs.ndim - 1 :]))
            parts.append((outputs[..., start:stop].reshape(shape), slice(start, stop)))
            start = stop
        yield variant, columns, x[..., columns], parts


def _of(*blocks):
    """(what cancels in elements, the sizes of the derivatives, how x is drawn)."""

    def extra(x, outputs):
        sizes = np.zeros(np.broadcast_shapes(x.shape, (*outputs.shape[:-1], 7)))
        for variant, columns, some, parts in _each(blocks, x, outputs):
            sizes[..., columns] = variant.extra(some, *(part for part, _ in parts))
        return sizes

    def of_derivatives(x, outputs):
        sizes = np.zeros(outputs.shape)
        for variant, _, some, parts in _each(blocks, x, outputs):
            given = [part for part, _ in parts]
            for size, (part, where) in zip(variant.sizes, parts, strict=True):
                each = np.broadcast_to(size(some, *given), part.shape)
                sizes[..., where] = each.reshape(sizes[..., where].shape)
        return sizes

    def draw(rng, shape):
        x = np.empty(shape)
        for variant, columns in blocks:
            make = variant.draws.get("x", likelihoods.uniform)
            x[..., columns] = make(rng, (*shape[:-1], len(_numbers(columns))))
        return x

    return extra, (of_derivatives,), draw


def _torch(torch, x, outputs):
    normal = torch.distributions.Normal(outputs[:, 2:5], outputs[:, 5:8].exp())
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    labels = torch.distributions.Categorical(logits=outputs[:, 8:].unflatten(1, (2, 4)))
    return torch.cat(
        [
            -bce(outputs[:, :2], x[:, :2], reduction="none"),
            normal.log_prob(x[:, [2, 5, 3]]),
            labels.log_prob(x[:, [4, 6]]),
        ],
        1,
    )


MIXED = (
    (replace(likelihoods.BERNOULLI, draws={"x": discrete.up_to(1)}), slice(0, 2)),
    (likelihoods.GAUSSIAN_LEARNED, [2, 5, 3]),
    (discrete.OF_CLASSES, [4, 6]),
)
EXTRA, SIZES, DRAW = _of(*MIXED)
COLUMNS = _Blocks(
    "ColumnLikelihood",
    "ColumnLikelihood",
    (),
    {"outputs": "BP"},
    EXTRA,
    SIZES,
    draws={"x": DRAW},
    fixed={"D": (7,), "P": 16},
    peers={"torch": _torch},
    blocks=MIXED,
)
VARIANTS = (COLUMNS,)
ROWS = (
    replace(
        row_of("blocks of columns", COLUMNS, extents={**STANDARD, "B": 4096}, native=False),
        not_in_jax="a sum, which XLA compiles as it is written: log_prob of each block of columns",
    ),
)
