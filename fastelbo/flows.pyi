from typing import Generic, NamedTuple, overload

from numpy.typing import ArrayLike

from fastelbo._typing import (
    AnyLikelihood,
    ByRow,
    Float64Array,
    FloatArray,
    Number,
    Out,
    Outputs,
    OutputT_co,
    Reduced,
    Threads,
    ValueT_co,
)

class FlowMatchingGrad(NamedTuple, Generic[OutputT_co]):
    x_recon: OutputT_co

class FlowElboResult(NamedTuple, Generic[ValueT_co]):
    objective: ValueT_co
    reconstruction: ValueT_co
    kl: ValueT_co
    velocity_error: ValueT_co

class FlowElboGrad(NamedTuple, Generic[OutputT_co]):
    velocity: FloatArray
    mu: FloatArray
    logvar: FloatArray
    x_recon: OutputT_co

def endpoint_velocity(
    mu: ArrayLike, x_t: ArrayLike, t: ArrayLike, *, out: Out = ...
) -> FloatArray: ...
@overload
def flow_matching(
    x: ArrayLike,
    t: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood | None = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def flow_matching(
    x: ArrayLike,
    t: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood | None = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def flow_matching_and_grad(
    x: ArrayLike,
    t: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood | None = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, ...] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, FlowMatchingGrad[tuple[FloatArray, ...]]]: ...
@overload
def flow_matching_and_grad(
    x: ArrayLike,
    t: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood | None = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, FlowMatchingGrad[FloatArray]]: ...
@overload
def flow_matching_and_grad(
    x: ArrayLike,
    t: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood | None = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, ...] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, FlowMatchingGrad[tuple[FloatArray, ...]]]: ...
@overload
def flow_matching_and_grad(
    x: ArrayLike,
    t: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood | None = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, FlowMatchingGrad[FloatArray]]: ...
@overload
def flow_elbo(
    x: ArrayLike,
    x_t: ArrayLike,
    t: ArrayLike,
    velocity: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    weight: Number = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> FlowElboResult[float]: ...
@overload
def flow_elbo(
    x: ArrayLike,
    x_t: ArrayLike,
    t: ArrayLike,
    velocity: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    weight: Number = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> FlowElboResult[Float64Array]: ...
@overload
def flow_elbo_and_grad(
    x: ArrayLike,
    x_t: ArrayLike,
    t: ArrayLike,
    velocity: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    weight: Number = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[FlowElboResult[float], FlowElboGrad[tuple[FloatArray, ...]]]: ...
@overload
def flow_elbo_and_grad(
    x: ArrayLike,
    x_t: ArrayLike,
    t: ArrayLike,
    velocity: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    weight: Number = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[FlowElboResult[float], FlowElboGrad[FloatArray]]: ...
@overload
def flow_elbo_and_grad(
    x: ArrayLike,
    x_t: ArrayLike,
    t: ArrayLike,
    velocity: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    weight: Number = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[FlowElboResult[Float64Array], FlowElboGrad[tuple[FloatArray, ...]]]: ...
@overload
def flow_elbo_and_grad(
    x: ArrayLike,
    x_t: ArrayLike,
    t: ArrayLike,
    velocity: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    weight: Number = ...,
    beta: Number = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[FlowElboResult[Float64Array], FlowElboGrad[FloatArray]]: ...
