"""What calls cost by themselves: public functions on one element, in units of np.add."""

import time
from functools import partial

import numpy as np

import fastelbo
from fastelbo._catalogue import ROWS

#: What everything is compared with: its name and its call.
UNIT = "np.add"
#: One of everything that there may be one of.
ONE = {"B": 1, "D": (1,), "L": 1, "K": 1, "N": 1}
#: Seconds of one burst of calls.
BURST = 5e-4


class _Noting:
    """fastelbo, that notes the calls of its functions."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        found = getattr(fastelbo, name)
        return found if isinstance(found, type) else partial(self._call, found)

    def _call(self, function, *arguments, **options):
        self.calls.append(partial(function, *arguments, **options))
        return self.calls[-1]()


def call_of(case):
    """The one call that a case makes, on a problem of one element; None if there are more, or it is
    none of such a problem."""
    arrays = case.given(case.draw(0, **ONE))
    if case.likelihood:
        method = f"log_prob{'_and_grad' * case.gives_gradients}"
        return partial(getattr(case.likelihood.make(fastelbo), method), *arrays)
    noting = _Noting()
    try:
        case.call(noting, *arrays)
    except ValueError:
        return None
    return noting.calls[0] if len(noting.calls) == 1 else None


def measure(names, rounds):
    """{name: seconds of np.add, then of rows (likelihoods in all forms) and their _and_grad in
    units of it}."""
    one, two, out = np.ones(1), np.ones(1), np.empty(1)
    calls = {UNIT: partial(np.add, one, two, out=out)}
    for name in names:
        for case in ROWS[name].cases:
            known = case.likelihood or case.name in (name, f"{name}_and_grad")
            if known and (call := call_of(case)):
                calls[case.name] = call
    best = dict.fromkeys(calls, np.inf)
    for _ in range(10 * rounds):
        for name, call in calls.items():
            best[name] = min(best[name], _seconds(call, best[name]))
    unit = best.pop(UNIT)
    return {UNIT: unit, **{name: seconds / unit for name, seconds in best.items()}}


def _seconds(call, about):
    """Of a call, in a burst of them; `about` so many, as far as is known."""
    count = max(1, min(200, int(BURST / about)))
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count
