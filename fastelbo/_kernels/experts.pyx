# Products of Gaussian experts over M modalities, for one subset of them or for many, and back.
#
# Precisions are added as logarithms, relative to the largest, so that no variance is too small or
# too large. A sample's rows are finished alone, some dimensions at a time.

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from fastelbo._kernels.operands cimport ceil_div, data_of, padded_to
from fastelbo._kernels.pairs cimport finite
from fastelbo._kernels.terms.vecmath cimport exp, log, real
from fastelbo._runtime cimport in_parallel

cnp.import_array()

cdef enum:
    TILE = 128             # dimensions at once

cdef struct Product:
    Py_ssize_t experts, subsets, rows, cols    # M, S, B, L
    const char* mu                 # (M, B, L), strides in bytes
    const char* logvar
    Py_ssize_t mu_strides[2]
    Py_ssize_t logvar_strides[2]
    const uint64_t* members        # (S,): a bit for each expert
    const uint64_t* present        # (B,): a bit for each expert that the sample has
    bint whole                     # only subsets that are present as a whole count
    Py_ssize_t with_prior          # from this subset on, N(0, I) is one more expert of each
    char* mu_out                   # (S, B, L)
    char* logvar_out
    const char* grad_mu            # (S, B, L)
    const char* grad_logvar
    char* dmu                      # (M, B, L)
    char* dlogvar


cdef uint64_t counted(const Product* job, Py_ssize_t subset, Py_ssize_t row) noexcept nogil:
    """The experts of a product, 0 for one that does not count."""
    cdef uint64_t members = job.members[subset], found = members & job.present[row]
    return 0 if job.whole and found != members else found


cdef void tile_of(const char* a, const Py_ssize_t* strides, Py_ssize_t expert, Py_ssize_t row,
                  Py_ssize_t first, Py_ssize_t n, real* to) noexcept nogil:
    memcpy(to, a + expert * strides[0] + row * strides[1] + first * <Py_ssize_t>sizeof(real),
           n * sizeof(real))


cdef void multiply(const Product* job, Py_ssize_t subset, uint64_t experts, Py_ssize_t row,
                   Py_ssize_t first, Py_ssize_t n, real* restrict top, real* restrict total,
                   real* restrict mean) noexcept nogil:
    """The product's precision total * e^top and its mean, of n dimensions; the rest is padding."""
    cdef real m[TILE]
    cdef real v[TILE]
    cdef real e, x, t
    cdef Py_ssize_t k, i, wide = padded_to(n)
    cdef bint prior = subset >= job.with_prior
    for i in range(wide):
        top[i] = <real>0.0 if prior else -<real>INFINITY
        v[i] = 0
        m[i] = 0
    for k in range(job.experts):
        if experts >> k & 1:
            tile_of(job.logvar, job.logvar_strides, k, row, first, n, v)
            for i in range(wide):
                t = top[i]
                x = -v[i]
                top[i] = x if x > t else t
    for i in range(wide):
        t = finite(top[i])
        top[i] = t
        total[i] = exp(-t) if prior else <real>0.0
        mean[i] = 0
    for k in range(job.experts):
        if experts >> k & 1:
            tile_of(job.logvar, job.logvar_strides, k, row, first, n, v)
            tile_of(job.mu, job.mu_strides, k, row, first, n, m)
            for i in range(wide):
                e = exp(-v[i] - top[i])
                total[i] += e
                mean[i] += e * m[i]
    for i in range(wide):
        mean[i] = mean[i] / total[i]


