# Weights of far points and samples die out: most of their products would be denormal, each of which
# takes Intel's processors a hundred times as long. Passes that say so have zero in their place.

cdef extern from *:
    """
    #if defined(__SSE__) || defined(_M_X64)
    #include <xmmintrin.h>
    static CYTHON_INLINE unsigned fe_flush_denormals(void) {
        unsigned mode = _mm_getcsr();
        _mm_setcsr(mode | 0x8000);         /* results only: of arguments each bit counts */
        return mode;
    }
    static CYTHON_INLINE void fe_restore_denormals(unsigned mode) { _mm_setcsr(mode); }
    #else                                  /* they take no longer elsewhere */
    static CYTHON_INLINE unsigned fe_flush_denormals(void) { return 0; }
    static CYTHON_INLINE void fe_restore_denormals(unsigned mode) { (void)mode; }
    #endif
    """
    # Of this thread, from here on; returns how it was.
    unsigned flush_denormals "fe_flush_denormals"() noexcept nogil
    void restore_denormals "fe_restore_denormals"(unsigned mode) noexcept nogil
