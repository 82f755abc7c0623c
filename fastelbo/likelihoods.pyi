from typing import Literal, overload

from numpy.typing import ArrayLike

from fastelbo._typing import (
    ByRow,
    Float64Array,
    FloatArray,
    Missing,
    Number,
    Numbers,
    Out,
    Reduced,
    Threads,
)

class Likelihood:
    parameters: tuple[str, ...]
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

class SquaredError(Likelihood):
    def __init__(self, *, x_scale: Number = ..., missing: Missing = ...) -> None: ...

class Gaussian(Likelihood):
    scale: Numbers | Literal["learned", "optimal"]
    def __init__(
        self,
        scale: Numbers | Literal["learned", "optimal"] = ...,
        *,
        x_scale: Number = ...,
        missing: Missing = ...,
    ) -> None: ...

class Laplace(Likelihood):
    scale: Numbers | Literal["learned"]
    def __init__(
        self,
        scale: Numbers | Literal["learned"] = ...,
        *,
        x_scale: Number = ...,
        missing: Missing = ...,
    ) -> None: ...

class StudentT(Likelihood):
    df: Numbers | Literal["learned"]
    scale: Numbers | Literal["learned"]
    def __init__(
        self,
        df: Numbers | Literal["learned"],
        scale: Numbers | Literal["learned"] = ...,
        *,
        x_scale: Number = ...,
        missing: Missing = ...,
    ) -> None: ...

class Bernoulli(Likelihood):
    def __init__(
        self, *, x_scale: Number = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class ContinuousBernoulli(Bernoulli): ...
