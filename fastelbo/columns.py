"""A likelihood over blocks of columns: each kind of column of a table has one of its own."""

from __future__ import annotations

import copy
from operator import is_
from typing import TYPE_CHECKING

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import shown
from fastelbo._blocks import Block
from fastelbo._named import as_likelihood
from fastelbo.likelihoods import Likelihood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from fastelbo._typing import AnyLikelihood, FloatArray, Missing

    Columns = int | str | slice | Sequence[int] | Sequence[str] | Sequence[bool] | ArrayLike


class ColumnLikelihood(Likelihood):
    """Several likelihoods, each of a block of the columns of x (B, D): a table of mixed kinds.

    log p(x | outputs) is the sum over blocks, which are independent given the outputs: one pass a
    block. Columns that lie side by side are read in place, others are gathered first. A block is
    a pair, as transformer and columns are in scikit-learn's ColumnTransformer.

    The decoder gives one array, ``outputs`` (B, P): the parameters of the first block, one after
    the other, then those of the next. A parameter has a number for each column of its block, in
    the order of its columns, and one for each class of a :class:`Categorical`, the classes of a
    column side by side. ``n_outputs`` is P, and ``split`` cuts outputs into parameters.

    Parameters
    ----------
    blocks : list of (likelihood, columns)
        Any likelihood whose parameters have the shape of x, or its name, and
        ``Categorical(classes)``, which reads codes 0, 1, ... Columns are an int, a list of ints, a
        slice or a mask of booleans; :class:`VAE` takes names, too, where it is given a DataFrame.
        Every column must belong to one block.
    validate : bool, optional
        Raise ValueError where something lies outside the domain of its block.
    missing : {None, "nan"}, optional
        ``"nan"``: NaN in x marks a missing value, in every block; else in those that say so.

    Notes
    -----
    ``mean`` has the shape of x: of classes it gives the most probable one.

    Examples
    --------
    >>> import fastelbo
    >>> likelihood = fastelbo.ColumnLikelihood(
    ...     [
    ...         (fastelbo.Gaussian("learned"), [0, 2]),
    ...         (fastelbo.Bernoulli(), 1),
    ...         (fastelbo.Categorical(3), 3),
    ...     ]
    ... )
    >>> likelihood.n_outputs  # two means, two log scales, a logit, three logits
    8
    >>> x = [[0.0, 1.0, 0.0, 2]]
    >>> round(likelihood.log_prob(x, [[0.0] * 8]), 6)  # -log(2 pi) - log 2 - log 3
    -3.629637
    >>> likelihood.mean([[5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    array([[5. , 0.5, 6. , 2. ]])
    """

    parameters = ("outputs",)
    _fuses_latents = False
    _reads_halves = False

    def __init__(
        self,
        blocks: Sequence[tuple[AnyLikelihood, Columns]],
        *,
        validate: bool = True,
        missing: Missing = None,
    ) -> None:
        super().__init__(validate=validate, missing=missing)
        if not isinstance(blocks, list | tuple) or len(blocks) == 0:
            raise TypeError(f"blocks must be a list of (likelihood, columns), got {shown(blocks)}")
        self.blocks = blocks
        self._set_blocks([_checked_block(i, block) for i, block in enumerate(blocks)])

    def _set_blocks(self, pairs):
        #: (likelihood, columns) of each block, checked.
        self._pairs = pairs
        self._layout = _arrays.Layout(width_of=self._width_of)
        #: What `_blocks` has made, by the number of columns of x, and of what.
        self._made = {}
        #: How many columns x must have, None where only x tells.
        self._columns = _number_of([columns for _, columns in pairs])
        if self._columns is not None:
            self._blocks(self._columns)

    def _width_of(self, columns):
        """Of the outputs, for so many columns of x."""
        return self._blocks(columns)[-1].stop

    @property
    def n_outputs(self) -> int:
        """P, the number of decoder outputs of a row."""
        return self._width_of(self._known_columns())

    def _known_columns(self):
        if self._columns is None:
            raise ValueError(
                "blocks have names, slices without an end, or columns counted from the end: only x "
                "tells how many outputs there are"
            )
        return self._columns

    def split(self, outputs: ArrayLike) -> list[tuple[FloatArray, ...]]:
        """The parameters of each block, as views of the decoder's outputs.

        Parameters
        ----------
        outputs : array_like, shape (..., P)

        Returns
        -------
        list of tuple of ndarray
            Of each block its parameters, (..., columns), of a Categorical (..., columns, classes).

        Examples
        --------
        >>> import fastelbo
        >>> blocks = [(fastelbo.Gaussian("learned"), [0, 1]), (fastelbo.Categorical(3), 2)]
        >>> likelihood = fastelbo.ColumnLikelihood(blocks)
        >>> [[part.shape for part in parts] for parts in likelihood.split([[0.0] * 7])]
        [[(1, 2), (1, 2)], [(1, 1, 3)]]
        """
        outputs = _arrays.as_floats(outputs, "outputs")
        self._check_over([outputs])
        return [block.cut(outputs) for block in self._blocks(self._columns)]

    def _blocks(self, columns):
        """The blocks over so many columns, their likelihoods as they run: made anew where something
        of those has been set."""
        states = [vars(likelihood) for likelihood, _ in self._pairs]
        if columns in self._made:
            before, blocks = self._made[columns]
            if all(map(is_, states, before)):
                return blocks
        blocks, start = [], 0
        for (likelihood, _), numbers in zip(self._pairs, self._placed(columns), strict=True):
            ready = self._ready(likelihood, numbers)
            blocks.append(Block(ready, _in_place(numbers), len(numbers), start))
            start = blocks[-1].stop
        self._made[columns] = states, blocks
        return blocks

    def __getstate__(self):
        return {**super().__getstate__(), "_made": {}}

    def _placed(self, columns):
        """The numbers of each block's columns; complains unless each is in one block."""
        owner, places = np.full(columns, -1), []
        for i, (_, given) in enumerate(self._pairs):
            numbers = _numbers(i, given, columns)
            if (owner[numbers] >= 0).any():
                number = numbers[owner[numbers] >= 0][0]
                raise ValueError(
                    f"blocks overlap: column {number} is in block {owner[number]} and in block "
                    f"{i}, but each must belong to one"
                )
            if len(np.unique(numbers)) < len(numbers):
                raise ValueError(f"columns of block {i}: {_said(given)} has one twice")
            owner[numbers] = i
            places.append(numbers)
        if (owner < 0).any():
            left = _said(np.flatnonzero(owner < 0).tolist())
            if columns == self._columns:  # as the blocks have it: there need not be any x yet
                raise ValueError(
                    f"blocks leave over columns {left}: each up to the last that one has, "
                    f"{columns - 1}, must belong to one block"
                )
            raise ValueError(
                f"blocks leave over columns {left} of x, whose shape is (batch, {columns}): each "
                "must belong to one block"
            )
        return places

    def _columns_of_outputs(self, columns):
        """The column of x that each output is of."""
        blocks = self._blocks(columns)
        return np.concatenate(
            [
                np.repeat(block.likelihood._column_numbers, block.likelihood._outputs_each)
                for block in blocks
                for _ in block.likelihood.parameters
            ]
        )

    def _ready(self, likelihood, numbers):
        """A block's likelihood as it runs, which names columns by their numbers in x."""
        ready = copy.copy(likelihood)
        ready._validate = likelihood._validate and self._validate
        ready._missing_nan = likelihood._missing_nan or self._missing_nan
        ready._column_numbers = numbers
        return ready

    def _over(self, columns, names):
        if self._columns == columns:
            return self
        given = [c for _, c in self._pairs]
        numbers = [_by_name(i, c, names) if _are_names(c) else c for i, c in enumerate(given)]
        places = self._with(self._members(), numbers)._placed(columns)
        return self._with(self._members(), [place.tolist() for place in places])

    def _pass(
        self,
        x,
        parameters,
        gradients,
        weight,
        row_values,
        latents,
        batch_axes,
        threads,
        mask,
        follower=None,
        elements=None,
    ):
        (outputs,), total = parameters, 0.0
        for block in self._blocks(x.shape[-1]):
            some = block.take(x)
            rows = None if row_values is None else np.empty(row_values.shape)
            each = None if elements is None else np.empty(some.shape, elements.dtype)
            value, _, _ = block.likelihood._pass(
                some,
                block.cut(outputs),
                None if gradients is None else block.cut(gradients[0]),
                weight,
                rows,
                None,
                batch_axes,
                threads,
                block.take(mask),
                None,
                each,
            )
            total += value
            if rows is not None:
                np.add(rows, row_values if block.start else 0.0, out=row_values)
            if each is not None:
                elements[..., block.columns] = each
        return total, 0.0, None

    def _of_rows(self, rows, axes):
        return self._with([part._of_rows(rows, axes) for part in self._members()])

    def _with(self, likelihoods, columns=None):
        """The same, with other likelihoods, or columns."""
        some = copy.copy(self)
        columns = [c for _, c in self._pairs] if columns is None else columns
        vars(some)["blocks"] = list(zip(likelihoods, columns, strict=True))
        some._set_blocks(some.blocks)
        return some

    def _check_event(self, x, parameters, mask, by_number):
        if len(parameters) != len(self.parameters):
            self._miscounted(parameters)
        sample_axes = self._sample_axes(x, parameters)
        x, (outputs,) = self._event(x, parameters, sample_axes)
        if mask is not None:
            mask = _arrays.as_mask(mask, x, sample_axes)
        if sample_axes:
            x, mask = x[0], None if mask is None else mask[0]
        for block in self._blocks(x.shape[-1]):
            flags = None if mask is None else block.take(mask).astype(bool)
            block.likelihood._check_event(block.take(x), block.cut(outputs), flags, by_number)

    def _members(self):
        return [likelihood for likelihood, _ in self._pairs]

    def _couples_rows(self):
        return any(likelihood._couples_rows() for likelihood in self._members())

    def _variances(self, x, outputs, threads):
        if not self._couples_rows():
            return []
        return [
            variance
            for block in self._blocks(x.shape[-1])
            for variance in block.likelihood._variances(
                block.take(x), block.cut(outputs[0]), threads
            )
        ]

    def _at_variances(self, variances):
        variances = iter(variances)
        return self._with([part._at_variances(variances) for part in self._members()])

    def _check_over(self, arrays):
        (outputs,) = arrays
        width = self._width_of(self._known_columns())
        if outputs.ndim == 0 or outputs.shape[-1] != width:
            raise _arrays.shape_error("outputs", outputs.shape, f"(..., {width})")

    def _mean(self, outputs):
        return self._assembled(outputs, outputs.shape[:-1], lambda part, given: part.mean(*given))

    def _predicted(self, outputs):
        (outputs,) = outputs
        return self._assembled(
            outputs, outputs.shape[1:-1], lambda part, given: part._predicted(given)
        )

    def _assembled(self, outputs, shape, mean_of):
        """The means of all blocks, (..., D); of classes the most probable."""
        x = np.empty((*shape, self._columns), outputs.dtype)
        for block in self._blocks(self._columns):
            mean = mean_of(block.likelihood, block.cut(outputs))
            more = block.likelihood._layout.more_axes
            x[..., block.columns] = mean.argmax(-1) if more else mean
        return x

    def __repr__(self):
        return f"ColumnLikelihood({self.blocks!r})"


