from typing import NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastelbo._typing import (
    AnyLikelihood,
    ByRow,
    Float64Array,
    FloatArray,
    Number,
    Out,
    Outputs,
    Reduced,
    Threads,
)
from fastelbo.divergences import FreeBits
from fastelbo.elbo import ElboGrad, ElboResult

class TimeGrid(NamedTuple):
    grid: Float64Array
    positions: NDArray[np.intp]

def union_of_times(times: ArrayLike, *, mask: ArrayLike | None = ...) -> TimeGrid: ...
@overload
def latent_ode_elbo(
    x: ArrayLike,
    times: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> ElboResult[float]: ...
@overload
def latent_ode_elbo(
    x: ArrayLike,
    times: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> ElboResult[Float64Array]: ...
@overload
def latent_ode_elbo_and_grad(
    x: ArrayLike,
    times: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[float], ElboGrad[tuple[FloatArray, ...]]]: ...
@overload
def latent_ode_elbo_and_grad(
    x: ArrayLike,
    times: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[float], ElboGrad[FloatArray]]: ...
@overload
def latent_ode_elbo_and_grad(
    x: ArrayLike,
    times: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[Float64Array], ElboGrad[tuple[FloatArray, ...]]]: ...
@overload
def latent_ode_elbo_and_grad(
    x: ArrayLike,
    times: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[Float64Array], ElboGrad[FloatArray]]: ...
