from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, SupportsIndex, overload

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

class TotalCorrelation(NamedTuple, Generic[ValueT_co]):
    mutual_information: ValueT_co
    total_correlation: ValueT_co
    dimension_wise_kl: ValueT_co

class TotalCorrelationGrad(NamedTuple):
    z: FloatArray
    mu: FloatArray
    logvar: FloatArray

class BetaTcvaeResult(NamedTuple, Generic[ValueT_co]):
    elbo: ValueT_co
    reconstruction: ValueT_co
    mutual_information: ValueT_co
    total_correlation: ValueT_co
    dimension_wise_kl: ValueT_co

class BetaTcvaeGrad(NamedTuple, Generic[OutputT_co]):
    z: FloatArray
    mu: FloatArray
    logvar: FloatArray
    x_recon: OutputT_co

class AggregateDensity(NamedTuple):
    joint: Float64Array
    marginals: Float64Array

@overload
def total_correlation(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    dataset_size: SupportsIndex,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> TotalCorrelation[float]: ...
@overload
def total_correlation(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    dataset_size: SupportsIndex,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> TotalCorrelation[Float64Array]: ...
@overload
def total_correlation_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    dataset_size: SupportsIndex,
    weights: tuple[Number, Number, Number] = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[TotalCorrelation[float], TotalCorrelationGrad]: ...
@overload
def total_correlation_and_grad(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    dataset_size: SupportsIndex,
    weights: tuple[Number, Number, Number] = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[TotalCorrelation[Float64Array], TotalCorrelationGrad]: ...
@overload
def beta_tcvae_elbo(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    dataset_size: SupportsIndex,
    likelihood: AnyLikelihood = ...,
    alpha: Number = ...,
    beta: Number = ...,
    gamma: Number = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    num_threads: Threads = ...,
) -> BetaTcvaeResult[float]: ...
@overload
def beta_tcvae_elbo(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: Outputs,
    *,
    dataset_size: SupportsIndex,
    likelihood: AnyLikelihood = ...,
    alpha: Number = ...,
    beta: Number = ...,
    gamma: Number = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    num_threads: Threads = ...,
) -> BetaTcvaeResult[Float64Array]: ...
@overload
def beta_tcvae_elbo_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    dataset_size: SupportsIndex,
    likelihood: AnyLikelihood = ...,
    alpha: Number = ...,
    beta: Number = ...,
    gamma: Number = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[BetaTcvaeResult[float], BetaTcvaeGrad[tuple[FloatArray, ...]]]: ...
@overload
def beta_tcvae_elbo_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    dataset_size: SupportsIndex,
    likelihood: AnyLikelihood = ...,
    alpha: Number = ...,
    beta: Number = ...,
    gamma: Number = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    mask: ArrayLike | None = ...,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[BetaTcvaeResult[float], BetaTcvaeGrad[FloatArray]]: ...
@overload
def beta_tcvae_elbo_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: tuple[ArrayLike, ...],
    *,
    dataset_size: SupportsIndex,
    likelihood: AnyLikelihood = ...,
    alpha: Number = ...,
    beta: Number = ...,
    gamma: Number = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out, tuple[Out, ...]] | None = ...,
    num_threads: Threads = ...,
) -> tuple[BetaTcvaeResult[Float64Array], BetaTcvaeGrad[tuple[FloatArray, ...]]]: ...
@overload
def beta_tcvae_elbo_and_grad(
    x: ArrayLike,
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    x_recon: ArrayLike,
    *,
    dataset_size: SupportsIndex,
    likelihood: AnyLikelihood = ...,
    alpha: Number = ...,
    beta: Number = ...,
    gamma: Number = ...,
    method: Literal["mws", "mss"] = ...,
    normalize: bool = ...,
    mss: Literal["paper", "reference"] = ...,
    mask: ArrayLike | None = ...,
    reduction: ByRow,
    out: tuple[Out, Out, Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[BetaTcvaeResult[Float64Array], BetaTcvaeGrad[FloatArray]]: ...
def aggregate_posterior_log_density(
    z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    progress: Callable[[int, int], object] | None = ...,
    num_threads: Threads = ...,
) -> AggregateDensity: ...