def _checked_block(i, block):
    """(likelihood, columns), of which the former is one that a block can have."""
    if not isinstance(block, tuple | list) or len(block) != 2:
        raise TypeError(f"blocks[{i}] must be a pair (likelihood, columns), got {shown(block)}")
    likelihood, columns = block
    likelihood = as_likelihood(likelihood)
    if isinstance(likelihood, ColumnLikelihood):
        raise TypeError(f"blocks[{i}] is a ColumnLikelihood itself: list its blocks instead")
    if likelihood._outputs_each is None:
        way = "give it the number of classes, as in Categorical(5)"
        if likelihood._layout.more_axes and len(likelihood.parameters) > 1:
            way = "choose one of the others"
        raise ValueError(
            f"blocks[{i}] is {likelihood!r}, which does not say how many outputs a column has: "
            f"{way}"
        )
    return likelihood, _checked_columns(i, columns)


def _checked_columns(i, columns):
    """An int, str or slice, or a list of ints, of strings or of booleans."""
    if isinstance(columns, slice):
        for bound in (columns.start, columns.stop, columns.step):
            if bound is not None and not _is_whole(bound):
                raise TypeError(f"columns of block {i} must be a slice of ints, got {columns!r}")
        return columns
    if isinstance(columns, str) or _is_whole(columns):
        return columns if isinstance(columns, str) else int(columns)
    try:
        found = np.asarray(columns).tolist()
    except ValueError:
        found = None
    kinds = {type(c) for c in found} if isinstance(found, list) else set()
    if kinds not in ({int}, {str}, {bool}):
        raise TypeError(
            f"columns of block {i} must be an int, a slice, or a list of ints, of booleans or of "
            f"names, got {shown(columns)}"
        )
    if kinds == {bool} and not any(found):
        raise ValueError(f"columns of block {i}: a mask without any column")
    return found


