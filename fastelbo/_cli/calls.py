"""What calls cost by themselves: public functions on one element, in units of np.add."""

import time
from functools import partial

import numpy as np

import fastelbo
from fastelbo._catalogue import ROWS
from fastelbo._cli.contenders import call_of

#: What everything is compared with: its name and its call.
UNIT = "np.add"
#: One of everything that there may be one of.
ONE = {"B": 1, "D": (1,), "L": 1, "K": 1, "N": 1}
#: Seconds of one burst of calls.
BURST = 5e-4


def _call_of(case):
    """What a case calls, on a problem of one element; None if it calls several things."""
    call = call_of(case, fastelbo, case.given(case.draw(0, **ONE)))
    return None if call.func == case.call else call


def measure(names, rounds):
    """{name: seconds of np.add, then of rows (likelihoods in all forms) and their _and_grad in
    units of it}."""
    one, two, out = np.ones(1), np.ones(1), np.empty(1)
    calls = {UNIT: partial(np.add, one, two, out=out)}
    for name in names:
        for case in ROWS[name].cases:
            known = case.likelihood or case.name in (name, f"{name}_and_grad")
            if known and (call := _call_of(case)):
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
