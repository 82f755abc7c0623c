# Functions of elements over whole arrays, contiguous, of one dtype and one length. No memoryviews:
# their code would be most of what is compiled.

# What a function reads and writes, in its order; NULL is what it does not have.
ctypedef void (*Whole)(const void* a, void* b, void* c, void* d, Py_ssize_t n) noexcept nogil


cdef run(Whole of_float, Whole of_double, cnp.ndarray a, cnp.ndarray b, cnp.ndarray c=None,
         cnp.ndarray d=None):
    cdef Whole whole = of_float if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT else of_double
    whole(data_of(a), data_of(b), data_of(c), data_of(d), cnp.PyArray_SIZE(a))
