from typing import NamedTuple, overload

from numpy.typing import ArrayLike

from fastelbo._typing import ByRow, Float64Array, FloatArray, Out, Reduced

class KlFullNormalGrad(NamedTuple):
    mu_q: FloatArray
    tril_q: FloatArray
    mu_p: FloatArray
    tril_p: FloatArray

@overload
def kl_full_normal(
    mu_q: ArrayLike,
    tril_q: ArrayLike,
    mu_p: ArrayLike,
    tril_p: ArrayLike,
    *,
    reduction: Reduced = ...,
) -> float: ...
@overload
def kl_full_normal(
    mu_q: ArrayLike, tril_q: ArrayLike, mu_p: ArrayLike, tril_p: ArrayLike, *, reduction: ByRow
) -> Float64Array: ...
@overload
def kl_full_normal_and_grad(
    mu_q: ArrayLike,
    tril_q: ArrayLike,
    mu_p: ArrayLike,
    tril_p: ArrayLike,
    *,
    reduction: Reduced = ...,
    out: tuple[Out, Out, Out, Out] | None = ...,
) -> tuple[float, KlFullNormalGrad]: ...
@overload
def kl_full_normal_and_grad(
    mu_q: ArrayLike,
    tril_q: ArrayLike,
    mu_p: ArrayLike,
    tril_p: ArrayLike,
    *,
    reduction: ByRow,
    out: tuple[Out, Out, Out, Out] | None = ...,
) -> tuple[Float64Array, KlFullNormalGrad]: ...
