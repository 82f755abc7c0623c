"""Files that are either written whole or not at all, and arrays with a header in one of them."""

import errno
import json
import math
import os
import secrets
import stat
import zipfile
from contextlib import contextmanager, suppress

import numpy as np
from numpy.lib import format as npy

#: What reading a damaged or foreign file can raise.
DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)

#: Where a file of this process has a name although it has none in a folder.
DESCRIPTORS = "/proc/self/fd"
#: How messages begin that complain of objects: numpy.load's and those here.
OBJECTS = ("Object arrays cannot be loaded", "a pickle")
#: What a pickle begins with, of any protocol since the second.
PICKLE = b"\x80"


@contextmanager
def replacing(path):
    """A binary file that takes the place of `path` once the block has ended without an error.

    It is on the disk by then, and has the mode of what it replaces. Symbolic links are followed;
    nothing but a regular file is replaced. Each call writes to a file of its own before.
    """
    path = name_of(path)
    mode = _mode_of(path)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        problem = f"there is no folder {os.path.dirname(path)!r} to write it to"
        raise FileNotFoundError(errno.ENOENT, problem, path)
    partial = os.path.join(folder, f".{secrets.token_hex(8)}.partial")  # fits where long names do
    try:
        with _new_file(folder, partial) as file:
            if mode is not None:
                os.chmod(file.name, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
            _give_name(file, folder, partial)
        os.replace(partial, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, partial):
            raise
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        with suppress(OSError):
            os.unlink(partial)
    _sync(folder)


def _new_file(folder, partial):
    """One that has no name yet, where the system can: whoever is killed leaves nothing behind."""
    with suppress(AttributeError, OSError):
        if os.path.isdir(DESCRIPTORS):
            descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
            return open(descriptor, "wb")
    return open(partial, "xb")


def _give_name(file, folder, partial):
    if file.name != partial:
        there = os.open(folder, os.O_RDONLY)  # with which Python has the link followed
        try:
            name = os.path.basename(partial)
            os.link(f"{DESCRIPTORS}/{file.fileno()}", name, dst_dir_fd=there)
        finally:
            os.close(there)


def name_of(path):
    """A path as a str."""
    try:
        return os.fsdecode(path)
    except TypeError:
        kind = type(path).__name__
        raise TypeError(f"path must be a str or path-like, got {kind}") from None


def _mode_of(path):
    """The permissions of the regular file there; None where there is nothing yet."""
    if not path or path.endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, "no name of a file", path)
    try:
        found = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except ValueError as error:  # a null byte
        raise ValueError(f"path {path!r}: {error}") from None
    _check_regular(path, found)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is not to be written to", path)
    return stat.S_IMODE(found)


def _check_regular(path, mode):
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder: name a file in it", path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a regular file", path)


def _sync(folder):
    """Have the name on the disk, too, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_arrays(path, kind, version, header, arrays):
    """A dict of arrays and a header that JSON can hold, as one .npz."""
    text = json.dumps({"kind": kind, "version": version, **header}, allow_nan=False)
    with replacing(path) as file:
        np.savez(file, header=np.frombuffer(text.encode(), np.uint8), **arrays)


def read_arrays(path, kind, version):
    """(header, arrays) of a file that `write_arrays` wrote; nothing in it is ever executed.

    The memory that is taken is no more than a few times what the file is long.
    """
    path = name_of(path)
    _check_regular(path, os.stat(path).st_mode)
    with open(path, "rb") as file:
        try:
            arrays = _members(file)
            header = json.loads(arrays.pop("header").tobytes(), parse_constant=_refuse)
            if header["kind"] != kind:
                problem = f"it is no {kind} file"
            elif header["version"] != version:
                problem = f"its format is {header['version']}, this fastelbo reads {version}"
            else:
                return header, arrays
        except DAMAGE as error:
            problem = what_is_wrong(error)
    raise ValueError(f"{path} cannot be loaded: {problem}")


def what_is_wrong(error):
    """What reading a file that raised one of DAMAGE says of it."""
    if str(error).startswith(OBJECTS):
        return "it holds Python objects (a pickle), which are never loaded: save arrays of numbers"
    return f"it is damaged or of another kind ({type(error).__name__})"


def _refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def _members(file):
    """The arrays of an .npz by name; those of a compressed one may be of any size, and are not."""
    length = os.fstat(file.fileno()).st_size
    start = file.read(len(npy.MAGIC_PREFIX))
    if start[:1] == PICKLE:
        raise ValueError("a pickle")
    if start == npy.MAGIC_PREFIX:
        file.seek(0)
        _array(file, length)
    with zipfile.ZipFile(file) as stored:
        members = stored.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed")
        if sum(member.file_size for member in members) > length:
            raise ValueError("members overlap")
        return {
            member.filename.removesuffix(".npy"): _array(stored.open(member), member.file_size)
            for member in members
        }


def _array(file, size):
    """An array of an .npz, once its header agrees with the size of the member."""
    with file:
        read_header = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }[npy.read_magic(file)]
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("a pickle")
        if min(shape, default=0) < 0 or file.tell() + math.prod(shape) * dtype.itemsize != size:
            raise ValueError("another size than its header says")
        flat = np.frombuffer(bytearray(file.read()), dtype)  # a bytearray: it can be written to
        return flat.reshape(shape, order="F" if fortran else "C")
