# What the passes share in which every point meets every other: widths, and sums along them.

from libc.float cimport DBL_MAX, FLT_MAX

from fastelbo._kernels.terms.vecmath cimport real

cdef enum:
    WIDE = 32              # others that a lane loop takes at once
    HALF = 16
    DEEP = 4               # dimensions it adds at once
    DEPTH = 64             # dimensions summed before the sum is added to others


cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t m) noexcept nogil:
    return (n + m - 1) // m


cdef inline Py_ssize_t lines(Py_ssize_t n) noexcept nogil:
    """n bytes, in whole cache lines."""
    return ceil_div(n, 64) * 64


cdef inline real finite(real x) noexcept nogil:
    """x, or the finite number next to it; NaN stays."""
    cdef real most = <real>(FLT_MAX if real is float else DBL_MAX)
    cdef real low = -most if x < -most else x
    return most if low > most else low


cdef inline real add_half(real* s) noexcept nogil:
    """Sum of HALF numbers, by halves."""
    cdef int l
    for l in range(8):
        s[l] += s[l + 8]
    for l in range(4):
        s[l] += s[l + 4]
    return (s[0] + s[2]) + (s[1] + s[3])


cdef inline real add_wide(real* s) noexcept nogil:
    """Sum of WIDE numbers."""
    cdef int l
    for l in range(HALF):
        s[l] += s[l + HALF]
    return add_half(s)
