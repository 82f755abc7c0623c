from typing import Literal, NamedTuple, overload

from numpy.typing import ArrayLike

from fastelbo._typing import ByRow, Float64Array, FloatArray, Number, Out, Reduced, Threads

class BoundGrad(NamedTuple):
    log_w: FloatArray

class ScoreGrad(NamedTuple):
    log_w: FloatArray
    log_q: FloatArray

@overload
def importance_bound(
    log_w: ArrayLike, *, alpha: Number = ..., reduction: Reduced = ..., num_threads: Threads = ...
) -> float: ...
@overload
def importance_bound(
    log_w: ArrayLike, *, alpha: Number = ..., reduction: ByRow, num_threads: Threads = ...
) -> Float64Array: ...
@overload
def importance_bound_and_grad(
    log_w: ArrayLike,
    *,
    alpha: Number = ...,
    reduction: Reduced = ...,
    out: tuple[Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, BoundGrad]: ...
@overload
def importance_bound_and_grad(
    log_w: ArrayLike,
    *,
    alpha: Number = ...,
    reduction: ByRow,
    out: tuple[Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, BoundGrad]: ...
@overload
def cubo(
    log_w: ArrayLike, *, n: Number = ..., reduction: Reduced = ..., num_threads: Threads = ...
) -> float: ...
@overload
def cubo(
    log_w: ArrayLike, *, n: Number = ..., reduction: ByRow, num_threads: Threads = ...
) -> Float64Array: ...
@overload
def cubo_and_grad(
    log_w: ArrayLike,
    *,
    n: Number = ...,
    reduction: Reduced = ...,
    out: tuple[Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, BoundGrad]: ...
@overload
def cubo_and_grad(
    log_w: ArrayLike,
    *,
    n: Number = ...,
    reduction: ByRow,
    out: tuple[Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, BoundGrad]: ...
@overload
def vimco(log_w: ArrayLike, *, reduction: Reduced = ..., num_threads: Threads = ...) -> float: ...
@overload
def vimco(log_w: ArrayLike, *, reduction: ByRow, num_threads: Threads = ...) -> Float64Array: ...
@overload
def vimco_and_grad(
    log_w: ArrayLike,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, ScoreGrad]: ...
@overload
def vimco_and_grad(
    log_w: ArrayLike,
    *,
    reduction: ByRow,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, ScoreGrad]: ...
@overload
def reinforce(
    log_w: ArrayLike,
    *,
    baseline: Literal["leave-one-out", "none"] = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def reinforce(
    log_w: ArrayLike,
    *,
    baseline: Literal["leave-one-out", "none"] = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def reinforce_and_grad(
    log_w: ArrayLike,
    *,
    baseline: Literal["leave-one-out", "none"] = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, ScoreGrad]: ...
@overload
def reinforce_and_grad(
    log_w: ArrayLike,
    *,
    baseline: Literal["leave-one-out", "none"] = ...,
    reduction: ByRow,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, ScoreGrad]: ...
def effective_sample_size(log_w: ArrayLike, *, num_threads: Threads = ...) -> Float64Array: ...
def normalized_weights(
    log_w: ArrayLike, *, out: Out = ..., num_threads: Threads = ...
) -> FloatArray: ...
