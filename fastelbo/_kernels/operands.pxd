# How the passes see arrays: runs of contiguous elements, cut into tiles that fit in L1.
#
# A pass works on operands of one common shape. Trailing axes along which every operand is
# contiguous form the RUN; the axes before it are OUTER, and each operand has a byte stride (zero
# where it is broadcast) for each of them. Contiguous arrays have no outer axes at all, or, if one
# result per row is wanted, just the batch.
#
# A TILE is what a term is applied to at once. Its operands are either read in place or, where they
# need something first (another dtype, a scalar spread out, a padded end), staged in L1.

cimport numpy as cnp
from cpython.object cimport PyObject
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t,
)
from libc.string cimport memcpy

from fastelbo._arrays cimport SparseRows
from fastelbo._kernels.terms.vecmath cimport real

cdef enum:
    VECTOR = 16            # elements of the widest vector of any build, in float32
    LANES = 64             # elements a lane loop takes at once: a fixed order of summation; 32 to 128
    FLUSH = 16             # lane loops before float32 sums move to float64
    TILE = 512             # elements a tile, a multiple of LANES
    LINE = 64              # bytes of a cache line
    MAX_OUTER = 8          # outer axes; _arrays copies what has more
    MAX_OPERANDS = 8

cdef enum:                 # what holds an operand's elements; NATIVE is the dtype of the pass
    NATIVE = 0
    UINT8 = 1
    INT8 = 2
    UINT16 = 3
    INT16 = 4
    UINT32 = 5
    INT32 = 6
    UINT64 = 7
    INT64 = 8
    FLOAT32 = 9
    FLOAT64 = 10
    FLOAT16 = 11
    BFLOAT16 = 12
    SPARSE = 13            # a run is the row of a sparse matrix: where its entries start and stop

cdef struct Entries:       # of a sparse matrix, row by row
    const char* columns
    const char* values
    int storage            # of the values
    Py_ssize_t itemsize
    bint wide              # columns are int64, not int32
    bint ascending         # within a row no column is followed by one that is not larger

cdef struct Operand:
    char* data
    int storage
    const Entries* entries         # of what is SPARSE
    int spread             # 1: one value for the whole run
    Py_ssize_t itemsize
    Py_ssize_t strides[MAX_OUTER]

cdef struct Shape:
    int outer              # number of outer axes
    Py_ssize_t extent[MAX_OUTER]
    Py_ssize_t run         # contiguous elements
    Py_ssize_t rows        # outer positions that get a result of their own
    Py_ssize_t segments    # runs a row


cdef inline char* data_of(cnp.ndarray a) noexcept:
    return NULL if a is None else <char*>cnp.PyArray_DATA(a)


cdef extern from "numpy/ndarraytypes.h":
    int NPY_HALF, NPY_USERDEF


cdef inline int storage_of(cnp.ndarray a, bint single) noexcept:
    """The storage code of an array, -1 if passes cannot read its dtype."""
    cdef int t = cnp.PyArray_TYPE(a)
    if t == cnp.NPY_FLOAT:
        return NATIVE if single else FLOAT32
    if t == cnp.NPY_DOUBLE:
        return FLOAT64 if single else NATIVE
    if t == NPY_HALF:
        return FLOAT16
    if t >= NPY_USERDEF:               # of these _arrays lets no other through
        return BFLOAT16
    if t == cnp.NPY_BOOL or t == cnp.NPY_UINT8:
        return UINT8
    if t == cnp.NPY_INT8:
        return INT8
    if t == cnp.NPY_UINT16:
        return UINT16
    if t == cnp.NPY_INT16:
        return INT16
    if cnp.PyArray_ITEMSIZE(a) == 4:
        return INT32 if cnp.PyArray_ISSIGNED(a) else UINT32
    return INT64 if cnp.PyArray_ISSIGNED(a) else UINT64


cdef inline int size_of(int storage) noexcept nogil:
    """Bytes of an element that is not NATIVE."""
    if storage == UINT8 or storage == INT8:
        return 1
    if storage == UINT16 or storage == INT16 or storage == FLOAT16 or storage == BFLOAT16:
        return 2
    return 4 if storage == UINT32 or storage == INT32 or storage == FLOAT32 else 8


