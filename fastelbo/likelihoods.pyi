from typing import overload

from numpy.typing import ArrayLike

from fastelbo._typing import (
    ByRow,
    Float64Array,
    FloatArray,
    Missing,
    Number,
    Out,
    Reduced,
    Threads,
)

class Likelihood:
    parameters: tuple[str, ...]
    @property
    def x_scale(self) -> float: ...
    @property
    def validate(self) -> bool: ...
    @property
    def missing(self) -> Missing: ...
    def __init__(
        self, *, x_scale: Number = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...
    @overload
    def log_prob(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: Reduced = ...,
        num_threads: Threads = ...,
    ) -> float: ...
    @overload
    def log_prob(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: ByRow,
        num_threads: Threads = ...,
    ) -> Float64Array: ...
    @overload
    def log_prob_and_grad(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: Reduced = ...,
        out: tuple[Out, ...] | None = ...,
        num_threads: Threads = ...,
    ) -> tuple[float, tuple[FloatArray, ...]]: ...
    @overload
    def log_prob_and_grad(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: ByRow,
        out: tuple[Out, ...] | None = ...,
        num_threads: Threads = ...,
    ) -> tuple[Float64Array, tuple[FloatArray, ...]]: ...
    def mean(self, *parameters: ArrayLike) -> FloatArray: ...

class Bernoulli(Likelihood):
    def __init__(
        self, *, x_scale: Number = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class ContinuousBernoulli(Bernoulli): ...
