# Input checks and allocation: the only ones. What leaves here is safe for a pass to read and write.
#
# A pass reads any aligned array of native byte order whose last axis is contiguous (or broadcast):
# such arrays are borrowed as they are, everything else is converted once, here.

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

import numpy as np

from fastelbo import _builds
from fastelbo._kernels.operands cimport NPY_HALF

cnp.import_array()

cdef object _kernels = _builds.kernels("latent")

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

cdef enum:
    MAX_AXES = 9           # axes that a pass can stride over: MAX_OUTER and a contiguous one


cdef inline bint plain(object obj) noexcept:
    """A NumPy array, and no subclass, that passes can read in place."""
    cdef cnp.ndarray a
    cdef int last
    if type(obj) is not cnp.ndarray:
        return False
    a = <cnp.ndarray>obj
    if not cnp.PyArray_ISBEHAVED_RO(a):
        return False
    if cnp.PyArray_IS_C_CONTIGUOUS(a):
        return True
    last = cnp.PyArray_NDIM(a) - 1
    if cnp.PyArray_DIM(a, last) <= 1:
        return True
    return (cnp.PyArray_STRIDE(a, last) == cnp.PyArray_ITEMSIZE(a)
            or cnp.PyArray_STRIDE(a, last) == 0)


cdef inline bint is_float(object obj) noexcept:
    cdef int t = cnp.PyArray_TYPE(<cnp.ndarray>obj)
    return t == cnp.NPY_FLOAT or t == cnp.NPY_DOUBLE


def as_any_array(obj, str name):
    """What numpy.asarray makes of it, or a TypeError that names the argument."""
    if hasattr(obj, "toarray"):
        raise TypeError(f"{name} is a sparse matrix: pass {name}.toarray()")
    if getattr(obj, "requires_grad", False):
        raise TypeError(f"{name} is a tensor that requires a gradient, which would be lost here: "
                        f"fastelbo.torch has the same for tensors (or pass {name}.detach())")
    try:
        return np.asarray(obj)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from None


def is_half(dtype):
    """Whether it is float16, or the bfloat16 of ml_dtypes, which need not be there."""
    return dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16")


def half_of(obj):
    """The dtype of an array of half precision; None for anything else."""
    dtype = getattr(obj, "dtype", None)
    half = isinstance(dtype, np.dtype) and is_half(dtype)
    return dtype.newbyteorder("=") if half else None


def arithmetic(dtype):
    """The dtype that a pass computes in, of one that it reads."""
    return FLOAT32 if is_half(dtype) else dtype