cdef inline void bind(Operand* op, cnp.ndarray a, bint single) noexcept:
    """Point an operand at an array; `arrange` completes it."""
    op.data = data_of(a)
    op.storage = storage_of(a, single)
    op.itemsize = cnp.PyArray_ITEMSIZE(a)


cdef inline void attach(Operand** ops, PyObject** arrays, int* n, Operand* op, cnp.ndarray a,
                        bint single) noexcept:
    """One more operand of n, unless there is none."""
    if a is not None:
        bind(op, a, single)
        ops[n[0]] = op
        arrays[n[0]] = <PyObject*>a
        n[0] += 1


cdef inline int attach_data(Operand** ops, PyObject** arrays, int* n, Operand* op, Entries* entries,
                            object x, bint single) except -1:
    """x as one more operand: an array, or the rows of a sparse matrix, whose entries are noted."""
    cdef SparseRows rows
    if type(x) is not SparseRows:
        attach(ops, arrays, n, op, x, single)
        return 0
    rows = <SparseRows>x
    attach(ops, arrays, n, op, rows.starts, single)
    op.storage = SPARSE
    op.entries = entries
    entries.columns = data_of(rows.columns)
    entries.wide = cnp.PyArray_ITEMSIZE(rows.columns) == 8
    entries.ascending = rows.ascending
    entries.values = data_of(rows.values)
    entries.storage = storage_of(rows.values, single)
    entries.itemsize = cnp.PyArray_ITEMSIZE(rows.values)
    return 0


cdef inline int arrange(Shape* shape, Operand** ops, PyObject** arrays, int n, int batch_axes,
                        bint by_row) except -1:
    """Split the common shape of `arrays` (broadcast already: equal ndim) into outer axes and a run.

    by_row keeps the first batch_axes axes outer, so that each gets a result of its own.
    """
    cdef cnp.ndarray first = <cnp.ndarray>arrays[0]
    cdef int ndim = cnp.PyArray_NDIM(first)
    cdef int axis = ndim, stop = batch_axes if by_row else 0, k, d
    cdef Py_ssize_t run = 1, extent, stride
    cdef bint joins
    for k in range(n):
        ops[k].spread = 1
    while axis > stop:
        extent = cnp.PyArray_DIM(first, axis - 1)
        joins = True
        for k in range(n):
            stride = cnp.PyArray_STRIDE(<cnp.ndarray>arrays[k], axis - 1)
            if extent == 1:
                continue
            if run == 1:                                         # nothing has been joined yet
                joins = joins and (stride == ops[k].itemsize or stride == 0)
            elif ops[k].spread:
                joins = joins and stride == 0
            else:
                joins = joins and stride == run * ops[k].itemsize
        if not joins:
            break
        if extent != 1:
            for k in range(n):
                if cnp.PyArray_STRIDE(<cnp.ndarray>arrays[k], axis - 1) != 0:
                    ops[k].spread = 0
        run *= extent
        axis -= 1
    shape.run = run
    shape.outer = 0
    shape.rows = 1
    shape.segments = 1
    for d in range(axis):
        extent = cnp.PyArray_DIM(first, d)
        if d < batch_axes:
            shape.rows *= extent
        else:
            shape.segments *= extent
        if extent == 1:
            continue
        if shape.outer == MAX_OUTER:
            raise ValueError("arrays of more than 8 strided axes are not supported")
        shape.extent[shape.outer] = extent
        for k in range(n):
            ops[k].strides[shape.outer] = cnp.PyArray_STRIDE(<cnp.ndarray>arrays[k], d)
        shape.outer += 1
    return 0


cdef inline char* run_at(const Operand* op, const Shape* shape, Py_ssize_t index) noexcept nogil:
    """Where run number `index` of an operand starts."""
    cdef char* p = op.data
    cdef int d
    for d in range(shape.outer - 1, 0, -1):
        p += (index % shape.extent[d]) * op.strides[d]
        index = index // shape.extent[d]
    return p + index * op.strides[0] if shape.outer > 0 else p


