# What only the OpenMP runtime can tell.

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
    """
    const int FE_OPENMP
    int omp_get_max_threads() noexcept nogil
    int omp_get_num_procs() noexcept nogil


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
