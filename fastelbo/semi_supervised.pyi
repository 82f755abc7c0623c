from typing import NamedTuple, overload

from numpy.typing import ArrayLike

from fastelbo._typing import ByRow, Float64Array, FloatArray, Number, Out, Reduced, Threads

class M2Grad(NamedTuple):
    log_joint: FloatArray
    logits: FloatArray

@overload
def m2_elbo(
    log_joint: ArrayLike,
    logits: ArrayLike,
    y: ArrayLike,
    *,
    alpha: Number = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def m2_elbo(
    log_joint: ArrayLike,
    logits: ArrayLike,
    y: ArrayLike,
    *,
    alpha: Number = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def m2_elbo_and_grad(
    log_joint: ArrayLike,
    logits: ArrayLike,
    y: ArrayLike,
    *,
    alpha: Number = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, M2Grad]: ...
@overload
def m2_elbo_and_grad(
    log_joint: ArrayLike,
    logits: ArrayLike,
    y: ArrayLike,
    *,
    alpha: Number = ...,
    reduction: ByRow,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, M2Grad]: ...