# Half precision, as float32 has it and back, to the nearest and of two to the even one.
cdef extern from *:
    """
    #if defined(__F16C__) || defined(__AVX512F__)
    #include <immintrin.h>
    #endif

    static CYTHON_UNUSED CYTHON_INLINE float fe_as_float(uint32_t bits) {
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
    static CYTHON_UNUSED CYTHON_INLINE uint32_t fe_bits_of(float value) {
        uint32_t bits;
        memcpy(&bits, &value, 4);
        return bits;
    }
    static CYTHON_UNUSED CYTHON_INLINE float fe_from_half(uint16_t half) {
        uint32_t size = half & 0x7fffu;                 /* exponents are 112 apart: denormals, too */
        uint32_t bits = fe_bits_of(fe_as_float(size << 13) * fe_as_float(0x77800000u));
        bits |= size > 0x7c00u ? 0x7fc00000u : size == 0x7c00u ? 0x7f800000u : 0u;
        return fe_as_float(bits | (half & 0x8000u) << 16);
    }
    static CYTHON_UNUSED CYTHON_INLINE uint16_t fe_to_half(float value) {
        uint32_t bits = fe_bits_of(value), size = bits & 0x7fffffffu;
        uint32_t normal = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
        uint32_t tiny = fe_bits_of(fe_as_float(size) + 0.5f) - 0x3f000000u;
        uint32_t huge = size > 0x7f800000u ? 0x7e00u | (size >> 13 & 0x3ffu) : 0x7c00u;
        uint32_t half = size < 0x38800000u ? tiny : size < 0x47800000u ? normal : huge;
        return (uint16_t)(half | (bits >> 16 & 0x8000u));
    }
    static CYTHON_UNUSED CYTHON_INLINE void fe_widen_half(const uint16_t *from, float *to, Py_ssize_t n) {
        Py_ssize_t i = 0;
    #if defined(__AVX512F__)
        for (; i + 16 <= n; i += 16)
            _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + i))));
    #elif defined(__F16C__)
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i))));
    #endif
        for (; i < n; i++)
            to[i] = fe_from_half(from[i]);
    }
    static CYTHON_UNUSED CYTHON_INLINE void fe_narrow_half(const float *from, uint16_t *to, Py_ssize_t n) {
        Py_ssize_t i = 0;
    #if defined(__AVX512F__)
        for (; i + 16 <= n; i += 16)
            _mm256_storeu_si256((__m256i *)(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), 0));
    #elif defined(__F16C__)
        for (; i + 8 <= n; i += 8)
            _mm_storeu_si128((__m128i *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
    #endif
        for (; i < n; i++)
            to[i] = fe_to_half(from[i]);
    }
    static CYTHON_UNUSED CYTHON_INLINE float fe_from_brain(uint16_t brain) {
        return fe_as_float((uint32_t)brain << 16);
    }
    static CYTHON_UNUSED CYTHON_INLINE void fe_widen_brain(const uint16_t *CYTHON_RESTRICT from,
                                             float *CYTHON_RESTRICT to, Py_ssize_t n) {
        for (Py_ssize_t i = 0; i < n; i++)
            to[i] = fe_from_brain(from[i]);
    }
    static CYTHON_UNUSED CYTHON_INLINE void fe_narrow_brain(const float *CYTHON_RESTRICT from,
                                              uint16_t *CYTHON_RESTRICT to, Py_ssize_t n) {
        Py_ssize_t i = 0;
    #if defined(__AVX512F__)
        for (; i + 16 <= n; i += 16) {
            __m512 value = _mm512_loadu_ps(from + i);
            __m512i bits = _mm512_castps_si512(value), odd = _mm512_srli_epi32(bits, 16);
            __m512i rounded = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
            rounded = _mm512_add_epi32(rounded, _mm512_and_si512(odd, _mm512_set1_epi32(1)));
            rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), bits,
                                           _mm512_set1_epi32(0x400000));
            _mm256_storeu_si256((__m256i *)(to + i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
        }
    #endif
        for (; i < n; i++) {
            uint32_t bits = fe_bits_of(from[i]), rounded = bits + 0x7fffu + (bits >> 16 & 1u);
            to[i] = (uint16_t)((from[i] == from[i] ? rounded : bits | 0x400000u) >> 16);
        }
    }
    static CYTHON_UNUSED CYTHON_INLINE void fe_widen_bytes(const uint8_t *CYTHON_RESTRICT from,
                                             float *CYTHON_RESTRICT to, Py_ssize_t n) {
        Py_ssize_t i = 0;
    #if defined(__AVX512F__)
        for (; i + 16 <= n; i += 16)               /* gcc would go by way of 16 bits */
            _mm512_storeu_ps(to + i, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(
                _mm_loadu_si128((const __m128i *)(from + i)))));
    #elif defined(__AVX2__)
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(to + i, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(
                _mm_loadl_epi64((const __m128i *)(from + i)))));
    #endif
        for (; i < n; i++)
            to[i] = from[i];
    }
    """
    float from_half "fe_from_half"(uint16_t half) noexcept nogil
    float from_brain "fe_from_brain"(uint16_t brain) noexcept nogil
    void widen_half "fe_widen_half"(const uint16_t* source, float* to, Py_ssize_t n) noexcept nogil
    void widen_brain "fe_widen_brain"(const uint16_t* source, float* to, Py_ssize_t n) noexcept nogil
    void widen_bytes "fe_widen_bytes"(const uint8_t* source, float* to, Py_ssize_t n) noexcept nogil
    void narrow_half "fe_narrow_half"(const float* source, uint16_t* to, Py_ssize_t n) noexcept nogil
    void narrow_brain "fe_narrow_brain"(const float* source, uint16_t* to, Py_ssize_t n) noexcept nogil


