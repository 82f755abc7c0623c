from typing import Generic, NamedTuple, SupportsIndex, TypedDict, overload

from numpy.typing import ArrayLike, DTypeLike
from typing_extensions import Buffer, Unpack

from fastelbo._typing import (
    AnyLikelihood,
    ByRow,
    DifferentiablePrior,
    Float64Array,
    FloatArray,
    Number,
    Out,
    Outputs,
    OutputT_co,
    Prior,
    Reduced,
    Rng,
    Threads,
    ValueT_co,
)
from fastelbo.divergences import FreeBits

class ElboResult(NamedTuple, Generic[ValueT_co]):
    elbo: ValueT_co
    reconstruction: ValueT_co
    kl: ValueT_co
    z: FloatArray | None

class ElboGrad(NamedTuple, Generic[OutputT_co]):
    mu: FloatArray
    logvar: FloatArray
    x_recon: OutputT_co

@overload
def elbo(
    x: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    prior: Prior | None = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> ElboResult[float]: ...
@overload
def elbo(
    x: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    likelihood: AnyLikelihood = ...,
    prior: Prior | None = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> ElboResult[Float64Array]: ...
@overload
def elbo_and_grad(
    x: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[float], ElboGrad[tuple[FloatArray, ...]]]: ...
@overload
def elbo_and_grad(
    x: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[float], ElboGrad[FloatArray]]: ...
@overload
def elbo_and_grad(
    x: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[Float64Array], ElboGrad[tuple[FloatArray, ...]]]: ...
@overload
def elbo_and_grad(
    x: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    likelihood: AnyLikelihood = ...,
    prior: DifferentiablePrior | None = ...,
    beta: Number = ...,
    free_bits: Number | FreeBits = ...,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[ElboResult[Float64Array], ElboGrad[FloatArray]]: ...

class _Options(TypedDict, total=False):
    likelihood: AnyLikelihood
    prior: Prior | None
    beta: Number
    free_bits: Number | FreeBits
    rng: Rng
    noise: ArrayLike | None
    mask: ArrayLike | None
    num_threads: Threads

class _Reduced(_Options, total=False):
    reduction: Reduced

class _ByRow(_Options):
    reduction: ByRow

@overload
def elbo_from_buffers(
    x: Buffer,
    mu: Buffer,
    logvar: Buffer,
    x_recon: Buffer,
    batch_size: SupportsIndex,
    input_dim: SupportsIndex,
    latent_dim: SupportsIndex,
    *,
    dtype: DTypeLike | None = ...,
    x_dtype: DTypeLike | None = ...,
    **options: Unpack[_Reduced],
) -> ElboResult[float]: ...
@overload
def elbo_from_buffers(
    x: Buffer,
    mu: Buffer,
    logvar: Buffer,
    x_recon: Buffer,
    batch_size: SupportsIndex,
    input_dim: SupportsIndex,
    latent_dim: SupportsIndex,
    *,
    dtype: DTypeLike | None = ...,
    x_dtype: DTypeLike | None = ...,
    **options: Unpack[_ByRow],
) -> ElboResult[Float64Array]: ...
