"""mixture_of_experts and its gradients."""

import numpy as np
import pytest

from fastelbo import mixture_of_experts
from tests.experts import draw


def test_errors():
    mu, logvar = draw(np.float64)
    z = np.zeros(mu.shape[1:])
    for name, arrays in [("z", (z[:3], mu, logvar)), ("z", (z[0], mu, logvar)), ("mu", (z, z, z))]:
        with pytest.raises(ValueError, match=f"^{name} has shape"):
            mixture_of_experts(*arrays)
    with pytest.raises(ValueError, match="mask leaves no expert"):
        mixture_of_experts(z, mu, logvar, np.zeros((3, 5), bool))
    with pytest.raises(ValueError, match="reduction"):
        mixture_of_experts(z, mu, logvar, reduction="median")