cdef inline void widen(const char* half, int storage, float* out, Py_ssize_t n) noexcept nogil:
    """n numbers of half precision."""
    if storage == FLOAT16:
        widen_half(<const uint16_t*>half, out, n)
    else:
        widen_brain(<const uint16_t*>half, out, n)


cdef inline void convert(const char* source, int storage, real* out, Py_ssize_t n) noexcept nogil:
    """n contiguous elements of any storage into the dtype of the pass."""
    cdef Py_ssize_t i
    if storage == NATIVE:
        memcpy(out, source, n * sizeof(real))
    elif storage == UINT8:
        for i in range(n):
            out[i] = <real>(<const uint8_t*>source)[i]
    elif storage == INT8:
        for i in range(n):
            out[i] = <real>(<const int8_t*>source)[i]
    elif storage == UINT16:
        for i in range(n):
            out[i] = <real>(<const uint16_t*>source)[i]
    elif storage == INT16:
        for i in range(n):
            out[i] = <real>(<const int16_t*>source)[i]
    elif storage == UINT32:
        for i in range(n):
            out[i] = <real>(<const uint32_t*>source)[i]
    elif storage == INT32:
        for i in range(n):
            out[i] = <real>(<const int32_t*>source)[i]
    elif storage == UINT64:
        for i in range(n):
            out[i] = <real>(<const uint64_t*>source)[i]
    elif storage == INT64:
        for i in range(n):
            out[i] = <real>(<const int64_t*>source)[i]
    elif storage == FLOAT32:
        for i in range(n):
            out[i] = <real>(<const float*>source)[i]
    elif storage == FLOAT16:
        if real is float:
            widen_half(<const uint16_t*>source, out, n)
        else:
            for i in range(n):
                out[i] = <real>from_half((<const uint16_t*>source)[i])
    elif storage == BFLOAT16:
        if real is float:
            widen_brain(<const uint16_t*>source, out, n)
        else:
            for i in range(n):
                out[i] = <real>from_brain((<const uint16_t*>source)[i])
    else:
        for i in range(n):
            out[i] = <real>(<const double*>source)[i]


