"""The threads of NumPy's matrix products, where threadpoolctl is there to set them.

Threads of BLAS wait by spinning. Small products come back later from several of them than from
one, and many times later where other work wants the processors.
"""

from contextlib import contextmanager
from threading import Lock

#: Multiplications of a product from which on several threads are worth it.
WORTH_SEVERAL = 1 << 26

_lock = Lock()
_controller = None
_limiter = None
_inside = 0


@contextmanager
def threads_worth(multiplications):
    """One thread of BLAS inside the block, unless products are so large that several pay.

    The limit is the whole process's; it ends with the last of the blocks that overlap.
    """
    global _limiter, _inside
    if multiplications >= WORTH_SEVERAL or not _found():
        yield
        return
    with _lock:
        if _inside == 0:
            _limiter = _controller.limit(limits=1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limiter.restore_original_limits()


def _found():
    """Whether there is something to set threads by; looked for once."""
    global _controller
    if _controller is None:
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:
            return False
        with _lock:
            _controller = ThreadpoolController().select(user_api="blas")
    return True
