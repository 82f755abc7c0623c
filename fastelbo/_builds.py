"""The choice of build: which compilation of the kernels this process uses.

The widest instruction set that was compiled and that the processor and the operating system run;
``FASTELBO_BUILD`` overrides it.
"""

import functools
import importlib.util
import os

from fastelbo._openmp import Lazy

#: ImportError's name lets ``python -m fastelbo`` say this in one line, too.
NOT_COMPILED = ImportError(
    f"fastelbo is not compiled for this Python in {os.path.dirname(os.path.dirname(__file__))}: "
    "run `pip install .` there",
    name="fastelbo",
)

try:
    import fastelbo._processor as processor
except ModuleNotFoundError:
    raise NOT_COMPILED from None

#: Every build there can be, narrowest first.
NAMES = ("baseline", "avx2", "avx512")


def available():
    """Builds that were compiled into this installation and that this machine can run."""
    compiled = [name for name in NAMES if _is_compiled(name)]
    return tuple(name for name in compiled if processor.processor_runs(name))


def _is_compiled(name):
    try:
        return importlib.util.find_spec(f"fastelbo._kernels.{name}.latent") is not None
    except ModuleNotFoundError:
        return False


def _choose():
    runnable = available()
    wanted = os.environ.get("FASTELBO_BUILD")
    if not wanted:
        if not runnable:
            raise NOT_COMPILED
        return runnable[-1]
    if wanted not in NAMES:
        raise ImportError(f"FASTELBO_BUILD={wanted!r} is not a build; expected one of {NAMES}")
    if wanted not in runnable:
        why = "this processor cannot run it" if _is_compiled(wanted) else "it was not compiled"
        raise ImportError(f"FASTELBO_BUILD={wanted!r}: {why}; available here: {runnable}")
    return wanted


#: The build in use.
BUILD = _choose()


@functools.cache
def kernels(family):
    """The module of a family of passes, in the build in use; imported when first used."""
    return Lazy(f"fastelbo._kernels.{BUILD}.{family}")