cdef inline const char* stored(const real* source, int storage, Py_ssize_t n, uint16_t* room) noexcept nogil:
    """n numbers of the pass as a gradient's storage has them: NATIVE, or half precision, in `room`."""
    if real is float:
        if storage == FLOAT16:
            narrow_half(source, room, n)
            return <const char*>room
        if storage == BFLOAT16:
            narrow_brain(source, room, n)
            return <const char*>room
    return <const char*>source


cdef inline const real* stage(const Operand* op, const char* run, Py_ssize_t first, Py_ssize_t n,
                              Py_ssize_t padded, real* buffer) noexcept nogil:
    """Elements first .. first + n of a run, followed by padding up to `padded`.

    In place where the storage allows it, else in `buffer`; the padding repeats the last element,
    so that it lies in the domain of the term.
    """
    cdef Py_ssize_t i
    if op.spread:
        convert(run, op.storage, buffer, 1)
        for i in range(1, padded):
            buffer[i] = buffer[0]
        return buffer
    if op.storage == NATIVE and n == padded:
        return <const real*>run + first
    convert(run + first * op.itemsize, op.storage, buffer, n)
    for i in range(n, padded):
        buffer[i] = buffer[n - 1]
    return buffer


cdef inline bint in_place(const Operand* op) noexcept nogil:
    """Whether whole tiles of the operand can be read where they are."""
    return op.storage == NATIVE and not op.spread


cdef inline int lanes_of(const real* kind) noexcept nogil:
    """Lanes of a sum that is to stay in registers: half of them for elements twice as large."""
    return LANES if real is float else LANES // 2


cdef inline void add_upper(real* s, int n) noexcept nogil:
    """Add the second n numbers to the first n."""
    cdef int l
    for l in range(n):
        s[l] += s[l + n]


cdef inline real add_halves(real* s, int n) noexcept nogil:
    """Sum of n numbers, a constant power of two from 4 to 128, by halves: a chain of so many
    additions would wait for each.
    """
    if n > 64:
        add_upper(s, 64)
    if n > 32:
        add_upper(s, 32)
    if n > 16:
        add_upper(s, 16)
    if n > 8:
        add_upper(s, 8)
    if n > 4:
        add_upper(s, 4)
    return (s[0] + s[2]) + (s[1] + s[3])


cdef inline double add_lanes(double* total) noexcept nogil:
    return add_halves(total, LANES)


cdef inline double tile_sum(const real* el, Py_ssize_t n) noexcept nogil:
    """Sum of n <= TILE elements."""
    cdef double total[LANES]
    cdef double rest = 0
    cdef Py_ssize_t i, loops = n // LANES
    cdef int l
    for i in range(loops * LANES, n):
        rest += el[i]
    if loops == 0:
        return rest
    for l in range(LANES):
        total[l] = el[l]
    for i in range(1, loops):
        for l in range(LANES):
            total[l] += el[i * LANES + l]
    return add_lanes(total) + rest


cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t m) noexcept nogil:
    return (n + m - 1) // m


cdef inline Py_ssize_t round_up(Py_ssize_t n) noexcept nogil:
    """n rounded up to whole lane loops."""
    return ceil_div(n, LANES) * LANES


cdef inline Py_ssize_t padded_to(Py_ssize_t n) noexcept nogil:
    """n rounded up to whole vectors of either dtype: element loops then need no scalar rest."""
    return ceil_div(n, VECTOR) * VECTOR


cdef inline int a_vector(const real* kind) noexcept nogil:
    """Elements of the widest vector of any build."""
    return VECTOR if real is float else VECTOR // 2


cdef inline Py_ssize_t vectors_of(Py_ssize_t n, const real* kind) noexcept nogil:
    """n rounded up to whole ones of these."""
    return ceil_div(n, a_vector(kind)) * a_vector(kind)


cdef inline Py_ssize_t lines(Py_ssize_t n) noexcept nogil:
    """n bytes, in whole cache lines."""
    return ceil_div(n, LINE) * LINE


cdef inline char* aligned(void* p) noexcept nogil:
    """The next address at which a cache line starts."""
    return <char*>lines(<Py_ssize_t>p)


