"""What annotations and stubs share. Only type checkers import it."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

# float32 or float64, as the arguments are.
FloatArray: TypeAlias = NDArray[np.floating[Any]]
Float64Array: TypeAlias = NDArray[np.float64]
Out: TypeAlias = FloatArray | None

Number: TypeAlias = float | np.floating[Any] | np.integer[Any]
# ArrayLike without strings, so that a misspelt word is none.
Numbers: TypeAlias = Number | Sequence[float] | Sequence[Sequence[float]] | NDArray[Any]
Outputs: TypeAlias = ArrayLike | tuple[ArrayLike, ...]
Missing: TypeAlias = Literal["nan"] | None
Rng: TypeAlias = SupportsIndex | np.random.Generator | None
Threads: TypeAlias = SupportsIndex | None

Reduced: TypeAlias = Literal["mean", "sum"]
ByRow: TypeAlias = Literal["none"]
ByElement: TypeAlias = Literal["elementwise"]
Reduction: TypeAlias = Reduced | ByRow


class HasRows(Protocol):
    """An array or sparse matrix of any library, or a store: rows come by their numbers."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


# X of a model, and X that comes in batches.
Data: TypeAlias = ArrayLike | HasRows
Batches: TypeAlias = Iterable[Any] | Callable[[], Iterable[Any]]

# What is called after each epoch, with the model and the figures.
Callback: TypeAlias = Callable[[Any, dict[str, float]], object]

# The names of `fastelbo._named.LIKELIHOODS`, which checkers cannot read.
LikelihoodName: TypeAlias = Literal[
    "bernoulli",
    "continuous_bernoulli",
    "poisson",
    "negative_binomial",
    "zero_inflated_negative_binomial",
    "weibull",
    "discretized_logistic",
    "discretized_logistic_mixture",
    "categorical",
    "gaussian",
    "laplace",
    "squared_error",
]

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # typing has defaults from Python 3.13 on

    from fastelbo.likelihoods import Likelihood

    AnyLikelihood: TypeAlias = Likelihood | LikelihoodName

    # A float, or an array for reduction="none".
    ValueT_co = TypeVar(
        "ValueT_co", bound=float | Float64Array, default=float | Float64Array, covariant=True
    )
    # An array, or a tuple where the decoder's outputs came as one.
    OutputT_co = TypeVar(
        "OutputT_co",
        bound=FloatArray | tuple[FloatArray, ...],
        default=FloatArray | tuple[FloatArray, ...],
        covariant=True,
    )


class Network(Protocol):
    """An encoder or decoder of one's own: see the notes of ``fastelbo.VAE``."""

    def forward(self, x: Any, /) -> tuple[ArrayLike, Any]: ...

    def backward(
        self, cache: Any, gradient: Any, /
    ) -> tuple[ArrayLike | None, Sequence[ArrayLike]]: ...

    def parameters(self) -> Sequence[FloatArray]: ...


class Prior(Protocol):
    def log_prob(self, z: FloatArray, /) -> ArrayLike: ...


class DifferentiablePrior(Protocol):
    def log_prob_and_grad(self, z: FloatArray, /) -> tuple[ArrayLike, ArrayLike]: ...
