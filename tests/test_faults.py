"""What goes wrong around a program, each a few times: `tests.faults` has the numbers."""

import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("signals, limits and /proc of Linux", allow_module_level=True)

from tests import faults

#: Of how often the page on reliability has them.
SHARES = {"threads": 0.01, "calls": 0.002, "disk": 0.2}


@pytest.mark.parametrize("name", faults.FAULTS)
def test_faults(name):
    function, times = faults.FAULTS[name]
    function(max(1, round(times * SHARES.get(name, 0.03))))
