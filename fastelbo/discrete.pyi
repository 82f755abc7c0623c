from typing import Literal

from fastelbo._typing import Missing, Number, Numbers
from fastelbo.likelihoods import Likelihood

class Poisson(Likelihood):
    log_input: bool
    def __init__(
        self, *, log_input: bool = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Binomial(Likelihood):
    total_count: Numbers
    def __init__(
        self, total_count: Numbers, *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class BetaBinomial(Binomial): ...

class DiscretizedLogistic(Likelihood):
    scale: Numbers | Literal["learned"]
    bins: int
    def __init__(
        self,
        scale: Numbers | Literal["learned"] = ...,
        *,
        bins: Number = ...,
        validate: bool = ...,
        missing: Missing = ...,
    ) -> None: ...

class DiscretizedLogisticMixture(Likelihood):
    bins: int
    def __init__(
        self, *, bins: Number = ..., validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class Categorical(Likelihood):
    def __init__(self, *, validate: bool = ..., missing: Missing = ...) -> None: ...
