cimport numpy as cnp

cpdef cnp.ndarray as_floats(object obj, str name)
cpdef cnp.ndarray as_data(object obj, str name)
cpdef cnp.ndarray few_axes(cnp.ndarray a)
cpdef cnp.ndarray in_dtype(cnp.ndarray a, bint single)
cpdef cnp.ndarray as_rows(object obj, str name, bint single)
cpdef tuple latents(object mu, object logvar, str mu_name=*, str logvar_name=*)
cpdef tuple event(object x, object parameters, tuple names, int sample_axes=*)
cpdef bint computes_in_float32(tuple arrays)
cpdef tuple problem(object x, object parameters, tuple names, object mu, object logvar,
                    object check=*)
cpdef cnp.ndarray empty_like(cnp.ndarray a, bint single)
