from typing import Generic, Literal, NamedTuple, overload

from numpy.typing import ArrayLike

from fastelbo._typing import (
    AnyLikelihood,
    ByRow,
    DifferentiablePrior,
    Float64Array,
    FloatArray,
    Out,
    Outputs,
    OutputT_co,
    Prior,
    Reduced,
    Threads,
)

class IwaeGrad(NamedTuple, Generic[OutputT_co]):
    z: FloatArray
    mu: FloatArray
    logvar: FloatArray
    x_recon: OutputT_co
    weights: FloatArray

def log_weights(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    prior: Prior | None = ...,
    mask: ArrayLike | None = ...,
    out: Float64Array | None = ...,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def iwae(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    prior: Prior | None = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def iwae(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    prior: Prior | None = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def iwae_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    mask: ArrayLike | None = ...,
    estimator: Literal["standard", "stl", "dreg"] = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, IwaeGrad[tuple[FloatArray, ...]]]: ...
@overload
def iwae_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    mask: ArrayLike | None = ...,
    estimator: Literal["standard", "stl", "dreg"] = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, IwaeGrad[FloatArray]]: ...
@overload
def iwae_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    mask: ArrayLike | None = ...,
    estimator: Literal["standard", "stl", "dreg"] = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, IwaeGrad[tuple[FloatArray, ...]]]: ...
@overload
def iwae_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    mask: ArrayLike | None = ...,
    estimator: Literal["standard", "stl", "dreg"] = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, IwaeGrad[FloatArray]]: ...
