from collections.abc import Callable
from typing import Final, Literal, Protocol

import numpy as np

from fastelbo._typing import AnyLikelihood

class _Handle(Protocol):
    @property
    def address(self) -> int: ...

API: Final[object]
api: Final[int]
CALL: Final[np.dtype[np.void]]
CODES: Final[dict[np.dtype, int]]

def likelihood(likelihood: AnyLikelihood, event: int = ...) -> _Handle: ...
def function(name: Literal["elbo", "kl", "backward", "iwae"]) -> Callable[..., int]: ...
