cimport numpy as cnp

from fastelbo._kernels.call cimport Call, Handle

cdef class Dense:
    cdef Handle handle
    cdef readonly object kernels, name       # whose `fill` completes the handle
    cdef bint bound
    cdef object event                        # None: any
    cdef int axis                            # where that of classes is, if any; -1: the last
    cdef tuple own                           # what the handle points to
    cdef int load(self) except -1

cdef Dense KL
cdef Dense bound(object likelihood, tuple event)
cdef Dense dense_of(object likelihood, object x)
cdef bint bind_event(Call* call, Dense dense, object x, tuple outputs, int half) except -1
cdef bint bind_latents(Call* call, object mu, object logvar, int half) except -1
cdef bint bind_reduction(Call* call, object reduction) except -1
cdef bint may_write(tuple out, tuple like, tuple others) except -1
cdef tuple new_arrays(tuple like)
cdef int bind_gradients(Call* call, tuple gradients) except -1
cdef int run(Dense dense, Call* call, object num_threads) except -1
cdef cnp.ndarray new_rows(Call* call)
cdef cnp.ndarray new_like(cnp.ndarray a)
cdef bint is_word(object reduction, str word)
cpdef object named(type kind, tuple values)
