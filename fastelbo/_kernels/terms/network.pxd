# Terms of a small neural network: one activation, one parameter.

from libc.math cimport sqrt, sqrtf

from fastelbo._kernels.terms.vecmath cimport logistic, real


cdef inline real relu(real x) noexcept nogil:
    """max(x, 0), which keeps a NaN."""
    return <real>0 if x < <real>0 else x


cdef inline real relu_backward(real activation, real grad) noexcept nogil:
    return <real>0 if activation <= <real>0 else grad


cdef inline real sigmoid(real x) noexcept nogil:
    cdef real softplus, small
    logistic(x, &softplus, &small)
    return small if x < <real>0 else <real>1 - small


cdef inline void adam(real* parameter, real grad, real* first, real* second, real gain_first,
                      real gain_second, real step, real correction, real epsilon) noexcept nogil:
    """One ascent step of Adam (Kingma & Ba, ICLR 2015) and its two moments.

    The gains are 1 - beta1 and 1 - beta2, step is the learning rate over 1 - beta1^t, correction
    1 / sqrt(1 - beta2^t).
    """
    cdef real m = first[0] + gain_first * (grad - first[0])
    cdef real v = second[0] + gain_second * (grad * grad - second[0])
    cdef real root
    if real is float:
        root = sqrtf(v)
    else:
        root = sqrt(v)
    first[0] = m
    second[0] = v
    parameter[0] += step * m / (root * correction + epsilon)
