# Terms of a small neural network: one activation, one parameter. Of activations other than the
# ReLU the slope comes with the value, from one exponential.

from libc.math cimport sqrt, sqrtf

from fastelbo._kernels.terms.vecmath cimport exp_minus_one, logistic, real


cdef inline real relu(real x) noexcept nogil:
    """max(x, 0), which keeps a NaN."""
    return <real>0 if x < <real>0 else x


cdef inline real relu_backward(real activation, real grad) noexcept nogil:
    return <real>0 if activation <= <real>0 else grad


cdef inline real sigmoid(real x) noexcept nogil:
    cdef real softplus, small
    logistic(x, &softplus, &small)
    return small if x < <real>0 else <real>1 - small


cdef inline void tanh(real x, real* value, real* slope) noexcept nogil:
    cdef real e, em1, rest, size
    exp_minus_one(-<real>2 * (-x if x < <real>0 else x), &e, &em1, &rest)
    size = -em1 / (<real>1 + e)
    value[0] = -size if x < <real>0 else size
    slope[0] = <real>4 * e / ((<real>1 + e) * (<real>1 + e))


cdef inline void elu(real x, real* value, real* slope) noexcept nogil:
    """x, or e^x - 1 below zero."""
    cdef real e, em1, rest
    exp_minus_one(x if x < <real>0 else <real>0, &e, &em1, &rest)
    value[0] = em1 if x < <real>0 else x
    slope[0] = e


cdef inline void silu(real x, real* value, real* slope) noexcept nogil:
    """x sigmoid(x)."""
    cdef real s = sigmoid(x)
    value[0] = x * s
    slope[0] = s + x * s * sigmoid(-x)


cdef inline void gelu(real x, real* value, real* slope) noexcept nogil:
    """x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3): x Phi(x) to three digits."""
    cdef real square = x * x
    cdef real w = <real>1.5957691216057308 * x * (<real>1 + <real>0.044715 * square)
    cdef real dw = <real>1.5957691216057308 * (<real>1 + <real>0.134145 * square)
    cdef real s = sigmoid(w)
    value[0] = x * s
    slope[0] = s + x * s * sigmoid(-w) * dw


cdef inline void adam(real* parameter, real grad, real* first, real* second, real gain_first,
                      real gain_second, real step, real correction, real epsilon,
                      real decay) noexcept nogil:
    """One ascent step of AdamW (Loshchilov & Hutter, ICLR 2019) and its two moments.

    The gains are 1 - beta1 and 1 - beta2, step is the learning rate over 1 - beta1^t, correction
    1 / sqrt(1 - beta2^t), decay the learning rate times the weight decay; without it, this is Adam.
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
    parameter[0] += step * m / (root * correction + epsilon) - decay * parameter[0]
