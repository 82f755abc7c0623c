"""What a row of the catalogue is: all that must be known of a public thing to visit it.

A ROW belongs to a public name. It has CASES, ways to call it, which tests, ``parity``, ``bench``,
asv and the checks of ``fastelbo.torch`` go through, and PEERS, the code that users write instead.
"""

import inspect
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

import fastelbo
from fastelbo import reference
from fastelbo._catalogue.sparse import as_csr

#: The accuracy that is promised against the reference, relative, by dtype. The only such table.
TOLERANCE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-13}

REDUCTIONS = ("mean", "sum", "none")
#: Of the log-densities of elements.
OF_ELEMENTS = (*REDUCTIONS, "elementwise")

#: What each letter of an input's axes stands for, and its extent unless a size says otherwise.
#: D stands for the axes of the event, C for classes, M for components, E for experts, K for
#: samples, N for the points of a second set, S for the subsets of the experts, P for the decoder's
#: outputs where columns differ in how many they have.
AXES = {"B": 5, "D": (7,), "L": 3, "K": 2, "M": 4, "E": 3, "S": 7, "N": 6, "C": 4, "P": 16}


def flatten(result):
    """The arrays and numbers in nested tuples, without the None among them."""
    if isinstance(result, tuple):
        return [leaf for item in result for leaf in flatten(item)]
    return [] if result is None else [result]


def normal(rng, shape):
    return rng.normal(size=shape)