def _as_array(obj, str name):
    if isinstance(obj, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fastelbo would ignore its mask, so pass plain data")
    a = as_any_array(obj, name)
    if a.dtype.kind not in "fiub" and not is_half(a.dtype):
        raise TypeError(f"{name} must hold real numbers, got dtype {a.dtype}")
    return a


def _readable(a, dtype):
    """a, or a copy of it, as passes can read it."""
    a = np.require(a, dtype.newbyteorder("="), ["ALIGNED"])
    if not plain(a):
        a = np.ascontiguousarray(a)
    return a


def as_scalar(number, dtype, str name):
    """A Python number as an array of this dtype, as NumPy's operators take it."""
    try:
        return np.asarray(number, dtype)
    except OverflowError:
        raise ValueError(f"{name} is larger than a float64 can be") from None


cpdef cnp.ndarray as_floats(object obj, str name):
    """A float32 or float64 array; integers become float64, half precision float32."""
    if plain(obj) and is_float(obj):
        return <cnp.ndarray>obj
    a = _as_array(obj, name)
    if is_half(a.dtype):
        return widened(a)
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        dtype = FLOAT64
    else:
        dtype = a.dtype
    return _readable(a, dtype)


cdef cnp.ndarray widened(cnp.ndarray half):
    """float32 of half precision: casts of NumPy take it number by number."""
    cdef cnp.ndarray out = cnp.PyArray_EMPTY(
        cnp.PyArray_NDIM(half), cnp.PyArray_DIMS(half), cnp.NPY_FLOAT, 0)
    if not cnp.PyArray_ISCARRAY_RO(half):
        half = np.require(half, half.dtype.newbyteorder("="), ["C", "ALIGNED"])
    _kernels.convert(half, cnp.PyArray_TYPE(half) != NPY_HALF, out, False)
    return out


cdef hand(cnp.ndarray source, cnp.ndarray gradient):
    """Write a gradient in the precision that was given: NumPy's cast to half precision reports each
    number that it rounds to a denormal.
    """
    if (cnp.PyArray_ISCARRAY(gradient) and cnp.PyArray_ISCARRAY_RO(source)
            and cnp.PyArray_TYPE(source) == cnp.NPY_FLOAT and cnp.PyArray_ITEMSIZE(gradient) == 2
            and cnp.PyArray_SIZE(source) == cnp.PyArray_SIZE(gradient)):
        _kernels.convert(gradient, cnp.PyArray_TYPE(gradient) != NPY_HALF, source, True)
        return
    with np.errstate(over="ignore", under="ignore"):
        gradient[...] = source


cdef cnp.ndarray _as_outputs(object obj, str name, bint halves):
    """as_floats, which with `halves` leaves half precision as it is."""
    if halves and half_of(obj) is not None:
        return _readable(_as_array(obj, name), half_of(obj))
    return as_floats(obj, name)


cpdef cnp.ndarray as_data(object obj, str name):
    """An array of any real dtype, left in that dtype (longdouble aside)."""
    if plain(obj) and is_float(obj):
        return <cnp.ndarray>obj
    a = _as_array(obj, name)
    if a.dtype.kind == "f" and a.dtype.itemsize > 8:
        return as_floats(a, name)
    if a.dtype.kind == "b":
        a = a.view(np.uint8)
    return _readable(a, a.dtype)


cpdef cnp.ndarray few_axes(cnp.ndarray a):
    """a itself, or a contiguous copy if a pass could not stride over so many axes."""
    return a if cnp.PyArray_NDIM(a) <= MAX_AXES else np.ascontiguousarray(a)


cpdef cnp.ndarray in_dtype(cnp.ndarray a, bint single, bint halves=False):
    """a itself if it has the dtype of the pass, else a converted copy.

    With `halves` one in float32 reads half precision as it is.
    """
    if cnp.PyArray_TYPE(a) == (cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE):
        return a
    if halves and single and cnp.PyArray_ITEMSIZE(a) == 2:
        return a
    return a.astype(np.float32 if single else np.float64, order="C")  # "K" transposes a broadcast


cdef inline cnp.ndarray with_rows(cnp.ndarray a):
    """a itself if its rows are contiguous, a copy if they are one number each."""
    cdef int last = cnp.PyArray_NDIM(a) - 1
    if last < 0 or cnp.PyArray_DIM(a, last) <= 1 or cnp.PyArray_STRIDE(a, last) != 0:
        return a
    return np.ascontiguousarray(a)


cpdef cnp.ndarray as_rows(object obj, str name, bint single):
    """A float array in the dtype of the pass, its last axis contiguous."""
    return with_rows(in_dtype(as_floats(obj, name), single))


cdef inline tuple shape_of(object a):
    return a.shape


cdef inline bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int d
    if cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(b, d):
            return False
    return True


def shape_error(str name, got, str wanted):
    return ValueError(f"{name} has shape {tuple(got)}, expected {wanted}")


def empty_error(str name, got, str axis):
    what = "an empty batch" if axis == "batch" else f"no {axis}"
    return ValueError(f"{name} has {what}: shape {tuple(got)}")


cpdef tuple gaussians(object mu, object logvar, tuple axes=("batch",), str mu_name="mu",
                      str logvar_name="logvar"):
    """mu and logvar as float arrays of one shape: these axes, none of them empty, and the latents'."""
    cdef cnp.ndarray m = as_floats(mu, mu_name), v = as_floats(logvar, logvar_name)
    cdef Py_ssize_t d
    if cnp.PyArray_NDIM(m) != len(axes) + 1:
        raise shape_error(mu_name, shape_of(m), f"({', '.join(axes)}, latent dimensions)")
    if not same_shape(m, v):
        raise shape_error(logvar_name, shape_of(v), f"that of {mu_name}, {shape_of(m)}")
    for d in range(len(axes)):
        if cnp.PyArray_DIM(m, <int>d) == 0:
            raise empty_error(mu_name, shape_of(m), axes[d])
    return m, v


cpdef tuple latents(object mu, object logvar, str mu_name="mu", str logvar_name="logvar",
                    Py_ssize_t batch=-1):
    """mu and logvar as (B, L) arrays of one float dtype; B is `batch`, that of x, if one is given."""
    cdef cnp.ndarray m, v
    m, v = gaussians(mu, logvar, ("batch",), mu_name, logvar_name)
    if batch >= 0 and cnp.PyArray_DIM(m, 0) != batch:
        raise shape_error(mu_name, shape_of(m), f"({batch}, latent dimensions) like x")
    if cnp.PyArray_TYPE(m) != cnp.PyArray_TYPE(v):
        m = in_dtype(m, False)
        v = in_dtype(v, False)
    return with_rows(m), with_rows(v)


include "_csr.pxi"


cdef SparseRows _sparse_rows(object x, Layout layout):
    """Sparse x, where the likelihood reads it."""
    if layout is None or not layout.sparse:
        raise TypeError(f"x is a sparse matrix: pass x.toarray() (only {READS_SPARSE} read it as it is)")
    if type(x) is SparseRows:
        return x
    form = getattr(x, "format", None)
    if form != "csr":
        raise TypeError(f"x is a sparse matrix in the format {form!r}: pass x.tocsr()")
    return csr(x.shape, x.indptr, x.indices, x.data)


cdef class Layout:
    """How the parameters of a likelihood lie over x.

    Ordinarily the first has the shape of x and the others broadcast to it. With `extra`, the name
    of an axis that x lacks, all have one shape, with that axis at `axis`: 1 for after the batch, -1
    for the last, of `extent` numbers if that is not 0. The parameter called `kept` is not
    broadcast, and as a Python number takes the dtype of the first, as with NumPy's operators. With
    `width_of` x is a matrix, and the only parameter has so many columns as that says for those of
    x. `sparse`: x may be a sparse matrix.
    """

    def __init__(self, str extra=None, int axis=-1, str kept=None, Py_ssize_t extent=0,
                 object width_of=None, bint sparse=False):
        self.extra, self.axis, self.kept, self.sparse = extra, axis, kept, sparse
        self.extent, self.width_of = extent, width_of
        self.more_axes = extra is not None

    cdef tuple over(self, cnp.ndarray first, str name, cnp.ndarray x, int sample_axes):
        """The shape of the first parameter without its extra axis: that of x, but for samples."""
        cdef tuple shape = shape_of(first)
        cdef list wanted = list(shape_of(x))
        cdef Py_ssize_t at = len(wanted) if self.axis < 0 else self.axis
        cdef tuple rest = shape[:sample_axes + at] + shape[sample_axes + at + 1:]
        if len(shape) != len(rest) + 1 or rest[sample_axes:] != shape_of(x):
            wanted.insert(at, self.extra)
            wanted = ["samples"] * sample_axes + wanted
            raise shape_error(name, shape, f"({', '.join(map(str, wanted))}) like x")
        if shape[sample_axes + at] == 0:
            raise empty_error(name, shape, self.extra)
        if self.extent and shape[sample_axes + at] != self.extent:
            raise shape_error(name, shape, f"{self.extent} {self.extra}")
        return rest

    cdef tuple beside(self, cnp.ndarray first, str name, cnp.ndarray x, int sample_axes):
        """The shape of x, with samples in front, of an only parameter with columns of its own."""
        cdef tuple shape = shape_of(first), of_x = shape_of(x)
        if len(of_x) != 2:
            raise shape_error("x", of_x, "(batch, columns)")
        wanted = (of_x[0], self.width_of(of_x[1]))
        if len(shape) != sample_axes + 2 or shape[sample_axes:] != wanted:
            wanted = ("samples",) * sample_axes + wanted
            raise shape_error(name, shape, f"({', '.join(map(str, wanted))})")
        return shape[:sample_axes] + of_x


cpdef tuple event(object x, object parameters, tuple names, int sample_axes=0, Layout layout=None,
                  bint halves=False):
    """x and the parameters of its likelihood, broadcast to one shape as the layout (None: the
    ordinary one) has it.

    The first parameter sets the shape: that of x, (B, ...), with `sample_axes` more in front. A
    scalar event is (B,). Of sparse x, SparseRows come back. With `halves` parameters of half precision
    stay as they are.
    """
    cdef SparseRows rows = None
    cdef cnp.ndarray data, other
    cdef cnp.ndarray first = few_axes(_as_outputs(parameters[0], names[0], halves))
    cdef bint extra = layout is not None and layout.more_axes
    cdef bint kept
    cdef object over
    cdef int i
    cdef list checked
    if type(x) is not cnp.ndarray and is_sparse(x):
        rows = _sparse_rows(x, layout)
        data = rows.starts
    else:
        data = few_axes(as_data(x, "x"))
    if cnp.PyArray_NDIM(data) == 0:
        raise shape_error("x", shape_of(data), "(batch, ...)")
    if cnp.PyArray_DIM(data, 0) == 0:
        raise empty_error("x", shape_of(data), "batch")
    if extra:
        over = layout.over(first, names[0], data, sample_axes)
        first = with_rows(first)
    elif layout is not None and layout.width_of is not None:
        over = layout.beside(first, names[0], data, sample_axes)
        first = with_rows(first)
    elif sample_axes == 0:
        if not same_shape(data, first):
            raise shape_error(names[0], shape_of(first), f"that of x, {shape_of(data)}")
    else:
        over = shape_of(first)
        if over[sample_axes:] != shape_of(data):
            raise shape_error(names[0], over, f"(samples, ...) over that of x, {shape_of(data)}")
    if sample_axes > 0:
        if 0 in over[:sample_axes]:
            raise empty_error(names[0], shape_of(first), "samples")
        data = np.broadcast_to(data, over)
    over = data if rows is None else rows.over(data)
    if len(parameters) == 1:
        return over, (first,)
    read = over
    checked = [first]
    for i in range(1, len(parameters)):
        kept = layout is not None and layout.kept == names[i]
        value = parameters[i]
        if kept and type(value) in (int, float):
            value = as_scalar(value, arithmetic(first.dtype), names[i])
        other = _as_outputs(value, names[i], halves)
        if not same_shape(first, other):
            if extra:
                raise shape_error(
                    names[i], shape_of(other), f"that of {names[0]}, {shape_of(first)}")
            try:
                over = np.broadcast_to(other, shape_of(first))
            except ValueError:
                raise shape_error(
                    names[i], shape_of(other), f"one that broadcasts to {shape_of(first)}") from None
            other = other if kept else over
        checked.append(few_axes(other))
    return read, tuple(checked)


def keep_apart(out, names, tuple inputs):
    """Complain about arrays of a tuple ``out``, or tuples of them, that lie over inputs of which no
    pass knows. Their dtypes are the pass's to judge."""
    for name, array in zip(names, out if isinstance(out, tuple) else ()):
        for a in array if isinstance(array, tuple) else (array,):
            if isinstance(a, np.ndarray):
                checked_out(a, a.shape, False, inputs, f"out.{name}", a.dtype)


def as_flags(flags, str name="mask", str what="x"):
    """An array of booleans, True where something was observed."""
    a = as_any_array(flags, name)
    if a.dtype != np.bool_:
        raise TypeError(
            f"{name} must be boolean, True where {what} was observed; got dtype {a.dtype}")
    return a


def as_mask(mask, object x, int sample_axes=0):
    """A mask as bytes, 0 where x is missing, broadcast to x (whose first sample_axes axes it lacks)."""
    a = as_flags(mask)
    shape = shape_of(x)
    try:
        a = np.broadcast_to(_readable(a, a.dtype).view(np.uint8), shape[sample_axes:])
    except ValueError:
        raise shape_error(
            "mask", shape_of(a), f"one that broadcasts to {shape[sample_axes:]}") from None
    return few_axes(np.broadcast_to(a, shape))


cpdef bint computes_in_float32(tuple arrays):
    """Whether a pass over these arrays runs in float32: none of them is float64."""
    cdef object a
    for a in arrays:
        if cnp.PyArray_TYPE(elements_of(a)) == cnp.NPY_DOUBLE:
            return False
    return True


cpdef tuple problem(object x, object parameters, tuple names, object mu, object logvar,
                    Layout layout=None, bint halves=False):
    """All inputs of an ELBO, checked together: (x, parameters, mu, logvar, batch, single, work).

    `halves` as in `event`. One call, because what a small problem costs is calls.
    """
    cdef cnp.ndarray m, v
    cdef object data, a
    cdef Py_ssize_t batch
    cdef bint single
    cdef int wanted
    data, parameters = event(x, parameters, names, 0, layout, halves)
    batch = cnp.PyArray_DIM(<cnp.ndarray>(<tuple>parameters)[0], 0)
    m, v = latents(mu, logvar, "mu", "logvar", batch)
    single = (cnp.PyArray_TYPE(elements_of(data)) != cnp.NPY_DOUBLE
              and cnp.PyArray_TYPE(m) == cnp.NPY_FLOAT)
    for a in <tuple>parameters:
        single = single and cnp.PyArray_TYPE(<cnp.ndarray>a) != cnp.NPY_DOUBLE
    wanted = cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE
    for a in <tuple>parameters:
        if cnp.PyArray_TYPE(<cnp.ndarray>a) != wanted:
            parameters = tuple([in_dtype(a, single, halves) for a in <tuple>parameters])
            break
    return (data, parameters, in_dtype(m, single), in_dtype(v, single), batch, single,
            cnp.PyArray_SIZE(<cnp.ndarray>parameters[0]) + LATENT_COST * cnp.PyArray_SIZE(m))


cpdef cnp.ndarray empty_like(cnp.ndarray a, bint single):
    """A new C-contiguous array of a's shape."""
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a),
                             cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE, 0)


