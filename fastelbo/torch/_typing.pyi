"""What the stubs of fastelbo.torch share; there is no such module at run time."""

from typing import Any, Protocol, TypeAlias

from torch import Tensor

Outputs: TypeAlias = Tensor | tuple[Tensor | float, ...]
Weight: TypeAlias = float | Tensor
# A number, or what an array became: nested tuples of numbers.
Fixed: TypeAlias = float | tuple[Any, ...]

class Prior(Protocol):
    def log_prob(self, z: Tensor, /) -> Tensor: ...
