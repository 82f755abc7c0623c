from typing import Literal

from torch import Tensor

from fastelbo._typing import Missing, Numbers, Reduction
from fastelbo.torch._typing import Fixed

class Likelihood:
    @property
    def parameters(self) -> tuple[str, ...]: ...
    def log_prob(
        self,
        x: Tensor,
        *parameters: Tensor | float,
        mask: Tensor | None = ...,
        reduction: Reduction = ...,
    ) -> Tensor: ...

class SquaredError(Likelihood):
    def __init__(self, *, x_scale: float = ..., missing: Missing = ...) -> None: ...

class Gaussian(Likelihood):
    scale: Fixed | Literal["learned", "optimal"]
    def __init__(
        self,
        scale: Numbers | Tensor | Literal["learned", "optimal"] = ...,
        *,
        x_scale: float = ...,
        missing: Missing = ...,
    ) -> None: ...

class Laplace(Likelihood):
    scale: Fixed | Literal["learned"]
    def __init__(
        self,
        scale: Numbers | Tensor | Literal["learned"] = ...,
        *,
        x_scale: float = ...,
        missing: Missing = ...,
    ) -> None: ...

class StudentT(Likelihood):
    df: Fixed | Literal["learned"]
    scale: Fixed | Literal["learned"]
    def __init__(
        self,
        df: Numbers | Tensor | Literal["learned"],
        scale: Numbers | Tensor | Literal["learned"] = ...,
        *,
        x_scale: float = ...,
        missing: Missing = ...,
    ) -> None: ...

class Bernoulli(Likelihood):
    def __init__(
        self, *, x_scale: float = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class ContinuousBernoulli(Bernoulli): ...

class Poisson(Likelihood):
    log_input: bool
    def __init__(
        self, *, log_input: bool = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Binomial(Likelihood):
    total_count: Fixed
    def __init__(
        self, total_count: Numbers | Tensor, *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class BetaBinomial(Binomial): ...

class DiscretizedLogistic(Likelihood):
    scale: Fixed | Literal["learned"]
    bins: int
    def __init__(
        self,
        scale: Numbers | Tensor | Literal["learned"] = ...,
        *,
        bins: int = ...,
        validate: bool = ...,
        missing: Missing = ...,
    ) -> None: ...

class DiscretizedLogisticMixture(Likelihood):
    bins: int
    def __init__(
        self, *, bins: int = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Categorical(Likelihood):
    def __init__(self, *, validate: bool = ..., missing: Missing = ...) -> None: ...

class NegativeBinomial(Likelihood):
    theta: Fixed | None
    def __init__(
        self, theta: Numbers | Tensor | None = ..., *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class ZeroInflatedNegativeBinomial(NegativeBinomial): ...