cdef inline double add_up(const double* values, Py_ssize_t n) noexcept nogil:
    """Pairwise sum in a fixed order."""
    cdef double s[64]
    cdef Py_ssize_t i = 0, k
    cdef int depth = 0
    while i < n:                           # a binary counter of partial sums, one a power of two
        s[depth] = values[i]
        depth += 1
        i += 1
        k = i
        while k & 1 == 0:
            depth -= 1
            s[depth - 1] += s[depth]
            k >>= 1
    if depth == 0:
        return 0.0
    while depth > 1:
        depth -= 1
        s[depth - 1] += s[depth]
    return s[0]


cdef inline double add_up_rows(const double* partial, Py_ssize_t rows, Py_ssize_t a_row,
                               cnp.ndarray row_values) noexcept:
    """Partial sums (rows, a_row), added up to one a row in row_values (rows,), or, where that is None,
    to the one that is returned.
    """
    cdef double* out
    cdef Py_ssize_t row
    if row_values is None:
        return add_up(partial, rows * a_row)
    out = <double*>data_of(row_values)
    for row in range(rows):
        out[row] = add_up(partial + row * a_row, a_row)
    return 0.0


# Streaming stores: a gradient larger than the caches is written past them, which saves reading
# each line before it is overwritten.
cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <immintrin.h>
    /* n bytes, a multiple of 64; `to` is aligned to 64 */
    static CYTHON_INLINE void fe_stream_lines(void *to, const void *from, Py_ssize_t n) {
        char *t = (char *)to; const char *f = (const char *)from;
        for (Py_ssize_t i = 0; i < n; i += 64) {
    #if defined(__AVX512F__)
            _mm512_stream_si512((__m512i *)(t + i), _mm512_loadu_si512((const __m512i *)(f + i)));
    #else
            _mm_stream_si128((__m128i *)(t + i), _mm_loadu_si128((const __m128i *)(f + i)));
            _mm_stream_si128((__m128i *)(t + i + 16), _mm_loadu_si128((const __m128i *)(f + i + 16)));
            _mm_stream_si128((__m128i *)(t + i + 32), _mm_loadu_si128((const __m128i *)(f + i + 32)));
            _mm_stream_si128((__m128i *)(t + i + 48), _mm_loadu_si128((const __m128i *)(f + i + 48)));
    #endif
        }
    }
    static CYTHON_INLINE void fe_stream_fence(void) { _mm_sfence(); }
    #else
    static CYTHON_INLINE void fe_stream_lines(void *to, const void *from, Py_ssize_t n) {
        memcpy(to, from, n);
    }
    static CYTHON_INLINE void fe_stream_fence(void) {}
    #endif
    """
    void stream_lines "fe_stream_lines"(void* to, const void* source, Py_ssize_t n) noexcept nogil
    void stream_fence "fe_stream_fence"() noexcept nogil


cdef inline void stream(char* to, const char* source, Py_ssize_t n) noexcept nogil:
    """Copy n bytes, past the caches where they fill whole lines."""
    cdef Py_ssize_t head = min(n, <Py_ssize_t>(-<uintptr_t>to % LINE)), middle = (n - head) // LINE * LINE
    memcpy(to, source, head)
    stream_lines(to + head, source + head, middle)
    memcpy(to + head + middle, source + head + middle, n - head - middle)


# Prefetching: a hint, and no access.
cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fe_fetch(p) __builtin_prefetch(p)
    #define fe_fetch_for_later(p) __builtin_prefetch(p, 0, 2)
    #else
    #define fe_fetch(p) ((void)(p))
    #define fe_fetch_for_later(p) ((void)(p))
    #endif
    """
    void fetch_line "fe_fetch"(const void* p) noexcept nogil
    void fetch_line_for_later "fe_fetch_for_later"(const void* p) noexcept nogil   # into the second cache


cdef inline void fetch_lanes(const real* p, int lanes, Py_ssize_t ahead) noexcept nogil:
    """Have so many elements brought into the cache, from so many bytes after p."""
    cdef int line
    for line in range(lanes * <int>sizeof(real) // LINE):
        fetch_line(<const char*>p + ahead + LINE * line)
