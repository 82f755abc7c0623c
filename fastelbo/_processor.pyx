# What only the processor can tell.

cdef extern from *:
    """
    /* The compiler's own probe asks cpuid and, for the wide registers, the operating system. */
    #if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
    static int fe_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
            && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    }
    static int fe_avx512(void) {
        return fe_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int fe_avx2(void) { return 0; }
    static int fe_avx512(void) { return 0; }
    #endif
    """
    bint fe_avx2() noexcept
    bint fe_avx512() noexcept


def processor_runs(str build):
    """Whether this processor and operating system can run a build."""
    if build == "avx512":
        return fe_avx512()
    if build == "avx2":
        return fe_avx2()
    return build == "baseline"
