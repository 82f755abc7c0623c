from typing import NamedTuple, overload

from numpy.typing import ArrayLike

from fastelbo._typing import ByRow, Float64Array, FloatArray, Out, Reduced, Threads

class MixtureGrad(NamedTuple):
    z: FloatArray
    log_weights: FloatArray
    mu: FloatArray
    logvar: FloatArray

@overload
def mixture_log_prob(
    z: ArrayLike,
    log_weights: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def mixture_log_prob(
    z: ArrayLike,
    log_weights: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def mixture_log_prob_and_grad(
    z: ArrayLike,
    log_weights: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, MixtureGrad]: ...
@overload
def mixture_log_prob_and_grad(
    z: ArrayLike,
    log_weights: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    reduction: ByRow,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, MixtureGrad]: ...
