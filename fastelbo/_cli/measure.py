"""How `bench` measures: times in turns, peak memory, errors, what memory traffic alone takes."""

import ctypes
import statistics
import tracemalloc
from dataclasses import dataclass
from functools import partial

import numpy as np

from fastelbo._catalogue import AXES, CASES, TOLERANCE, flatten
from fastelbo._catalogue._compare import worst_error
from fastelbo._cli import contenders
from fastelbo._cli._common import take_turns

#: Errors up to this, relative to the largest entry, are rounding of others: sums in float32.
THEIRS = {"float64": 1e-10, "float32": 1e-4}


def peak_memory(contender, call):
    """Bytes that a call needs at most on top of what was there, its results included.

    What NumPy allocates is traced exactly; of other frameworks the growth of the resident set is
    taken, after unused memory has been given back, or the size of the results where that is more:
    frameworks keep small buffers for the next call. None where the system does not tell.
    """
    if contender.memory == "numpy":
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    results = sum(a.size for a in contender.numpy(call())) * contender.dtype.itemsize
    try:
        return max(results, statistics.median(_resident_growth(call) for _ in range(3)))
    except (OSError, AttributeError, KeyError):
        return None


def _resident_growth(call):
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    before = _status()["VmRSS"]
    call()
    return max(0, _status()["VmHWM"] - before)


def _status():
    with open("/proc/self/status") as file:
        lines = (line.split() for line in file)
        return {words[0][:-1]: 1024 * int(words[1]) for words in lines if words[0].startswith("Vm")}


def error_of_largest(actual, desired):
    """The largest error, relative to the largest entry of its array."""
    worst = 0.0
    for a, d in zip(actual, desired, strict=False):
        d = np.asarray(d, np.float64)
        if a.shape != d.shape:
            return np.inf
        error = np.max(np.abs(a - d)) / max(np.max(np.abs(d)), np.finfo(np.float64).tiny)
        worst = max(worst, float(error)) if error == error else np.inf
    return worst


@dataclass
class Time:
    """One contender in one case, times in seconds."""

    case: str
    title: str
    size: str
    dtype: str
    label: str
    threads: int
    minimum: float | None = None
    median: float | None = None
    calls: int = 0
    speedup: float | None = None  # over NumPy
    memory: float | None = None  # bytes
    of_bandwidth: float | None = None  # of what memory traffic alone reaches
    error: float = 0.0
    disagrees: bool = False
    best_peer: str | None = None  # of ours: the fastest that others write
    ahead: float | None = None  # its time over this one

    @property
    def is_ours(self):
        return self.label.startswith("fastelbo")

    @property
    def is_traffic(self):
        return self.label.startswith("memory")


def measure(entry, dtype, entrants, rounds, burst, extents=None):
    """A Time per contender that computes the case, then those of the memory traffic alone."""
    case, extents = CASES[entry.case], entry.extents if extents is None else extents
    arrays = case.draw(2026, dtype, **extents)
    desired = case.shared(flatten(case.reference(*arrays.values())))
    scales = case.shared(case.scales(arrays.values()))
    new = partial(Time, case.name, entry.title, size_of(case, extents), dtype)
    times, calls = {}, {}
    for contender in entrants:
        call = contender.bind(case, arrays)
        if call is None:
            continue
        times[contender.label] = time = new(contender.label, contender.threads)
        found = case.shared(contender.results(case, arrays, call))
        time.error = error_of_largest(found, desired)
        if time.is_ours:
            error, bound = worst_error(found, desired, dtype, scales), TOLERANCE[np.dtype(dtype)]
        else:
            error, bound = time.error, max(THEIRS[dtype], entry.error)
        time.disagrees = not error <= bound
        if not time.disagrees:
            time.memory = peak_memory(contender, call)
            calls[time.label] = call
    for machine, call in _traffic(case, arrays, times.values(), dtype):
        times[machine.label], calls[machine.label] = new(machine.label, machine.threads), call
    for label, seconds in take_turns(calls, rounds, burst).items():
        times[label].minimum = min(seconds)
        times[label].median = statistics.median(seconds)
        times[label].calls = len(seconds)
    _compare(case, arrays, times.values())
    return list(times.values())


def size_of(case, extents):
    """The extents of a case's arrays as text: "B 128, D 784"."""
    letters = dict.fromkeys("".join(case.inputs.values()))
    extents = {**AXES, **extents}
    return ", ".join(f"{letter} {extents[letter]}" for letter in letters)


def _events(case):
    """The names of the arrays of all events: x, and what is read, and may be written, beside it."""
    return [name for name, axes in case.inputs.items() if axes == "BD"]


def _traffic(case, arrays, times, dtype):
    """(machine, call) of what only moves memory, where two arrays of events are read whole."""
    events = _events(case)
    if len(events) != 2 or case.sparse:
        return
    writes = events[1] in case.outs
    for threads in sorted({time.threads for time in times if time.is_ours}):
        for streamed in (False, True) if writes else (False,):
            machine = contenders.Machine(threads, dtype, streamed)
            yield machine, machine.traffic(*(arrays[name] for name in events), writes)


def _compare(case, arrays, times):
    """Fill in what is relative to other rows."""
    numpy = next((t.minimum for t in times if t.label == contenders.NumPy.label), None)
    moved = [*arrays, *(name for name in case.outs if name in arrays)]
    everything = sum(arrays[name].nbytes for name in moved)
    large = sum(arrays[name].nbytes for name in moved if name in _events(case))
    peers = [t for t in times if t.minimum and not (t.is_ours or t.is_traffic or t.disagrees)]
    best = min(peers, key=lambda t: t.minimum, default=None)
    for time in times:
        if time.minimum is None:
            continue
        if best and time.is_ours:
            time.best_peer, time.ahead = best.label, best.minimum / time.minimum
        if numpy:
            time.speedup = numpy / time.minimum
        alone = [t.minimum for t in times if t.is_traffic and t.threads == time.threads]
        if alone and time.is_ours:
            time.of_bandwidth = (everything / time.minimum) / (large / min(alone))
