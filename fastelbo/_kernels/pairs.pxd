# What the passes share in which every point meets every other.

from libc.float cimport DBL_MAX, FLT_MAX

from fastelbo._kernels.operands cimport VECTOR
from fastelbo._kernels.terms.vecmath cimport real

cdef enum:
    HALF = VECTOR
    WIDE = 2 * HALF        # others that a lane loop takes at once
    DEEP = 4               # dimensions it adds at once
    DEPTH = 64             # dimensions summed before the sum is added to others


cdef inline real finite(real x) noexcept nogil:
    """x, or the finite number next to it; NaN stays."""
    cdef real most = <real>(FLT_MAX if real is float else DBL_MAX)
    cdef real low = -most if x < -most else x
    return most if low > most else low