cpdef cnp.ndarray checked_out(object out, object shape, bint single, object inputs, str name, half=None):
    """`out` if a pass may write to it, else an error; a new array if it is None.

    In the dtype of the pass or, where there is one, `half`.
    """
    cdef cnp.ndarray a
    cdef object dtype = FLOAT32 if single else FLOAT64
    if out is None:
        return np.empty(shape, dtype if half is None else half)
    if not cnp.PyArray_Check(out):
        raise TypeError(f"{name} must be a NumPy array, got {type(out).__name__}")
    a = <cnp.ndarray>out
    if a.dtype != dtype and (half is None or a.dtype != half) or not cnp.PyArray_ISNOTSWAPPED(a):
        expected = dtype if half is None else f"{half} or {dtype}"
        raise TypeError(f"{name} has dtype {a.dtype}, expected {expected}")
    if shape_of(a) != tuple(shape):
        raise shape_error(name, shape_of(a), str(tuple(shape)))
    if not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name} is read-only")
    if not cnp.PyArray_ISCARRAY(a):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    for other in inputs:                   # as the caller gave them: a copy of one overlaps nothing
        if other is None:
            continue
        if cnp.PyArray_Check(other):
            overlaps = _overlap(a, other)
        elif is_sparse(other):
            parts = [getattr(other, part, None) for part in PARTS]
            overlaps = any([_overlap(a, np.asarray(part)) for part in parts])
        else:
            overlaps = _overlap(a, np.asarray(other))
        if overlaps:
            raise ValueError(f"{name} overlaps an input or another output")
    return a if type(a) is cnp.ndarray else np.asarray(a)