@dataclass(frozen=True)
class Case:
    """One way to call a public thing, or the ``_and_grad`` beside it.

    Attributes
    ----------
    name : str
        Unique; the row's name, what distinguishes the case, and ``_and_grad``.
    call : callable
        ``call(module, *arrays, **options)`` with module ``fastelbo`` or ``fastelbo.reference``, or,
        unless there is ``_and_grad`` in the name, ``fastelbo.torch``.
    inputs : mapping of str to str
        The arrays in order, and the axes of each, letters of `AXES`: ``{"x": "BD", "mu": "BL"}``.
    magnitudes : callable
        Called like the function with float64 arrays: for each item of the flattened result the sum
        of the absolute values of the terms that make it, which is what an error is relative to.
    draws : mapping of str to callable
        ``(rng, shape) -> array`` for inputs that are not standard normal.
    extremes : mapping of str to sequence
        Values at and near the limits of inputs, to be tried with each other; of the others,
        ordinary ones are drawn.
    limits : mapping of str to sequence
        Likewise where terms over- or underflow and products are of 0 and infinity: what must come
        back is the limit. A word is that number of the dtype's, `numpy.finfo`.
    outs : tuple of str, or str
        Inputs whose gradients ``out=`` takes, in order; "out" where it is a single array.
    constants : tuple of str
        Inputs that have no gradient in ``fastelbo.torch``.
    options : tuple of mapping
        Further keyword arguments to try, each beside the defaults.
    fixed : mapping
        Extents that the case has whatever others are asked for: of features with a scale each, say.
    least : mapping
        Extents that the case needs at least.
    most : mapping
        Extents that it has at most: of what it goes through one by one.
    sizes : tuple of mapping
        Further extents to try: around the blocks and chunks of its own kernels.
    batched : bool
        Whether arrays come in any layout, and ``num_threads`` may be given, as to most functions.
    takes_out : bool
        Whether gradients can be written into arrays that are given.
    twinned : bool
        Whether ``fastelbo.torch`` is called in the same way, if its row has a twin at all.
    sparse : bool
        Whether x is given in CSR format.
    halves : bool
        Whether half precision is what gradients of it come in; elsewhere it counts as float32.
    draws_noise : bool
        Whether values depend on numbers that are drawn: those of others are other ones.
    objective : tuple of float
        The weights of the values in what gradients are of.
    largest : str
        The axes of the largest array that the reference makes, where no input is as large.
    likelihood : Variant, optional
        Of a likelihood's own cases: what makes it.
    peers : mapping of str to callable
        The code that users write, by what it is written for, on the same arrays:

        - ``"numpy"``, ``"numpy_and_grad"``: ``f(*arrays)``, a value, or a tuple with gradients;
        - ``"scipy"``: ``f(scipy.stats, *arrays)``, a value;
        - ``"torch"``, and ``"torch_products"`` for the form that is mostly matrix products:
          ``f(torch, *tensors)``, a value, or a tuple that begins with it;
        - ``"numba"``, ``"numba_and_grad"``: ``f(njit, prange)``, a compiled function of the arrays;
        - ``"jax"``: ``f(jax, *arrays)``, a value.
    """

    name: str
    call: Callable
    inputs: Mapping[str, str]
    magnitudes: Callable
    draws: Mapping[str, Callable] = field(default_factory=dict)
    extremes: Mapping[str, tuple] = field(default_factory=dict)
    limits: Mapping[str, tuple] = field(default_factory=dict)
    outs: tuple | str = ()
    constants: tuple = ()
    options: tuple = ()
    peers: Mapping[str, Callable] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    sizes: tuple = ()
    has_reduction: bool = True
    batched: bool = True
    takes_out: bool = True
    twinned: bool = True
    sparse: bool = False
    halves: bool = False
    draws_noise: bool = False
    objective: tuple = (1.0,)
    largest: str = ""
    likelihood: object = None

    @property
    def public(self):
        return partial(self.call, fastelbo)

    @property
    def reference(self):
        return partial(self.call, reference)

    @property
    def gives_gradients(self):
        return self.name.endswith("_and_grad")

    @property
    def takes_threads(self):
        """Whether ``num_threads`` may be given: what LAPACK and NumPy compute has none."""
        thing = getattr(fastelbo, re.match(r"\w+?(?=_and_grad\b|\W|$)", self.name)[0])
        functions = [thing]
        if inspect.isclass(thing):
            functions = [f for _, f in inspect.getmembers(thing, inspect.isfunction)]
        return any(
            parameter.name == "num_threads" or parameter.kind is parameter.VAR_KEYWORD
            for function in functions
            for parameter in inspect.signature(function).parameters.values()
        )

    def shape(self, name, **extents):
        """The shape of an input; `extents` are those of `AXES` that are not as usual."""
        if unknown := extents.keys() - AXES.keys():
            raise ValueError(f"no axes: {sorted(unknown)}")
        extents = {**AXES, **extents, **self.fixed}
        for letter, least in self.least.items():
            extents[letter] = max(extents[letter], least)
        for letter, most in self.most.items():
            extents[letter] = min(extents[letter], most)
        shape = ()
        for letter in self.inputs[name]:
            extent = extents[letter]
            shape += extent if isinstance(extent, tuple) else (extent,)
        return shape

    def within(self, most, **extents):
        """The extents, halved until no array of the reference has more elements than `most`."""
        extents = {**AXES, **extents}

        def elements(letters):
            return math.prod(int(np.prod(extents[letter])) for letter in letters)

        while elements(largest := max((*self.inputs.values(), self.largest), key=elements)) > most:
            free = sorted(set(largest) - set("ES"))  # the subsets are those of the experts
            widest = max(free, key=lambda letter: np.prod(extents[letter]))
            extents[widest] = int(np.prod(extents[widest])) // 2
        return extents

    def draw(self, rng=0, dtype=np.float64, **extents):
        """Arrays to call it with, by name; `rng` is a generator or a seed."""
        rng = np.random.default_rng(rng)
        drawn = {}
        for name in self.inputs:
            make = self.draws.get(name, normal)
            array = np.asarray(make(rng, self.shape(name, **extents)))
            drawn[name] = array if array.dtype == bool else array.astype(dtype)
        return drawn

    def at(self, values, dtype, most=300):
        """Arrays of values each with each other, a row each, so that none hides in a sum.

        `values` is "extremes" or "limits"; of many combinations `most` are drawn.
        """
        rng, values = np.random.default_rng(5), getattr(self, values)
        rows = list(itertools.product(*values.values()))
        rows = [rows[i] for i in rng.permutation(len(rows))[:most]]
        arrays = self.draw(5, dtype, B=len(rows), D=(1,), L=1)
        for i, (which, several) in enumerate(values.items()):
            array = arrays[which]
            chosen = [row[i] for row in rows]
            if array.size != len(rows):  # of components and classes
                chosen = rng.choice(several, array.size)
            chosen = [getattr(np.finfo(dtype), v) if isinstance(v, str) else v for v in chosen]
            array[...] = np.reshape(chosen, array.shape)
        return arrays

    def given(self, arrays):
        """What is to be called and timed with, of arrays by name: x in the format of the case."""
        return [as_csr(a) if self.sparse and name == "x" else a for name, a in arrays.items()]

    def scales(self, arrays, **options):
        """The magnitudes as a flat list."""
        with np.errstate(all="ignore"):
            arrays = [np.asarray(a, np.float64) for a in arrays]
            return flatten(self.magnitudes(*arrays, **options))

    def shared(self, leaves):
        """Of a flat result what peers compute, too: the first value, and the gradients."""
        values = () if self.draws_noise else leaves[:1]
        return (*values, *leaves[-len(self.outs) :]) if self.gives_gradients else (*values,)

    def out_shapes(self, arrays):
        """Shapes of the arrays that ``out=`` takes, by name."""
        names = (self.outs,) if isinstance(self.outs, str) else self.outs
        first = next(iter(arrays.values()))  # what is no input is like it: the signal of VIMCO
        return {
            name: np.shape(arrays.get("noise" if name == "out" else name, first)) for name in names
        }

    def as_out(self, arrays):
        """Arrays in the order of ``outs`` as the argument ``out=``."""
        if isinstance(self.outs, str):
            return arrays[0]
        if "mu" in self.outs and len(self.outs) - self.outs.index("logvar") > 2:
            first = self.outs.index("logvar") + 1  # several outputs of a decoder are a tuple
            return (*arrays[:first], tuple(arrays[first:]))
        return tuple(arrays)


