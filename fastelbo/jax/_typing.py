"""What annotations share. Only type checkers import it."""

from typing import Protocol, TypeAlias

from jax import Array
from jax.typing import ArrayLike

import fastelbo
from fastelbo._typing import LikelihoodName
from fastelbo.jax.likelihoods import Likelihood

Outputs: TypeAlias = ArrayLike | tuple[ArrayLike, ...]
AnyLikelihood: TypeAlias = Likelihood | fastelbo.Likelihood | LikelihoodName


class Prior(Protocol):
    def log_prob(self, z: Array, /) -> Array: ...


AnyPrior: TypeAlias = Prior | fastelbo.StandardNormal | fastelbo.MixtureOfGaussians