def checked_outs(out, shapes, bint single, inputs, names, given=()):
    """Outputs for several gradients: a tuple of arrays or None, or None for all.

    Of those `given` to take gradients of, one that has half precision has its gradient in it, where the
    pass is in float32.
    """
    cdef list halves = [half_of(a) for a in given] if single and given else [None] * len(shapes)
    if out is None:
        return tuple([checked_out(None, shape, single, (), "", half)
                      for shape, half in zip(shapes, halves)])
    if not isinstance(out, tuple) or len(out) != len(names):
        raise TypeError(f"out must be a tuple of {len(names)} arrays ({', '.join(names)}) or None")
    cdef list taken = list(inputs), done = []
    for array, shape, name, half in zip(<tuple>out, shapes, names, halves):
        array = checked_out(array, shape, single, taken, f"out.{name}", half)
        taken.append(array)
        done.append(array)
    return tuple(done)


def in_single(tuple gradients):
    """What a pass that writes no half precision writes to; `hand_over` follows."""
    return tuple([np.empty(shape_of(g), FLOAT32) if is_half(g.dtype) else g for g in gradients])


def hand_over(tuple written, tuple gradients):
    for source, gradient in zip(written, gradients):
        if source is not gradient:
            hand(source, gradient)


cdef inline void extent_of(cnp.ndarray a, char** low, char** high) noexcept:
    """The bytes between which an array lies."""
    cdef Py_ssize_t reach
    cdef int d
    low[0] = high[0] = <char*>cnp.PyArray_DATA(a)
    high[0] += cnp.PyArray_ITEMSIZE(a)
    for d in range(cnp.PyArray_NDIM(a)):
        reach = (cnp.PyArray_DIM(a, d) - 1) * cnp.PyArray_STRIDE(a, d)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach


cdef bint _overlap(cnp.ndarray a, cnp.ndarray b) except -1:
    cdef char* low_a
    cdef char* high_a
    cdef char* low_b
    cdef char* high_b
    if cnp.PyArray_SIZE(a) == 0 or cnp.PyArray_SIZE(b) == 0:
        return False
    extent_of(a, &low_a, &high_a)
    extent_of(b, &low_b, &high_b)
    if high_a <= low_b or high_b <= low_a:
        return False
    try:                                         # interleaved views need not share an element
        return np.shares_memory(a, b, max_work=10_000)
    except np.exceptions.TooHardError:
        return True


def as_noise(noise, shape, bint single):
    """Standard normals that the caller drew: of that shape, in the dtype of the pass."""
    cdef cnp.ndarray a = as_rows(noise, "noise", single)
    if shape_of(a) != tuple(shape):
        raise shape_error("noise", shape_of(a), str(tuple(shape)))
    return a
