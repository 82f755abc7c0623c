# The structures of fastelbo.h: how C, and the short way from Python, hand a pass its arrays.

from libc.stdint cimport int64_t

from fastelbo._call cimport Call, Handle, Own
from fastelbo._kernels.operands cimport FLOAT32, FLOAT64, NATIVE, Operand, Shape, size_of

cdef extern from *:
    """
    #define FE_HANDLE "fastelbo_likelihood"
    """
    const char* HANDLE "FE_HANDLE"           # names the capsules that carry one


cdef inline void lay_out(Shape* shape, const Call* call, bint joined) noexcept nogil:
    """The shape that `arrange` finds for dense arrays: rows apart, unless they may be joined."""
    cdef Py_ssize_t samples = max(<int64_t>1, call.samples)
    shape.segments = 1
    shape.outer = 0
    shape.rows = 1 if joined else samples * call.batch
    shape.run = call.event * samples * call.batch // shape.rows
    if joined:
        return
    if samples > 1:
        shape.extent[shape.outer] = samples
        shape.outer += 1
    if call.batch > 1:
        shape.extent[shape.outer] = call.batch
        shape.outer += 1


cdef inline void bind_dense(Operand* op, const void* data, int storage, const Call* call,
                            bint by_sample, bint by_row, bint by_element) noexcept nogil:
    """An operand that differs between samples, rows, elements, or does not; after `lay_out`."""
    cdef int axis = 0
    op.data = <char*>data
    op.itemsize = size_of(storage)
    op.storage = NATIVE if storage == call.dtype else storage
    op.spread = not by_element
    if call.samples > 1:
        op.strides[axis] = call.batch * call.event * op.itemsize if by_sample else 0
        axis += 1
    if call.batch > 1:
        op.strides[axis] = call.event * op.itemsize if by_row else 0


cdef inline void bind_output(Operand* op, const void* data, const Call* call) noexcept nogil:
    """What the decoder gives, or a gradient of it."""
    bind_dense(op, data, call.output_dtype if call.output_dtype else call.dtype, call, True, True, True)


cdef inline void bind_own(Operand* op, const Own* own, const Call* call) noexcept nogil:
    """What a likelihood adds: a number, or one an element of the event."""
    bind_dense(op, own.data[call.dtype == FLOAT32], own.storage if own.storage != NATIVE else call.dtype,
               call, False, False, not own.spread)
