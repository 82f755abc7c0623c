"""Any input at all: a right answer or a ValueError or TypeError, and no input changed.

`tests.fuzz` says what a problem is, and goes on for as long as it is let.
"""

import pytest

from tests import fuzz

#: How many problems of each kind: a few seconds of them.
PROBLEMS = {fuzz.kernels: 300, fuzz.torch: 60, fuzz.jax: 3, fuzz.models: 60, fuzz.files: 40}


@pytest.mark.parametrize("kind", fuzz.KINDS, ids=lambda kind: kind.__name__)
def test_any_input(kind):
    if kind.__name__ in fuzz.FRAMEWORKS:
        pytest.importorskip(kind.__name__)
    calls = answered = 0
    for number in range(PROBLEMS.get(kind, 20)):
        try:
            _, made, right = fuzz.problem(number, kind)
        except BaseException as error:
            error.add_note(f"problem {number} of {kind.__name__}: {fuzz.noted}")
            raise
        calls += made
        answered += right
    assert answered > 0.2 * calls or kind in (fuzz.files, fuzz.commands)  # mostly refused, these
