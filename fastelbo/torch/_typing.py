"""What annotations of fastelbo.torch share."""

from typing import Any, Protocol, TypeAlias

from torch import Tensor

Outputs: TypeAlias = Tensor | tuple[Tensor | float, ...]
Weight: TypeAlias = float | Tensor
# A number, or what an array became: nested tuples of numbers.
Fixed: TypeAlias = float | tuple[Any, ...]


class Prior(Protocol):
    def log_prob(self, z: Tensor, /) -> Tensor: ...
