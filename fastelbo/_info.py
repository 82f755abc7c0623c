"""What this installation of fastelbo is and what it runs on."""

from __future__ import annotations

import os
import platform
from typing import TypedDict

import numpy as np

from fastelbo import _builds
from fastelbo._openmp import runtime
from fastelbo._threads import get_num_threads

__version__ = "0.1.0"


class BuildInfo(TypedDict):
    """The keys of :func:`build_info`."""

    fastelbo: str
    build: str
    builds: tuple[str, ...]
    openmp: int
    threads: int
    numpy: str
    python: str


def build_info() -> BuildInfo:
    """Build in use, builds available, OpenMP, threads and versions.

    Returns
    -------
    dict
        ``build``: the one in use; ``builds``: those that this machine can run; ``openmp``: date of
        the OpenMP standard compiled against, 0 without OpenMP (kernels then run on one thread);
        ``threads``: what a large call would use; ``fastelbo``, ``numpy``, ``python``: versions.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.build_info()["build"] in fastelbo.build_info()["builds"]
    True
    """
    return {
        "fastelbo": __version__,
        "build": _builds.BUILD,
        "builds": _builds.available(),
        "openmp": runtime.openmp(),
        "threads": get_num_threads(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def get_include() -> str:
    """The folder of ``fastelbo.h``, for compilers: the C interface, see ``fastelbo.capi``.

    Returns
    -------
    str

    Examples
    --------
    >>> import os
    >>> import fastelbo
    >>> os.listdir(fastelbo.get_include())
    ['fastelbo.h']
    """
    return os.path.join(os.path.dirname(__file__), "include")
