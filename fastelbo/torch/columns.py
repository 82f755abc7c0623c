"""A likelihood over blocks of columns."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from fastelbo.torch._bridge import kernels_of
from fastelbo.torch.likelihoods import Likelihood, as_likelihood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fastelbo.columns import Columns
    from fastelbo.torch._typing import AnyLikelihood


@dataclass(eq=False, repr=False)
class ColumnLikelihood(Likelihood):
    """Likelihoods of blocks of columns, (B, D); see :class:`fastelbo.ColumnLikelihood`.

    A decoder ends in ``torch.nn.Linear(width, likelihood.n_outputs)``.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Bernoulli, Categorical, ColumnLikelihood
    >>> likelihood = ColumnLikelihood([(Bernoulli(), [0, 2]), (Categorical(3), 1)])
    >>> likelihood.n_outputs
    5
    >>> likelihood.log_prob(torch.tensor([[1.0, 2.0, 0.0]]), torch.zeros(1, 5))
    tensor(-2.4849)
    """

    blocks: Sequence[tuple[AnyLikelihood, Columns]]
    _: KW_ONLY
    validate: bool = True

    def __post_init__(self):
        self.blocks = tuple([_block(block) for block in self.blocks])
        super().__post_init__()
        if any([part.held is not None for part, _ in self.blocks]):
            self.held = _HeldBlocks(self)

    def _make_kernels(self):
        blocks = [(part._make_kernels(), columns) for part, columns in self.blocks]
        return self._numpy(blocks)

    def _numpy(self, blocks):
        from fastelbo.columns import ColumnLikelihood as Own

        return Own(blocks, validate=self.validate, missing=self.missing)

    @property
    def n_outputs(self) -> int:
        """How many numbers the decoder gives for a row."""
        return self._outside.n_outputs

    @property
    def _outside(self):
        """The kernels as the decoder sees them: what tensors are held is not among its outputs."""
        if self.held is None:
            return self.kernels
        return self._numpy([(_fixed(part), columns) for part, columns in self.blocks])

    def split(self, outputs: Tensor) -> list[tuple[Tensor, ...]]:
        """The parameters of each block, as views of the decoder's outputs (..., P)."""
        outside = self._outside
        return [block.cut(outputs) for block in outside._blocks(outside._known_columns())]

    def couples_rows(self, reduction):
        return any([part.couples_rows(reduction) for part, _ in self.blocks])

    def _rows(self, x, parameters, mask, reduction):
        (outputs,) = parameters
        total = values = None
        blocks = self._make_kernels()._blocks(x.shape[-1])
        for block, (part, _) in zip(blocks, self.blocks, strict=True):
            columns = block.columns if isinstance(block.columns, slice) else block.columns.tolist()
            some = x[..., columns]
            seen = None if mask is None else mask.expand(x.shape)[..., columns]
            if self.missing == "nan" != part.missing:
                seen = ~some.isnan() if seen is None else seen & ~some.isnan()
            rows = part._rows(some, block.cut(outputs), seen, reduction)
            if reduction == "elementwise":
                if values is None:
                    values = rows.new_zeros((*rows.shape[:-1], x.shape[-1]))
                values[..., columns] = rows
            else:
                total = rows if total is None else total + rows
        return total if values is None else values

    @staticmethod
    def _like_parameters(a, axes, likelihood):
        columns = kernels_of(likelihood)._columns_of_outputs(a.shape[-1])
        return a[..., torch.as_tensor(columns, device=a.device)]


class _HeldBlocks:
    """What of the blocks is to be differentiated: among the outputs of `opened`, that are more."""

    def __init__(self, likelihood):
        self.outside = likelihood
        self.held = [part.held for part, _ in likelihood.blocks]
        self.parameters = ("outputs",)
        opened = [
            (part if part.held is None else part.held.opened, columns)
            for part, columns in likelihood.blocks
        ]
        self.opened = replace(likelihood, blocks=opened)
        kept = {str(i): h.registered for i, h in enumerate(self.held) if h and h.registered}
        #: Those that a module registers as its own, and may exchange.
        self.registered = nn.ModuleDict(kept) if kept else {}

    def values(self):
        return [tensor for held in self.held if held for tensor in held.values()]

    def join(self, outputs):
        """The outputs, and beside those of each block what it holds."""
        parts = []
        for given, held in zip(self.outside.split(outputs[0]), self.held, strict=True):
            some = given if held is None else held.join(given)
            some = [part.to(given[0].dtype).expand_as(given[0]) for part in some]
            parts += [part.flatten(outputs[0].ndim - 1) for part in some]
        return (torch.cat(parts, -1),)


def _block(block):
    likelihood, columns = block
    if not isinstance(columns, int | str | slice | list | tuple):
        columns = columns.tolist()
    return as_likelihood(likelihood), list(columns) if isinstance(columns, tuple) else columns


def _fixed(part):
    """The kernels of a likelihood that reads as many outputs as this one without what it holds."""
    if part.held is None:
        return part._make_kernels()
    return replace(part, **dict.fromkeys(part.held.names.values(), 1.0))._make_kernels()
