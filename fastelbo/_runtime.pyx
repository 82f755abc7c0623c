# The OpenMP runtime: the one parallel region, and what only OpenMP can tell.
#
# A region ends when its last worker is there. One that has to be woken first, or whose core another
# program has, keeps the others waiting: for longer, often, than they would have needed alone. Results
# do not depend on the number of workers, so that may follow what is measured: see `Account`.

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport prange

from fastelbo._kernels.denormals cimport flush_denormals, restore_denormals
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
    static double omp_get_wtime(void) { return 0; }
    #endif
    #if defined(_MSC_VER)
    #define FE_OF_THREAD __declspec(thread)
    #else
    #define FE_OF_THREAD __thread
    #endif

    typedef struct {
        double alone, debt, owed, rate, gained, last;
        int tried;
    } fe_account;
    static FE_OF_THREAD fe_account fe_accounts[128];
    static FE_OF_THREAD Py_ssize_t fe_work_ahead, fe_alone, fe_together;
    """
    ctypedef struct Account "fe_account":
        # What workers have cost a caller, in seconds of its own, on jobs of one kind.
        double alone       # a unit of work takes one thread, about the median; 0: not tried yet
        double debt        # lost by waiting for workers, less what they saved
        double owed        # to be spent alone before they are tried again
        double rate        # by which a debt is multiplied to give that
        double gained      # since they were tried last
        double last        # the last debt that was called in
        bint tried         # workers were
    Account* accounts "fe_accounts"          # of this thread
    Py_ssize_t work_ahead "fe_work_ahead"    # about what its next regions will do
    Py_ssize_t alone "fe_alone", together "fe_together"      # of its regions that several might take
    const int FE_OPENMP
    double omp_get_wtime() noexcept nogil
    int omp_get_max_threads() noexcept nogil
    int omp_get_num_procs() noexcept nogil


cdef double FRESH = 10e-3                    # seconds
cdef int cpus = 0
cdef double asked = 0


def openmp():
    """Date of the OpenMP standard compiled against (201511 is 4.5), 0 without OpenMP."""
    return FE_OPENMP


def usable_threads():
    """Threads OpenMP would use, no more than the CPUs that this process may run on.

    Follows OMP_NUM_THREADS, threadpoolctl and CPU affinity as they stand now.
    """
    return min(omp_get_max_threads(), usable_cpus())


cpdef int usable_cpus():
    """CPUs that this process may run on, as they stood some milliseconds ago: to ask takes longer than
    a small pass.
    """
    global cpus, asked
    cdef double now = omp_get_wtime()
    if not 0 <= now - asked < FRESH or cpus == 0:
        cpus = omp_get_num_procs()
        asked = now
    return cpus


cdef void set_work_ahead(Py_ssize_t work) noexcept nogil:
    global work_ahead
    work_ahead = work


def expect(Py_ssize_t work):
    """About so many element updates are what the next regions of this thread are for."""
    set_work_ahead(work)


def expecting():
    """A capsule of what `expect` calls."""
    return PyCapsule_New(<void*>set_work_ahead, NULL, NULL)


cdef enum:
    ACCOUNTS = 128
    LEAST = 1              # times a debt that are spent alone, at first
    MOST = 32              # and in the end: no more than a thirtieth is lost to trials

cdef double WAKING = 200e-6                  # seconds that a worker may be late at times

cdef bint governed = True


def govern(bint on):
    """Whether workers must pay; returns whether they had to."""
    global governed
    cdef bint before = governed
    governed = on
    return before


def tally():
    """Of this thread's passes that several workers might have taken: (how many one took, the others)."""
    return alone, together


cdef inline Account* account_of(const void* pass_, Py_ssize_t work) noexcept nogil:
    """That of a pass over about so much work: large jobs pay where small ones do not."""
    cdef size_t kind = (<size_t>pass_ >> 4) * 31
    while work > 1:
        work >>= 1
        kind += 1
    return &accounts[kind % ACCOUNTS]


cdef inline void note_alone(Account* account, double seconds, Py_ssize_t work) noexcept nogil:
    """What a job took one thread, which pays a part of the debt that was called in."""
    cdef double a_unit = seconds / work, known = account.alone
    account.owed = max(0., account.owed - seconds)
    if known == 0:
        account.alone = a_unit
    else:                  # a step towards it, of any size: so outliers count as others do
        account.alone = known + 0.25 * (min(max(a_unit, 0.5 * known), 1.5 * known) - known)


cdef inline void note_together(Account* account, double alone, double took) noexcept nogil:
    """Workers took so long for what takes so long alone.

    A debt that is called in is multiplied before they are tried again, the more often the more; so
    whatever they do, what they cost is a small part of the time. They are forgiven as they repay it.
    """
    account.debt += took - alone
    if account.debt <= 0:
        account.gained -= account.debt
        account.debt = 0
        if account.gained > account.last:
            account.rate = account.rate / 2
            account.gained = 0
    elif account.debt > WAKING + alone:
        account.rate = max(<double>LEAST, account.rate)
        account.owed = account.rate * account.debt
        account.rate = min(<double>MOST, 2 * account.rate)
        account.last = account.debt
        account.debt = account.gained = 0


cdef inline void take_share(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int share, int shares, bint flush,
) noexcept nogil:
    cdef unsigned mode = 0
    if flush:
        mode = flush_denormals()
    pass_(job, share, shares, NULL)
    if flush:
        restore_denormals(mode)


cdef void in_parallel(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int threads,
) noexcept nogil:
    region(pass_, job, threads, False)


cdef void in_parallel_flushed(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int threads,
) noexcept nogil:
    region(pass_, job, threads, True)


cdef inline void region(
    void (*pass_)(const void* job, Py_ssize_t share, Py_ssize_t shares, const real* kind) noexcept nogil,
    const void* job, int threads, bint flush,
) noexcept nogil:
    """A share of the job to each of so many threads, or all to one where others have not paid lately.
    A lone one enters no region: that costs more than a small problem.
    """
    global alone, together
    cdef int t
    cdef Account* account
    cdef Py_ssize_t work = max(<Py_ssize_t>1, work_ahead)
    cdef double start, mine = 0
    if threads == 1:
        take_share(pass_, job, 0, 1, flush)
        return
    account = account_of(<const void*>pass_, work)
    start = omp_get_wtime()
    if governed and (account.owed > 0 or account.alone == 0 and account.tried):
        take_share(pass_, job, 0, 1, flush)
        note_alone(account, omp_get_wtime() - start, work)
        alone += 1
        return
    together += 1
    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        if t == 0:         # the caller itself, with the last share, which is never the smallest
            take_share(pass_, job, threads - 1, threads, flush)
            (&mine)[0] = omp_get_wtime()
        else:
            take_share(pass_, job, threads - 1 - t, threads, flush)
    mine = threads * (mine - start)
    account.tried = True
    if account.alone != 0:
        note_together(account, min(mine, work * account.alone), omp_get_wtime() - start)


cdef int heed_signals(double* owed, double work) except -1 nogil:
    """Seldom, since to ask takes the GIL, for which another thread may make us wait."""
    owed[0] += work
    if owed[0] < UNHEEDED:
        return 0
    owed[0] = 0
    with gil:
        return PyErr_CheckSignals()
