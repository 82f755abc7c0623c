"""What annotations of fastelbo.torch share."""

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    import fastelbo
    from fastelbo._typing import LikelihoodName
    from fastelbo.torch.likelihoods import Likelihood

    # One of this package's, or of fastelbo's, whose twin is taken.
    AnyLikelihood: TypeAlias = Likelihood | fastelbo.Likelihood | LikelihoodName

Outputs: TypeAlias = Tensor | tuple[Tensor | float, ...]
Weight: TypeAlias = float | Tensor


class Prior(Protocol):
    def log_prob(self, z: Tensor, /) -> Tensor: ...


if TYPE_CHECKING:
    # One that PyTorch can differentiate, or of fastelbo's, whose twin is taken.
    AnyPrior: TypeAlias = (
        Prior | fastelbo.StandardNormal | fastelbo.MixtureOfGaussians | Literal["standard"]
    )