def _is_whole(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def _are_names(columns):
    return isinstance(columns, str) or (isinstance(columns, list) and isinstance(columns[0], str))


def _is_mask(columns):
    return isinstance(columns, list) and isinstance(columns[0], bool)


def _in_place(numbers):
    """A slice of columns that lie side by side, or their numbers."""
    first = int(numbers[0])
    return slice(first, first + len(numbers)) if (np.diff(numbers) == 1).all() else numbers


def _number_of(columns):
    """How many columns these lists need, None where they do not tell."""
    ends = []
    for given in columns:
        if _is_mask(given):
            return len(given)
        if _are_names(given):
            return None
        if isinstance(given, slice):
            bounds = (given.start or 0, -1 if given.stop is None else given.stop, given.step or 1)
            if min(bounds) < 0:
                return None
            ends.extend(range(*bounds)[-1:])
        else:
            ends.extend(given if isinstance(given, list) else [given])
    return None if min(ends, default=0) < 0 else max(ends, default=-1) + 1


def _numbers(i, given, columns):
    """Columns as numbers from 0."""
    if _are_names(given):
        raise ValueError(
            f"columns of block {i} have names, {_said(given)}, but x is no DataFrame: give "
            "numbers, or a DataFrame to VAE.fit"
        )
    if _is_mask(given):
        if len(given) != columns:
            raise ValueError(
                f"columns of block {i} are a mask of {len(given)}, but x has the shape "
                f"(batch, {columns})"
            )
        return np.flatnonzero(given)
    if isinstance(given, slice):
        numbers = np.arange(columns)[given]
        if len(numbers) == 0:
            raise ValueError(
                f"columns of block {i}: {given} has none of x, whose shape is (batch, {columns})"
            )
        return numbers
    numbers = np.atleast_1d(given).astype(np.intp)
    out = (numbers < -columns) | (numbers >= columns)
    if out.any():
        raise ValueError(
            f"columns of block {i}: {numbers[out][0]} is out of range of x, whose shape is "
            f"(batch, {columns})"
        )
    return numbers % columns


def _by_name(i, given, names):
    """Columns with these names, as numbers."""
    if names is None:
        _numbers(i, given, 0)
    given = [given] if isinstance(given, str) else given
    numbers = {name: number for number, name in enumerate(names)}
    for name in given:
        if name not in numbers:
            raise ValueError(f"columns of block {i}: {name!r} is none of X, {_said(list(names))}")
    return [numbers[name] for name in given]


def _said(columns):
    """Some columns, as they are said."""
    if not isinstance(columns, list) or len(columns) <= 10:
        return repr(columns)
    return f"{columns[:10]!r} and {len(columns) - 10} more"
