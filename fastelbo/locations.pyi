from typing import Literal

from fastelbo._typing import Missing, Number, Numbers
from fastelbo.likelihoods import Likelihood

class SquaredError(Likelihood):
    def __init__(self, *, x_scale: Number = ..., missing: Missing = ...) -> None: ...

class Gaussian(Likelihood):
    scale: Numbers | Literal["learned", "optimal"]
    def __init__(
        self,
        scale: Numbers | Literal["learned", "optimal"] = ...,
        *,
        x_scale: Number = ...,
        missing: Missing = ...,
    ) -> None: ...

class Laplace(Likelihood):
    scale: Numbers | Literal["learned"]
    def __init__(
        self,
        scale: Numbers | Literal["learned"] = ...,
        *,
        x_scale: Number = ...,
        missing: Missing = ...,
    ) -> None: ...

class StudentT(Likelihood):
    df: Numbers | Literal["learned"]
    scale: Numbers | Literal["learned"]
    def __init__(
        self,
        df: Numbers | Literal["learned"],
        scale: Numbers | Literal["learned"] = ...,
        *,
        x_scale: Number = ...,
        missing: Missing = ...,
    ) -> None: ...
