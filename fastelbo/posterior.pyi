from typing import SupportsIndex, overload

from numpy.typing import ArrayLike

from fastelbo._typing import ByRow, Float64Array, FloatArray, Number, Out, Reduced, Rng, Threads
from fastelbo.divergences import FreeBits, GaussianGrad

def reparameterize(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    samples: SupportsIndex | None = ...,
    out: Out = ...,
    num_threads: Threads = ...,
) -> FloatArray: ...
@overload
def reparameterize_kl(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    samples: SupportsIndex | None = ...,
    free_bits: Number | FreeBits = ...,
    reduction: Reduced = ...,
    out: Out = ...,
    num_threads: Threads = ...,
) -> tuple[FloatArray, float]: ...
@overload
def reparameterize_kl(
    mu: ArrayLike,
    logvar: ArrayLike,
    *,
    rng: Rng = ...,
    noise: ArrayLike | None = ...,
    samples: SupportsIndex | None = ...,
    free_bits: Number | FreeBits = ...,
    reduction: ByRow,
    out: Out = ...,
    num_threads: Threads = ...,
) -> tuple[FloatArray, Float64Array]: ...
def reparameterize_backward(
    grad_z: ArrayLike,
    mu: ArrayLike,
    logvar: ArrayLike,
    z: ArrayLike | None,
    *,
    kl_weight: ArrayLike = ...,
    noise: ArrayLike | None = ...,
    rng: SupportsIndex | None = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> GaussianGrad: ...
