# What only the processor and the OpenMP runtime can tell.

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define FE_OPENMP _OPENMP
    #else
    #define FE_OPENMP 0
    static int omp_get_max_threads(void) { return 1; }
    static int omp_get_num_procs(void) { return 1; }
    #endif
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
    const int FE_OPENMP
    int omp_get_max_threads() noexcept nogil
    int omp_get_num_procs() noexcept nogil
    bint fe_avx2() noexcept
    bint fe_avx512() noexcept


def processor_runs(str build):
    """Whether this processor and operating system can run a build."""
    if build == "avx512":
        return fe_avx512()
    if build == "avx2":
        return fe_avx2()
    return build == "baseline"


def openmp():
    """Date of the OpenMP standard compiled against (201511 is 4.5), 0 without OpenMP."""
    return FE_OPENMP


def usable_threads():
    """Threads OpenMP would use, no more than the CPUs that this process may run on.

    Follows OMP_NUM_THREADS, threadpoolctl and CPU affinity as they stand now.
    """
    cdef int most = omp_get_max_threads(), cpus = omp_get_num_procs()
    return most if most < cpus else cpus


def usable_cpus():
    return omp_get_num_procs()
