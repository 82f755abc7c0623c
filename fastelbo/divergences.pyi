from typing import Literal, NamedTuple, TypeAlias, overload

from numpy.typing import ArrayLike

from fastelbo._parameters import Settings
from fastelbo._typing import ByRow, Float64Array, FloatArray, Number, Out, Reduced, Threads

class GaussianGrad(NamedTuple):
    mu: FloatArray
    logvar: FloatArray

class KlNormalGrad(NamedTuple):
    mu_q: FloatArray
    logvar_q: FloatArray
    mu_p: FloatArray
    logvar_p: FloatArray

_Granularity: TypeAlias = Literal["dimension", "sample", "total"]
_Below: TypeAlias = Literal["floor", "zero"]

class FreeBits(Settings):
    threshold: float
    granularity: _Granularity
    below: _Below
    def __init__(
        self, threshold: Number, *, granularity: _Granularity = ..., below: _Below = ...
    ) -> None: ...

@overload
def kl_standard_normal(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    free_bits: Number | FreeBits = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def kl_standard_normal(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    free_bits: Number | FreeBits = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def kl_standard_normal_and_grad(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    free_bits: Number | FreeBits = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, GaussianGrad]: ...
@overload
def kl_standard_normal_and_grad(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    free_bits: Number | FreeBits = ...,
    reduction: ByRow,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, GaussianGrad]: ...
@overload
def kl_normal(
    mu_q: ArrayLike,
    logvar_q: ArrayLike,
    mu_p: ArrayLike,
    logvar_p: ArrayLike,
    *,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def kl_normal(
    mu_q: ArrayLike,
    logvar_q: ArrayLike,
    mu_p: ArrayLike,
    logvar_p: ArrayLike,
    *,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def kl_normal_and_grad(
    mu_q: ArrayLike,
    logvar_q: ArrayLike,
    mu_p: ArrayLike,
    logvar_p: ArrayLike,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, KlNormalGrad]: ...
@overload
def kl_normal_and_grad(
    mu_q: ArrayLike,
    logvar_q: ArrayLike,
    mu_p: ArrayLike,
    logvar_p: ArrayLike,
    *,
    reduction: ByRow,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, KlNormalGrad]: ...
