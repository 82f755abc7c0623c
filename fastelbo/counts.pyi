from fastelbo._typing import Missing, Numbers
from fastelbo.likelihoods import Likelihood

class NegativeBinomial(Likelihood):
    theta: Numbers | None
    def __init__(
        self, theta: Numbers | None = ..., *, validate: bool = ..., missing: Missing = ...
    ) -> None: ...

class ZeroInflatedNegativeBinomial(NegativeBinomial): ...
