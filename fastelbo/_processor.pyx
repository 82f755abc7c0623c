# What only the processor can tell.

cdef extern from "_processor.h":
    bint fe_runs(const char* build) noexcept


def processor_runs(str build):
    """Whether this processor and operating system can run a build."""
    return fe_runs(build.encode())
