from typing import NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastelbo._typing import ByRow, Float64Array, FloatArray, Out, Reduced, Threads
from fastelbo.divergences import GaussianGrad

class GaussianExpert(NamedTuple):
    mu: FloatArray
    logvar: FloatArray

class Experts(NamedTuple):
    mu: FloatArray
    logvar: FloatArray
    mask: NDArray[np.bool_]

class ExpertsGrad(NamedTuple):
    z: FloatArray
    mu: FloatArray
    logvar: FloatArray

def product_of_experts(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    prior: bool = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> GaussianExpert: ...
def product_of_experts_backward(
    grad_mu: ArrayLike,
    grad_logvar: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    prior: bool = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> GaussianGrad: ...
def mopoe(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    prior: bool = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> Experts: ...
def mopoe_backward(
    grad_mu: ArrayLike,
    grad_logvar: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    prior: bool = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> GaussianGrad: ...
@overload
def mixture_of_experts(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> float: ...
@overload
def mixture_of_experts(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> Float64Array: ...
@overload
def mixture_of_experts_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, ExpertsGrad]: ...
@overload
def mixture_of_experts_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    mask: ArrayLike | None = ...,
    *,
    reduction: ByRow,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[Float64Array, ExpertsGrad]: ...
