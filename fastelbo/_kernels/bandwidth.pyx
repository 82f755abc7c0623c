# Memory traffic and nothing else: what the machine could do, for `bench` to hold the passes against.
#
# Both kernels work on whole cache lines of LINE bytes; a last partial line is left out. Every
# thread takes one contiguous share, as in the passes.

cimport numpy as cnp
from cython.parallel cimport prange

cnp.import_array()


cdef enum:
    LINE = 64              # bytes
    STEP = 8               # lines that are combined at once, each by an accumulator of its own

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <immintrin.h>
    #endif
    enum { FE_WORDS = 64 };   /* STEP lines of 8-byte words */

    /* exclusive or of n words of a and of b; n is a multiple of FE_WORDS */
    static uint64_t fe_read(const uint64_t *a, const uint64_t *b, Py_ssize_t n) {
        uint64_t acc[FE_WORDS] = {0}, all = 0;
        for (Py_ssize_t i = 0; i < n; i += FE_WORDS)
            for (int l = 0; l < FE_WORDS; l++) acc[l] ^= a[i + l] ^ b[i + l];
        for (int l = 0; l < FE_WORDS; l++) all ^= acc[l];
        return all;
    }

    static void fe_write(const uint64_t *a, const uint64_t *b, uint64_t *out, Py_ssize_t n) {
        for (Py_ssize_t i = 0; i < n; i += FE_WORDS)
            for (int l = 0; l < FE_WORDS; l++) out[i + l] = a[i + l] ^ b[i + l];
    }

    /* the same past the caches; out is aligned to a line */
    static void fe_write_past(const uint64_t *a, const uint64_t *b, uint64_t *out, Py_ssize_t n) {
    #if defined(__AVX512F__)
        for (Py_ssize_t i = 0; i < n; i += 8)
            _mm512_stream_si512((__m512i *)(out + i),
                _mm512_xor_si512(_mm512_loadu_si512(a + i), _mm512_loadu_si512(b + i)));
        _mm_sfence();
    #elif defined(__SSE2__)
        for (Py_ssize_t i = 0; i < n; i += 2)
            _mm_stream_si128((__m128i *)(out + i),
                _mm_xor_si128(_mm_loadu_si128((const __m128i *)(a + i)),
                              _mm_loadu_si128((const __m128i *)(b + i))));
        _mm_sfence();
    #else
        fe_write(a, b, out, n);
    #endif
    }
    """
    ctypedef unsigned long long word "uint64_t"
    word fe_read(const word* a, const word* b, Py_ssize_t n) noexcept nogil
    void fe_write(const word* a, const word* b, word* out, Py_ssize_t n) noexcept nogil
    void fe_write_past(const word* a, const word* b, word* out, Py_ssize_t n) noexcept nogil


def read(cnp.ndarray[word, ndim=1, mode="c"] a, cnp.ndarray[word, ndim=1, mode="c"] b, int threads):
    """Read a and b. Returns the exclusive or of their words, which proves it."""
    cdef Py_ssize_t steps = min(a.shape[0], b.shape[0]) // (STEP * LINE // 8)
    cdef Py_ssize_t words = STEP * LINE // 8, first, last
    cdef word result[256]
    cdef word total = 0
    cdef int t
    if not 1 <= threads <= 256:
        raise ValueError(f"threads must lie in [1, 256], got {threads}")
    if steps == 0:
        return 0
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1,
                        use_threads_if=threads > 1):
            first = steps * t // threads * words
            last = steps * (t + 1) // threads * words
            result[t] = fe_read(&a[0] + first, &b[0] + first, last - first)
        for t in range(threads):
            total = total ^ result[t]
    return total


def read_and_write(cnp.ndarray[word, ndim=1, mode="c"] a, cnp.ndarray[word, ndim=1, mode="c"] b,
                   cnp.ndarray[word, ndim=1, mode="c"] out, bint streamed, int threads):
    """out = a ^ b, word by word; streamed: written past the caches (out aligned to 64 bytes)."""
    cdef Py_ssize_t steps = min(a.shape[0], b.shape[0], out.shape[0]) // (STEP * LINE // 8)
    cdef Py_ssize_t words = STEP * LINE // 8, first, last
    cdef int t
    if not 1 <= threads <= 256:
        raise ValueError(f"threads must lie in [1, 256], got {threads}")
    if steps == 0:
        return
    if streamed and <size_t>&out[0] % LINE:
        raise ValueError("out must be aligned to 64 bytes to be streamed")
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static", chunksize=1,
                        use_threads_if=threads > 1):
            first = steps * t // threads * words
            last = steps * (t + 1) // threads * words
            if streamed:
                fe_write_past(&a[0] + first, &b[0] + first, &out[0] + first, last - first)
            else:
                fe_write(&a[0] + first, &b[0] + first, &out[0] + first, last - first)
