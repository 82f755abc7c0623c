"""The twins' arguments are those of fastelbo's classes, of which they are made."""

from typing import Any, Literal

from jax import Array
from jax.typing import ArrayLike

import fastelbo
from fastelbo._typing import ByElement, Missing, Reduction

class Likelihood:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __init_subclass__(cls, of: type[fastelbo.Likelihood] | None = None) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
    @property
    def parameters(self) -> tuple[str, ...]: ...
    def log_prob(
        self,
        x: ArrayLike,
        *parameters: ArrayLike,
        mask: ArrayLike | None = ...,
        reduction: Reduction | ByElement = ...,
    ) -> Array: ...

class Bernoulli(Likelihood):
    def __init__(
        self,
        *,
        probs: bool = ...,
        clamp: bool = ...,
        x_scale: float = ...,
        validate: bool = ...,
        missing: Missing = ...,
    ) -> None: ...

class BetaBinomial(Likelihood):
    def __init__(
        self, total_count: ArrayLike, *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Binomial(Likelihood):
    def __init__(
        self, total_count: ArrayLike, *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Categorical(Likelihood):
    def __init__(
        self, classes: int | None = ..., *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class ContinuousBernoulli(Likelihood):
    def __init__(
        self, *, x_scale: float = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class DiscretizedLogistic(Likelihood):
    def __init__(
        self,
        scale: ArrayLike | Literal["learned"] = ...,
        *,
        bins: int = ...,
        validate: bool = ...,
        missing: Missing = ...,
    ) -> None: ...

class DiscretizedLogisticMixture(Likelihood):
    def __init__(
        self, *, bins: int = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Gaussian(Likelihood):
    def __init__(
        self,
        scale: ArrayLike | Literal["learned", "optimal"] = ...,
        *,
        x_scale: float = ...,
        missing: Missing = ...,
    ) -> None: ...

class Laplace(Likelihood):
    def __init__(
        self,
        scale: ArrayLike | Literal["learned"] = ...,
        *,
        x_scale: float = ...,
        missing: Missing = ...,
    ) -> None: ...

class NegativeBinomial(Likelihood):
    def __init__(
        self, theta: ArrayLike | None = ..., *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Poisson(Likelihood):
    def __init__(
        self, *, log_input: bool = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class SquaredError(Likelihood):
    def __init__(self, *, x_scale: float = ..., missing: Missing = ...) -> None: ...

class StudentT(Likelihood):
    def __init__(
        self,
        df: ArrayLike | Literal["learned"],
        scale: ArrayLike | Literal["learned"] = ...,
        *,
        x_scale: float = ...,
        missing: Missing = ...,
    ) -> None: ...

class Weibull(Likelihood):
    def __init__(
        self,
        scale: ArrayLike | None = ...,
        concentration: ArrayLike | None = ...,
        *,
        observed: ArrayLike | None = ...,
        validate: bool = ...,
        missing: Missing = ...,
    ) -> None: ...

class ZeroInflatedNegativeBinomial(Likelihood):
    def __init__(
        self, theta: ArrayLike | None = ..., *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

TWINS: dict[str, type[Likelihood]]

def as_likelihood(likelihood: Any) -> Likelihood: ...