def with_and_grad(name, call, inputs, magnitudes, outs, **others):
    """The cases of a function and of its ``_and_grad``.

    `call` is ``call(module, suffix) -> function of the arrays``; `magnitudes` are of the latter.
    """

    def of_value(*arrays, **options):
        return tuple(flatten(magnitudes(*arrays, **options))[: -len(outs)])

    def calling(suffix):
        return lambda module, *arrays, **options: call(module, suffix)(*arrays, **options)

    value = Case(name, calling(""), inputs, of_value, **others)
    return (
        value,
        replace(
            value,
            name=f"{name}_and_grad",
            call=calling("_and_grad"),
            magnitudes=magnitudes,
            outs=outs,
        ),
    )


@dataclass(frozen=True)
class Bench:
    """How a case is timed: on arrays of which extents.

    ``extents`` are those of `AXES`; ``error`` is what the formula that others use costs them by
    itself.
    """

    case: str
    title: str
    extents: Mapping[str, int] = field(default_factory=dict)
    error: float = 0.0


@dataclass(frozen=True)
class Row:
    """A public thing.

    Attributes
    ----------
    name : str
        The public name in ``fastelbo``; of f and f_and_grad, that of f.
    cases : tuple of Case
    bench : tuple of Bench
    untwinned : str
        Why ``fastelbo.torch`` has nothing of that name, where it has not.
    not_in_jax : str
        The same of ``fastelbo.jax``, which has nothing that ``fastelbo.torch`` has not.
    native : bool
        Whether in JAX the first case that has a gradient, or draws, goes without Python: XLA calls
        the pass itself, or needs none. Elsewhere a call takes Python's lock, and is one of the
        public function.
    """

    name: str
    cases: tuple[Case, ...]
    bench: tuple[Bench, ...] = ()
    untwinned: str = ""
    not_in_jax: str = ""
    native: bool = False
