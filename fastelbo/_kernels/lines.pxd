# Arrays that do not begin at a cache line, as NumPy's large ones begin 16 bytes after it: each vector of
# 64 bytes lies in two lines, and where memory is all that counts, that takes half as long again. Here
# lines are read and written whole, and what lies in vectors is turned.

from libc.stdint cimport uintptr_t

from fastelbo._kernels.operands cimport LINE
from fastelbo._kernels.terms.vecmath cimport real

# No masks but at the ends: gcc keeps no sum in a register in whose loop it finds a function that touches
# memory, and these are such to it.
cdef extern from *:
    """
    #if defined(__AVX512F__)
    #include <immintrin.h>
    #define FE_BY_LINE 1
    #define FE_LINES(REAL, VECTOR, MASK, AS, INDICES, COUNTED)                                         \\
    static CYTHON_UNUSED CYTHON_INLINE __m512i fe_turned_##REAL(int by) {                              \\
        return _mm512_add_##INDICES(_mm512_set1_##INDICES(by), COUNTED);                               \\
    }                                                                                                  \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_read_first_##REAL(                                      \\
            const REAL *from, int begins, REAL *rest) {                                                \\
        _mm512_storeu_##AS(rest, _mm512_maskz_load_##AS((MASK)(~0u << begins), from - begins));        \\
    }                                                                                                  \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_read_lines_##REAL(                                      \\
            const REAL *from, int begins, REAL *rest, REAL *to, int lines) {                           \\
        enum { N = 64 / sizeof(REAL) };                                                                \\
        __m512i index = fe_turned_##REAL(begins);                                                      \\
        VECTOR line = _mm512_loadu_##AS(rest), next;                                                   \\
        for (int i = 0; i < lines; i++) {                                                              \\
            next = _mm512_load_##AS(from + N * (i + 1) - begins);                                      \\
            __asm__("" : "+v"(next));    /* or it is loaded once for each of its two vectors */        \\
            _mm512_storeu_##AS(to + N * i, _mm512_permutex2var_##AS(line, index, next));               \\
            line = next;                                                                               \\
        }                                                                                              \\
        _mm512_storeu_##AS(rest, line);                                                                \\
    }                                                                                                  \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_write_lines_##REAL(                                     \\
            const REAL *from, REAL *first, REAL *to, int begins, REAL *rest, int lines) {              \\
        enum { N = 64 / sizeof(REAL) };                                                                \\
        __m512i index = fe_turned_##REAL(N - begins);                                                  \\
        VECTOR given = _mm512_loadu_##AS(rest), next = _mm512_loadu_##AS(from);                        \\
        _mm512_store_##AS(first, _mm512_permutex2var_##AS(given, index, next));                        \\
        for (int i = 1; i < lines; i++) {                                                              \\
            given = next, next = _mm512_loadu_##AS(from + N * i);                                      \\
            _mm512_store_##AS(to + N * i - begins, _mm512_permutex2var_##AS(given, index, next));      \\
        }                                                                                              \\
        _mm512_storeu_##AS(rest, next);                                                                \\
    }                                                                                                  \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_write_ends_##REAL(                                      \\
            const REAL *first, REAL *to, Py_ssize_t n, int begins, const REAL *rest) {                 \\
        VECTOR last = _mm512_loadu_##AS(rest);                                                         \\
        last = _mm512_permutex2var_##AS(last, fe_turned_##REAL(64 / sizeof(REAL) - begins), last);     \\
        _mm512_mask_store_##AS(to - begins, (MASK)(~0u << begins), _mm512_load_##AS(first));           \\
        _mm512_mask_store_##AS(to + n - begins, (MASK)~(~0u << begins), last);                         \\
    }
    FE_LINES(float, __m512, __mmask16, ps, epi32,
             _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
    FE_LINES(double, __m512d, __mmask8, pd, epi64, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7))
    #else
    #define FE_BY_LINE 0
    #define FE_NO_LINES(REAL)                                                                          \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_read_first_##REAL(                                      \\
            const REAL *from, int begins, REAL *rest) {}                                               \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_read_lines_##REAL(                                      \\
            const REAL *from, int begins, REAL *rest, REAL *to, int lines) {}                          \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_write_lines_##REAL(                                     \\
            const REAL *from, REAL *first, REAL *to, int begins, REAL *rest, int lines) {}             \\
    static CYTHON_UNUSED CYTHON_INLINE void fe_write_ends_##REAL(                                      \\
            const REAL *first, REAL *to, Py_ssize_t n, int begins, const REAL *rest) {}
    FE_NO_LINES(float)
    FE_NO_LINES(double)
    #endif
    """
    const bint BY_LINE "FE_BY_LINE"          # whether this build has these
    void read_first_float "fe_read_first_float"(const float*, int, float*) noexcept nogil
    void read_first_double "fe_read_first_double"(const double*, int, double*) noexcept nogil
    void read_lines_float "fe_read_lines_float"(const float*, int, float*, float*, int) noexcept nogil
    void read_lines_double "fe_read_lines_double"(const double*, int, double*, double*, int) noexcept nogil
    void write_lines_float "fe_write_lines_float"(
        const float*, float*, float*, int, float*, int) noexcept nogil
    void write_lines_double "fe_write_lines_double"(
        const double*, double*, double*, int, double*, int) noexcept nogil
    void write_ends_float "fe_write_ends_float"(
        const float*, float*, Py_ssize_t, int, const float*) noexcept nogil
    void write_ends_double "fe_write_ends_double"(
        const double*, double*, Py_ssize_t, int, const double*) noexcept nogil


cdef inline int begins_at(const real* p) noexcept nogil:
    """How many elements after the start of a line."""
    return <int>(<uintptr_t>p % LINE // sizeof(real))


cdef inline void read_first(const real* source, int begins, real* rest) noexcept nogil:
    """Of what begins so far after the start of a line, what is in that: the `rest` of it."""
    if real is float:
        read_first_float(source, begins, rest)
    else:
        read_first_double(source, begins, rest)


cdef inline void read_lines(const real* source, int begins, real* rest, real* to, int lines) noexcept nogil:
    """So many lines' worth (a constant), of which the `rest` of a line has been read before, as that of
    another is now: some of what follows is read, too."""
    if real is float:
        read_lines_float(source, begins, rest, to, lines)
    else:
        read_lines_double(source, begins, rest, to, lines)


cdef inline void write_lines(const real* source, real* first, real* to, int begins, real* rest,
                             int lines) noexcept nogil:
    """So many lines' worth to where they begin so far after the start of a line, the `first` anywhere.

    It begins with the `rest` of what was written before; that of this is left in its place.
    """
    if real is float:
        write_lines_float(source, first, to, begins, rest, lines)
    else:
        write_lines_double(source, first, to, begins, rest, lines)


cdef inline void write_ends(const real* first, real* to, Py_ssize_t n, int begins,
                            const real* rest) noexcept nogil:
    """What is not written of n elements whose `first` line went elsewhere."""
    if real is float:
        write_ends_float(first, to, n, begins, rest)
    else:
        write_ends_double(first, to, n, begins, rest)
