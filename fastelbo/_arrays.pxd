cimport numpy as cnp

cpdef enum:
    LATENT_COST = 8        # an element of a latent pass costs about this many of a squared error

cpdef cnp.ndarray as_floats(object obj, str name)
cpdef cnp.ndarray as_data(object obj, str name)
cpdef cnp.ndarray few_axes(cnp.ndarray a)
cpdef cnp.ndarray in_dtype(cnp.ndarray a, bint single, bint halves=*)
cpdef cnp.ndarray as_rows(object obj, str name, bint single)
cpdef tuple gaussians(object mu, object logvar, tuple axes=*, str mu_name=*, str logvar_name=*)
cpdef tuple latents(object mu, object logvar, str mu_name=*, str logvar_name=*, Py_ssize_t batch=*)

cdef class SparseRows:
    cdef readonly cnp.ndarray starts, columns, values
    cdef readonly bint ascending
    cdef SparseRows over(self, cnp.ndarray starts)

cdef class Layout:
    cdef str extra, kept
    cdef readonly int axis
    cdef Py_ssize_t extent
    cdef object width_of
    cdef readonly int more_axes
    cdef readonly bint sparse
    cdef tuple over(self, cnp.ndarray first, str name, cnp.ndarray x, int sample_axes)
    cdef tuple beside(self, cnp.ndarray first, str name, cnp.ndarray x, int sample_axes)

cpdef tuple event(object x, object parameters, tuple names, int sample_axes=*, Layout layout=*,
                  bint halves=*)
cpdef bint computes_in_float32(tuple arrays)
cpdef tuple problem(object x, object parameters, tuple names, object mu, object logvar,
                    Layout layout=*, bint halves=*)
cpdef cnp.ndarray empty_like(cnp.ndarray a, bint single)
