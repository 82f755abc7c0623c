"""The thread rule, the only one.

``num_threads=`` of the call, else what ``set_num_threads`` or the ``num_threads`` context set, else
OpenMP's maximum (so ``OMP_NUM_THREADS`` and threadpoolctl work); never more than the CPUs this
process may use, never more than the work is worth, and one in a forked child, where OpenMP's
threads no longer exist and waiting for them would hang. That is the most that run: where they turn
out not to pay, ``_runtime.pyx`` leaves all to one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fastelbo._arguments import as_whole
from fastelbo._openmp import runtime

if TYPE_CHECKING:
    from collections.abc import Generator

    from fastelbo._typing import Threads

#: Element updates that pay for waking one more thread (fork and join cost about 0.4 us).
ELEMENTS_PER_THREAD = 8192
WORTH_TWO = 2 * ELEMENTS_PER_THREAD

_default = None
#: Called when `set_num_threads` has changed it, for handlers that run without Python.
followers = []
_override = ContextVar("fastelbo_num_threads", default=None)
_forked = False


def _after_fork():
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def check(n, name="num_threads"):
    """A thread count as a positive int, or None."""
    return as_whole(n, name, 1, optional=True)


def threads_for(work, num_threads=None):
    """Threads for a pass over `work` elements."""
    if num_threads is not None:
        num_threads = check(num_threads)
    if work < WORTH_TWO or _forked:
        return 1
    wanted = num_threads or _override.get() or _default
    cpus = runtime.usable_threads() if wanted is None else runtime.usable_cpus()
    worth = work // ELEMENTS_PER_THREAD
    runtime.expect(work)
    most = cpus if cpus < worth else worth  # comparisons: min and max are half of the cost
    return wanted if wanted is not None and wanted < most else most


def set_num_threads(n: Threads) -> None:
    """Set how many threads fastelbo uses unless a call says otherwise.

    Parameters
    ----------
    n : int or None
        At least 1; ``None`` goes back to OpenMP's maximum. Never more threads run than this
        process has CPUs.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.set_num_threads(1)
    >>> fastelbo.get_num_threads()
    1
    >>> fastelbo.set_num_threads(None)
    """
    global _default
    _default = check(n, "n")
    for follow in followers:
        follow()


def get_num_threads() -> int:
    """How many threads a large call would use now.

    Returns
    -------
    int

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.get_num_threads() >= 1
    True
    """
    return threads_for(1 << 62)


@contextmanager
def num_threads(n: Threads) -> Generator[None]:
    """Use `n` threads inside a ``with`` block, in this Python thread or task only.

    Parameters
    ----------
    n : int or None
        As for :func:`set_num_threads`.

    Examples
    --------
    >>> import fastelbo
    >>> with fastelbo.num_threads(1):
    ...     fastelbo.get_num_threads()
    1
    """
    token = _override.set(check(n, "n"))
    try:
        yield
    finally:
        _override.reset(token)
