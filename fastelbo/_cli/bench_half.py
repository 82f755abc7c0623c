"""What half precision saves: the same arrays in float32, and as they may be stored, x in bytes."""

import statistics

import numpy as np

from fastelbo._catalogue import CASES, TOLERANCE, flatten
from fastelbo._catalogue._compare import worst_error
from fastelbo._cli import _common
from fastelbo._cli.contenders import Fastelbo
from fastelbo._cli.measure import size_of

#: What others are compared with.
WHOLE = "float32"


def entries_of(entries):
    """Those whose gradients come in half precision, and whose x may be whole numbers."""
    for entry in entries:
        case = CASES[entry.case]
        if case.halves and "x" in case.constants and not case.draws_noise:
            yield entry


def storages():
    """{name: (dtype of x, dtype of all else)}."""
    found = {WHOLE: (np.float32, np.float32), "uint8, float16": (np.uint8, np.float16)}
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return found
    return {**found, "uint8, bfloat16": (np.uint8, bfloat16)}


def measure(entries, threads, rounds, burst):
    """A dict for each entry and storage: its times, and how many times float32's speed it has."""
    return [row for entry in entries_of(entries) for row in _measure(entry, threads, rounds, burst)]


def _measure(entry, threads, rounds, burst):
    case, contender = CASES[entry.case], Fastelbo(threads, WHOLE)
    drawn = case.draw(2026, WHOLE, **entry.extents)
    drawn["x"] = np.rint(drawn["x"])
    rows, calls = {}, {}
    for storage, (of_x, of_others) in storages().items():
        arrays = {name: a.astype(of_others) for name, a in drawn.items()}
        arrays["x"] = drawn["x"].astype(of_x)
        call = contender.bind(case, arrays)
        wide = [a.astype(np.float64) for a in arrays.values()]
        desired = CASES[entry.case.removesuffix("_and_grad")].reference(*wide)
        error = worst_error(contender.numpy(call())[0], flatten((desired,))[0], WHOLE)
        rows[storage] = {
            "case": case.name,
            "title": entry.title,
            "size": size_of(case, entry.extents),
            "storage": storage,
            "error": error,
            "disagrees": not error <= TOLERANCE[np.dtype(WHOLE)],
        }
        if not rows[storage]["disagrees"]:
            calls[storage] = call
    for storage, seconds in _common.take_turns(calls, rounds, burst).items():
        rows[storage] |= {"minimum": min(seconds), "median": statistics.median(seconds)}
    for row in rows.values():
        if "minimum" in row and "minimum" in rows[WHOLE]:
            row["speedup"] = rows[WHOLE]["minimum"] / row["minimum"]
    return rows.values()
