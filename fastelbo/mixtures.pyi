from typing import NamedTuple, overload

from numpy.typing import ArrayLike

from fastelbo._typing import ByRow, Float64Array, FloatArray, Out, Reduced, Threads

class MixtureGrad(NamedTuple):
    z: FloatArray
    mu: FloatArray
    logvar: FloatArray
    log_weights: FloatArray

@overload
def mixture_log_prob(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    log_weights: ArrayLike,
    *,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def mixture_log_prob(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    log_weights: ArrayLike,
    *,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def mixture_log_prob_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    log_weights: ArrayLike,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, MixtureGrad]: ...
@overload
def mixture_log_prob_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    log_weights: ArrayLike,
    *,
    reduction: ByRow,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, MixtureGrad]: ...