cdef void product_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                        const real* kind) noexcept nogil:
    cdef const Product* job = <const Product*>given
    cdef real top[TILE]
    cdef real total[TILE]
    cdef real mean[TILE]
    cdef Py_ssize_t unit, subset, row, tile, first, n, at
    cdef Py_ssize_t units = job.subsets * job.rows
    cdef uint64_t experts
    cdef Py_ssize_t i
    for unit in range(units * share // shares, units * (share + 1) // shares):
        subset = unit // job.rows
        row = unit % job.rows
        experts = counted(job, subset, row)
        for tile in range(ceil_div(job.cols, TILE)):
            first = tile * TILE
            n = min(<Py_ssize_t>TILE, job.cols - first)
            at = unit * job.cols + first
            if experts == 0:                         # the prior, or what stands for nothing
                for i in range(TILE):
                    total[i] = mean[i] = 0
            else:
                multiply(job, subset, experts, row, first, n, &top[0], &total[0], &mean[0])
                for i in range(padded_to(n)):
                    total[i] = -(top[i] + log(total[i]))
            memcpy(<real*>job.logvar_out + at, total, n * sizeof(real))
            memcpy(<real*>job.mu_out + at, mean, n * sizeof(real))


cdef void backward_share(const void* given, Py_ssize_t share, Py_ssize_t shares,
                         const real* kind) noexcept nogil:
    """With w the share of an expert in the precision: w g, and w (h - g (mu - mean))."""
    cdef const Product* job = <const Product*>given
    cdef real top[TILE]
    cdef real total[TILE]
    cdef real mean[TILE]
    cdef real g[TILE]
    cdef real h[TILE]
    cdef real m[TILE]
    cdef real v[TILE]
    cdef real w
    cdef real* dmu
    cdef real* dlogvar
    cdef Py_ssize_t row, subset, tile, first, n, at, k, i
    cdef uint64_t experts
    for row in range(job.rows * share // shares, job.rows * (share + 1) // shares):
        for tile in range(ceil_div(job.cols, TILE)):
            first = tile * TILE
            n = min(<Py_ssize_t>TILE, job.cols - first)
            for k in range(job.experts):
                at = (k * job.rows + row) * job.cols + first
                for i in range(n):
                    (<real*>job.dmu)[at + i] = (<real*>job.dlogvar)[at + i] = 0
            for subset in range(job.subsets):
                experts = counted(job, subset, row)
                if experts == 0:
                    continue
                multiply(job, subset, experts, row, first, n, &top[0], &total[0], &mean[0])
                at = (subset * job.rows + row) * job.cols + first
                memcpy(g, <const real*>job.grad_mu + at, n * sizeof(real))
                memcpy(h, <const real*>job.grad_logvar + at, n * sizeof(real))
                for k in range(job.experts):
                    if not experts >> k & 1:
                        continue
                    tile_of(job.logvar, job.logvar_strides, k, row, first, n, v)
                    tile_of(job.mu, job.mu_strides, k, row, first, n, m)
                    at = (k * job.rows + row) * job.cols + first
                    dmu = <real*>job.dmu + at
                    dlogvar = <real*>job.dlogvar + at
                    for i in range(n):
                        w = exp(-v[i] - top[i]) / total[i]
                        dmu[i] += w * g[i]
                        dlogvar[i] += w * (h[i] - g[i] * (m[i] - mean[i]))


cdef void describe(Product* job, cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray members,
                   cnp.ndarray present, bint whole, Py_ssize_t with_prior):
    job.experts = cnp.PyArray_DIM(mu, 0)
    job.rows = cnp.PyArray_DIM(mu, 1)
    job.cols = cnp.PyArray_DIM(mu, 2)
    job.subsets = cnp.PyArray_DIM(members, 0)
    job.mu = data_of(mu)
    job.mu_strides = [cnp.PyArray_STRIDE(mu, 0), cnp.PyArray_STRIDE(mu, 1)]
    job.logvar = data_of(logvar)
    job.logvar_strides = [cnp.PyArray_STRIDE(logvar, 0), cnp.PyArray_STRIDE(logvar, 1)]
    job.members = <uint64_t*>data_of(members)
    job.present = <uint64_t*>data_of(present)
    job.whole = whole
    job.with_prior = with_prior


def product(cnp.ndarray mu, cnp.ndarray logvar, cnp.ndarray members, cnp.ndarray present,
            bint whole, Py_ssize_t with_prior, cnp.ndarray mu_out, cnp.ndarray logvar_out,
            int threads):
    """Products (S, B, L) of the experts mu, logvar (M, B, L), whose rows are contiguous.

    members (S,) and present (B,), uint64, have a bit for each expert: those of a product, and those
    that a sample has. `whole`: a product counts only where the sample has all of it. N(0, I) is one
    more expert of the products from index with_prior on.
    """
    cdef Product job
    cdef bint single = cnp.PyArray_TYPE(mu) == cnp.NPY_FLOAT
    describe(&job, mu, logvar, members, present, whole, with_prior)
    job.mu_out = data_of(mu_out)
    job.logvar_out = data_of(logvar_out)
    with nogil:
        if single:
            in_parallel[float](product_share, &job, threads)
        else:
            in_parallel[double](product_share, &job, threads)


def backward(cnp.ndarray grad_mu, cnp.ndarray grad_logvar, cnp.ndarray mu, cnp.ndarray logvar,
             cnp.ndarray members, cnp.ndarray present, bint whole, Py_ssize_t with_prior,
             cnp.ndarray dmu, cnp.ndarray dlogvar, int threads):
    """Gradients (M, B, L) of the experts from those of their products, contiguous (S, B, L)."""
    cdef Product job
    cdef bint single = cnp.PyArray_TYPE(mu) == cnp.NPY_FLOAT
    describe(&job, mu, logvar, members, present, whole, with_prior)
    job.grad_mu = data_of(grad_mu)
    job.grad_logvar = data_of(grad_logvar)
    job.dmu = data_of(dmu)
    job.dlogvar = data_of(dlogvar)
    with nogil:
        if single:
            in_parallel[float](backward_share, &job, threads)
        else:
            in_parallel[double](backward_share, &job, threads)
