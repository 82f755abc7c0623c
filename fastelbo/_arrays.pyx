# Input checks and allocation: the only ones. What leaves here is safe for a pass to read and write.
#
# A pass reads any aligned array of native byte order whose last axis is contiguous (or broadcast):
# such arrays are borrowed as they are, everything else is converted once, here.

cimport numpy as cnp
import numpy as np

cnp.import_array()


FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

cdef enum:
    LATENT_COST = 8        # an element of a latent pass costs about this many of a squared error
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


def _as_array(obj, str name):
    if isinstance(obj, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fastelbo would ignore its mask, so pass plain data")
    a = as_any_array(obj, name)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {a.dtype}")
    return a


def _readable(a, dtype):
    """a, or a copy of it, as passes can read it."""
    a = np.require(a, dtype.newbyteorder("="), ["ALIGNED"])
    if not plain(a):
        a = np.ascontiguousarray(a)
    return a


cpdef cnp.ndarray as_floats(object obj, str name):
    """A float32 or float64 array; integers become float64, float16 float32."""
    if plain(obj) and is_float(obj):
        return <cnp.ndarray>obj
    a = _as_array(obj, name)
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    elif a.dtype.itemsize < 4:
        dtype = np.dtype(np.float32)
    else:
        dtype = a.dtype
    return _readable(a, dtype)


cpdef cnp.ndarray as_data(object obj, str name):
    """An array of any real dtype, left in that dtype (float16 and longdouble aside)."""
    if plain(obj) and is_float(obj):
        return <cnp.ndarray>obj
    a = _as_array(obj, name)
    if a.dtype.kind == "f" and a.dtype.itemsize not in (4, 8):
        return as_floats(a, name)
    if a.dtype.kind == "b":
        a = a.view(np.uint8)
    return _readable(a, a.dtype)


cpdef cnp.ndarray few_axes(cnp.ndarray a):
    """a itself, or a contiguous copy if a pass could not stride over so many axes."""
    return a if cnp.PyArray_NDIM(a) <= MAX_AXES else np.ascontiguousarray(a)


cpdef cnp.ndarray in_dtype(cnp.ndarray a, bint single):
    """a itself if it has the dtype of the pass, else a converted copy."""
    if cnp.PyArray_TYPE(a) == (cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE):
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


cdef class Layout:
    """How the parameters of a likelihood lie over x.

    Ordinarily the first has the shape of x and the others broadcast to it. With `extra`, the name
    of an axis that x lacks, all have one shape, with that axis at `axis`: 1 for after the batch, -1
    for the last. The parameter called `kept` is not broadcast, and as a Python number takes the
    dtype of the first, as with NumPy's operators.
    """

    def __init__(self, str extra=None, int axis=-1, str kept=None):
        self.extra, self.axis, self.kept = extra, axis, kept
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
        return rest


cpdef tuple event(object x, object parameters, tuple names, int sample_axes=0, Layout layout=None):
    """x and the parameters of its likelihood, broadcast to one shape as the layout (None: the
    ordinary one) has it.

    The first parameter sets the shape: that of x, (B, ...), with `sample_axes` more in front. A
    scalar event is (B,).
    """
    cdef cnp.ndarray data = few_axes(as_data(x, "x"))
    cdef cnp.ndarray first = few_axes(as_floats(parameters[0], names[0]))
    cdef cnp.ndarray other
    cdef bint extra = layout is not None and layout.more_axes
    cdef bint kept
    cdef object over
    cdef int i
    cdef list checked
    if cnp.PyArray_NDIM(data) == 0:
        raise shape_error("x", shape_of(data), "(batch, ...)")
    if cnp.PyArray_DIM(data, 0) == 0:
        raise empty_error("x", shape_of(data), "batch")
    if extra:
        over = layout.over(first, names[0], data, sample_axes)
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
    if len(parameters) == 1:
        return data, (first,)
    checked = [first]
    for i in range(1, len(parameters)):
        kept = layout is not None and layout.kept == names[i]
        value = parameters[i]
        if kept and type(value) in (int, float):
            value = np.asarray(value, first.dtype)
        other = as_floats(value, names[i])
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
    return data, tuple(checked)


def as_mask(mask, cnp.ndarray x, int sample_axes=0):
    """A mask as bytes, 0 where x is missing, broadcast to x (whose first sample_axes axes it lacks)."""
    a = as_any_array(mask, "mask")
    if a.dtype != np.bool_:
        raise TypeError(f"mask must be boolean, True where x was observed; got dtype {a.dtype}")
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
        if cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.NPY_DOUBLE:
            return False
    return True


cpdef tuple problem(object x, object parameters, tuple names, object mu, object logvar,
                    Layout layout=None):
    """All inputs of an ELBO, checked together: (x, parameters, mu, logvar, batch, single, work).

    One call, because what a small problem costs is calls.
    """
    cdef cnp.ndarray data, m, v
    cdef object a
    cdef bint single
    cdef int wanted
    data, parameters = event(x, parameters, names, 0, layout)
    m, v = latents(mu, logvar, "mu", "logvar", cnp.PyArray_DIM(data, 0))
    single = cnp.PyArray_TYPE(data) != cnp.NPY_DOUBLE and cnp.PyArray_TYPE(m) == cnp.NPY_FLOAT
    for a in <tuple>parameters:
        single = single and cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.NPY_FLOAT
    wanted = cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE
    for a in <tuple>parameters:
        if cnp.PyArray_TYPE(<cnp.ndarray>a) != wanted:
            parameters = tuple([in_dtype(a, single) for a in <tuple>parameters])
            break
    return (data, parameters, in_dtype(m, single), in_dtype(v, single),
            cnp.PyArray_DIM(data, 0), single,
            cnp.PyArray_SIZE(<cnp.ndarray>parameters[0]) + LATENT_COST * cnp.PyArray_SIZE(m))


cpdef cnp.ndarray empty_like(cnp.ndarray a, bint single):
    """A new C-contiguous array of a's shape."""
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a),
                             cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE, 0)


