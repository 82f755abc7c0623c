"""Files that are either written whole or not at all, and arrays with a header in one of them."""

import json
import os
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

#: What reading a damaged or foreign file can raise.
_DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def replacing(path):
    """A binary file that takes the place of `path` once the block has ended without an error."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_arrays(path, kind, version, header, arrays):
    """A dict of arrays and a header that JSON can hold, as one .npz."""
    text = json.dumps({"kind": kind, "version": version, **header}, allow_nan=False)
    with replacing(path) as file:
        np.savez(file, header=np.frombuffer(text.encode(), np.uint8), **arrays)


def read_arrays(path, kind, version):
    """(header, arrays) of a file that `write_arrays` wrote; nothing in it is ever executed."""
    problem = None
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            header = json.loads(arrays.pop("header").tobytes())
            if header.get("kind") != kind:
                problem = f"it is no {kind} file"
            elif header.get("version") != version:
                problem = f"its format is {header.get('version')}, this fastelbo reads {version}"
        except _DAMAGE as error:
            problem = f"it is damaged or of another kind ({type(error).__name__})"
    if problem:
        raise ValueError(f"{os.fspath(path)} cannot be loaded: {problem}")
    return header, arrays
