from typing import Literal, NamedTuple

from numpy.typing import ArrayLike

from fastelbo._typing import FloatArray, Out, Threads

class MmdGrad(NamedTuple):
    z: FloatArray
    y: FloatArray

def mmd(
    z: ArrayLike,
    y: ArrayLike,
    *,
    kernel: Literal["rbf", "imq"] = ...,
    bandwidth: ArrayLike | None = ...,
    estimator: Literal["unbiased", "biased"] = ...,
    num_threads: Threads = ...,
) -> float: ...
def mmd_and_grad(
    z: ArrayLike,
    y: ArrayLike,
    *,
    kernel: Literal["rbf", "imq"] = ...,
    bandwidth: ArrayLike | None = ...,
    estimator: Literal["unbiased", "biased"] = ...,
    out: tuple[Out, Out] | None = ...,
    num_threads: Threads = ...,
) -> tuple[float, MmdGrad]: ...
