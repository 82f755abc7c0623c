# The OpenMP runtime: the one parallel region, and what only OpenMP can tell.

from cython.parallel cimport prange

from fastelbo._kernels.terms.vecmath cimport real

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


cdef void in_parallel(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int threads,
) noexcept nogil:
    """A share of the job to each of so many threads. A lone one enters no region: that costs more than
    a small problem.
    """
    cdef int t
    if threads == 1:
        pass_(job, 0, 1, NULL)
        return
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        pass_(job, t, threads, NULL)