cpdef cnp.ndarray checked_out(object out, object shape, bint single, object inputs, str name):
    """`out` if a pass may write to it, else an error; a new array if it is None."""
    cdef cnp.ndarray a
    if out is None:
        return np.empty(shape, FLOAT32 if single else FLOAT64)
    if not cnp.PyArray_Check(out):
        raise TypeError(f"{name} must be a NumPy array, got {type(out).__name__}")
    a = <cnp.ndarray>out
    if (cnp.PyArray_TYPE(a) != (cnp.NPY_FLOAT if single else cnp.NPY_DOUBLE)
            or not cnp.PyArray_ISNOTSWAPPED(a)):
        raise TypeError(f"{name} has dtype {a.dtype}, expected {FLOAT32 if single else FLOAT64}")
    if shape_of(a) != tuple(shape):
        raise shape_error(name, shape_of(a), str(tuple(shape)))
    if not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name} is read-only")
    if not cnp.PyArray_ISCARRAY(a):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    for other in inputs:                   # as the caller gave them: a copy of one overlaps nothing
        if other is None:
            continue
        if _overlap(a, other if cnp.PyArray_Check(other) else np.asarray(other)):
            raise ValueError(f"{name} overlaps an input or another output")
    return a if type(a) is cnp.ndarray else np.asarray(a)


def checked_outs(out, shapes, bint single, inputs, names):
    """Outputs for several gradients: a tuple of arrays or None, or None for all."""
    if out is None:
        dtype = FLOAT32 if single else FLOAT64
        return tuple([np.empty(shape, dtype) for shape in shapes])
    if not isinstance(out, tuple) or len(out) != len(names):
        raise TypeError(f"out must be a tuple of {len(names)} arrays ({', '.join(names)}) or None")
    cdef list taken = list(inputs), done = []
    for array, shape, name in zip(<tuple>out, shapes, names):
        array = checked_out(array, shape, single, taken, f"out.{name}")
        taken.append(array)
        done.append(array)
    return tuple(done)


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
