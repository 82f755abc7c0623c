# Memory traffic and nothing else: what the machine could do, for `bench` to hold the passes against.
#
# Both kernels work on whole cache lines of LINE bytes; a last partial line is left out. Every
# thread takes one contiguous share, as in the passes.

cimport numpy as cnp
from libc.string cimport memset

from fastelbo._runtime cimport in_parallel

cnp.import_array()


cdef enum:
    LINE = 64              # bytes
    STEP = 8               # lines that are combined at once, each by an accumulator of its own
    WORDS = 8 * STEP       # in them, of 8 bytes
    MOST_THREADS = 256

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


cdef struct Traffic:
    const word* a
    const word* b
    word* out              # NULL: only read
    Py_ssize_t steps       # of WORDS each
    bint streamed
    word* result           # of each share: the exclusive or of what it read


cdef void traffic_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const double* kind) noexcept nogil:
    cdef const Traffic* job = <const Traffic*>given
    cdef Py_ssize_t first = job.steps * share // shares * WORDS
    cdef Py_ssize_t n = job.steps * (share + 1) // shares * WORDS - first
    if job.out == NULL:
        job.result[share] = fe_read(job.a + first, job.b + first, n)
    elif job.streamed:
        fe_write_past(job.a + first, job.b + first, job.out + first, n)
    else:
        fe_write(job.a + first, job.b + first, job.out + first, n)


cdef int check_threads(int threads) except -1:
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must lie in [1, {MOST_THREADS}], got {threads}")
    return 0


def read(cnp.ndarray[word, ndim=1, mode="c"] a, cnp.ndarray[word, ndim=1, mode="c"] b, int threads):
    """Read a and b. Returns the exclusive or of their words, which proves it."""
    cdef word result[MOST_THREADS]           # 0 where one thread has taken the shares of others
    cdef word total = 0
    cdef Traffic job
    cdef int t
    check_threads(threads)
    job.steps = min(a.shape[0], b.shape[0]) // WORDS
    if job.steps == 0:
        return 0
    job.a = &a[0]
    job.b = &b[0]
    job.out = NULL
    job.result = result
    memset(result, 0, sizeof(result))
    with nogil:
        in_parallel[double](traffic_share, &job, threads)
        for t in range(threads):
            total = total ^ result[t]
    return total


def read_and_write(cnp.ndarray[word, ndim=1, mode="c"] a, cnp.ndarray[word, ndim=1, mode="c"] b,
                   cnp.ndarray[word, ndim=1, mode="c"] out, bint streamed, int threads):
    """out = a ^ b, word by word; streamed: written past the caches (out aligned to 64 bytes)."""
    cdef Traffic job
    check_threads(threads)
    job.steps = min(a.shape[0], b.shape[0], out.shape[0]) // WORDS
    if job.steps == 0:
        return
    if streamed and <size_t>&out[0] % LINE:
        raise ValueError("out must be aligned to 64 bytes to be streamed")
    job.a = &a[0]
    job.b = &b[0]
    job.out = &out[0]
    job.streamed = streamed
    with nogil:
        in_parallel[double](traffic_share, &job, threads)
