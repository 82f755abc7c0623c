"""The C interface: passes over dense arrays from C, Cython and Numba, without Python and its lock.

``fastelbo.h``, in ``fastelbo.get_include()``, says what a call is and what the functions do. From
Cython they are ``from fastelbo.capi cimport Call, elbo, handle_of``; from C those of a fastelbo_api, which
``fastelbo_import()`` gives a module and `api` anybody else; from Numba and ctypes, `function`.
"""

import ctypes
import os
import re

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int32_t

from fastelbo._arrays cimport LATENT_COST
from fastelbo._call cimport (
    FASTELBO_BFLOAT16, FASTELBO_DREG, FASTELBO_FLOAT16, FASTELBO_FLOAT32, FASTELBO_FLOAT64,
    FASTELBO_STANDARD, FASTELBO_UINT8, FASTELBO_UNFIT, Call, Handle,
)
from fastelbo._dense cimport KL, Dense, bound

import numpy as np

from fastelbo import _builds
from fastelbo._arguments import as_whole, check_choice
from fastelbo._info import get_include
from fastelbo._named import as_likelihood
from fastelbo._openmp import runtime

cnp.import_array()

cdef Dense BACKWARD = Dense(_builds.kernels("latent"), "backward")
cdef Dense IWAE = Dense(_builds.kernels("importance"), "iwae")
cdef void (*expect)(Py_ssize_t work) noexcept nogil
cdef bint forked = False
#: That a call gets: OpenMP ends the process where it cannot make them.
cdef int32_t most_threads = max(64, os.cpu_count() or 1)

expect = <void (*)(Py_ssize_t) noexcept nogil>PyCapsule_GetPointer(runtime.expecting(), NULL)
KL.load()
BACKWARD.load()
IWAE.load()


def _after_fork():
    global forked
    forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef inline bint are_both(const void* a, const void* b) noexcept nogil:
    """Or neither."""
    return (a == NULL) == (b == NULL)


cdef inline bint is_half(int32_t dtype) noexcept nogil:
    return FASTELBO_FLOAT16 <= dtype <= FASTELBO_BFLOAT16


cdef bint has_latents(const Call* call) noexcept nogil:
    """Whether mu and logvar are there, and nothing of which one goes without the other is alone."""
    if call.latent_dtype != 0 and not (
            is_half(call.latent_dtype) and call.dtype == FASTELBO_FLOAT32 and call.mu_p == NULL):
        return False
    return (call.mu != NULL and call.logvar != NULL and call.latent >= 0
            and are_both(call.d_mu, call.d_logvar) and are_both(call.mu_p, call.logvar_p)
            and (call.mu_p == NULL or call.d_mu == NULL
                 or call.d_mu_p != NULL and call.d_logvar_p != NULL))


cdef bint has_kl(const Call* call) noexcept nogil:
    """Whether these latents have room for the z that noise makes: none beside a KL from another Gaussian."""
    cdef bint noisy = call.noise != NULL or call.draws != 0
    return has_latents(call) and (not noisy or call.z != NULL and call.mu_p == NULL)


cdef bint is_call(const Call* call) noexcept nogil:
    return (call != NULL and call.batch >= 1
            and (call.dtype == FASTELBO_FLOAT32 or call.dtype == FASTELBO_FLOAT64))


cdef bint has_event(const Handle* likelihood, const Call* call) noexcept nogil:
    """Whether x and a decoder's outputs are there, as this likelihood reads them."""
    cdef int i
    if likelihood == NULL or likelihood.run == NULL or call.x == NULL or call.event < 1:
        return False
    if not FASTELBO_UINT8 <= call.x_dtype <= FASTELBO_BFLOAT16 or call.samples < 0:
        return False
    if likelihood.event != 0 and call.event != likelihood.event:
        return False
    if call.classes != likelihood.classes if likelihood.classes > 0 else (
            call.classes < 1 if likelihood.classes < 0 else not 0 <= call.classes <= 1):
        return False
    if call.output_dtype != 0 and not (
            likelihood.follows and call.dtype == FASTELBO_FLOAT32 and is_half(call.output_dtype)):
        return False
    if call.columns & ~likelihood.columns or call.summed & ~call.columns:
        return False
    for i in range(likelihood.outputs):
        if call.outputs[i] == NULL:
            return False
    for i in range(likelihood.gradients):
        if not are_both(call.d_outputs[0], call.d_outputs[i]):
            return False
    return True


cdef void prepare(Call* call) noexcept nogil:
    """Threads as everywhere: one in a forked child, and fewer where they do not pay."""
    expect(max(1, call.samples) * call.batch * (call.event + LATENT_COST * call.latent))
    call.threads = 1 if forked else max(1, min(call.threads, most_threads))


cdef int32_t elbo(const Handle* likelihood, Call* call) noexcept nogil:
    cdef int32_t failed
    cdef const void* mu
    if not is_call(call) or not has_event(likelihood, call):
        return FASTELBO_UNFIT
    if call.mu != NULL and not (has_kl(call) and are_both(call.row_log_prob, call.row_kl)):
        return FASTELBO_UNFIT
    prepare(call)
    if likelihood.follows and call.mu_p == NULL:             # both in one pass
        return likelihood.run(likelihood, call)
    mu = call.mu
    call.mu = NULL
    failed = likelihood.run(likelihood, call)
    call.mu = mu
    if failed == 0 and mu != NULL:
        failed = KL.handle.run(&KL.handle, call)
    return failed


cdef int32_t kl(Call* call) noexcept nogil:
    if not is_call(call) or not has_kl(call):
        return FASTELBO_UNFIT
    prepare(call)
    return KL.handle.run(&KL.handle, call)


cdef int32_t backward(Call* call) noexcept nogil:
    if not is_call(call) or not has_latents(call) or call.latent_dtype != 0:
        return FASTELBO_UNFIT
    if call.d_mu == NULL or call.d_z == NULL or (
            call.z == NULL and call.noise == NULL and not call.draws):
        return FASTELBO_UNFIT
    prepare(call)
    return BACKWARD.handle.run(&BACKWARD.handle, call)


cdef int32_t iwae(const Handle* likelihood, Call* call) noexcept nogil:
    if not is_call(call) or not has_event(likelihood, call) or not has_latents(call):
        return FASTELBO_UNFIT
    if call.samples < 1 or call.z == NULL or call.bound == NULL:
        return FASTELBO_UNFIT
    if call.output_dtype != 0 or call.latent_dtype != 0 or call.summed != 0:
        return FASTELBO_UNFIT
    if not FASTELBO_STANDARD <= call.estimator <= FASTELBO_DREG:
        return FASTELBO_UNFIT
    if call.d_outputs[0] != NULL and (call.weights == NULL or call.d_z == NULL or call.d_mu == NULL):
        return FASTELBO_UNFIT
    prepare(call)
    return IWAE.handle.run(likelihood, call)


cdef extern from "fastelbo.h":
    ctypedef struct Api "fastelbo_api":
        int32_t (*elbo)(const Handle*, Call*) noexcept nogil
        int32_t (*kl)(Call*) noexcept nogil
        int32_t (*backward)(Call*) noexcept nogil
        int32_t (*iwae)(const Handle*, Call*) noexcept nogil

cdef Api functions = Api(elbo, kl, backward, iwae)

#: A capsule of a fastelbo_api.
API = PyCapsule_New(&functions, "fastelbo.capi.API", NULL)
#: Where it is.
api = <size_t>&functions


cdef const Handle* handle_of(object likelihood) except NULL:
    return &(<Dense?>likelihood).handle


def likelihood(likelihood, event=1):
    """A likelihood as passes take it.

    Parameters
    ----------
    likelihood : Likelihood or str
    event : int, optional
        D, which matters where the likelihood holds a number for each feature.

    Returns
    -------
    object
        Its ``address`` is that of a fastelbo_likelihood, and valid as long as this object is kept.

    Raises
    ------
    TypeError
        If it has no pass over dense arrays of its own, such as ``ColumnLikelihood``.
    ValueError
        If what it holds does not fit the event.
    """
    cdef Dense made
    chosen = as_likelihood(likelihood)
    event = as_whole(event, "event", 1)
    chosen._own_parameters((1, event), 1, np.dtype(np.float64))      # which complains where it does not fit
    made = bound(chosen, (event,))
    if made.handle.run == NULL:
        raise TypeError(f"{chosen!r} has no pass that C could call: use its methods")
    return made


def function(name):
    """A function of the interface for Numba and ctypes.

    Parameters
    ----------
    name : {"elbo", "kl", "backward", "iwae"}

    Returns
    -------
    ctypes function
        Of the address of a likelihood (but for "kl" and "backward") and that of a call, an array of one
        `CALL`; it returns what ``fastelbo.h`` says.
    """
    cdef dict addresses = {
        "elbo": (<size_t>functions.elbo, 2), "kl": (<size_t>functions.kl, 1),
        "backward": (<size_t>functions.backward, 1), "iwae": (<size_t>functions.iwae, 2)}
    check_choice(name, "name", tuple(addresses))
    address, count = addresses[name]
    return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * count)(address)


def _header():
    """The text of the header, without comments."""
    with open(os.path.join(get_include(), "fastelbo.h")) as file:
        return re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)


def _dtype_of_call(text):
    """That of a fastelbo_call, as the header declares it."""
    sizes = dict(re.findall(r"#define (\w+) (\d+)", text))
    fields = []
    for line in re.search(r"typedef struct \{([^}]*)\} fastelbo_call;", text)[1].split(";"):
        words = re.match(r"\s*(?:const )?(\w+) (.*)", line.replace("\n", " "))
        for name in words[2].split(",") if words else ():
            pointer, name, extent = re.match(r"\s*(\*?)(\w+)(?:\[(\w+)\])?", name).groups()
            kind = np.uintp if pointer else np.dtype(words[1].removesuffix("_t"))
            fields.append((name, kind, (int(sizes[extent]),)) if extent else (name, kind))
    return np.dtype(fields, align=True)


#: The dtype of a fastelbo_call; pointers are numbers, `ndarray.ctypes.data` say.
CALL = _dtype_of_call(_header())
#: What arrays hold, by dtype: `dtype` and `x_dtype` of a call.
CODES = {np.dtype(name.lower()): int(code)
         for name, code in re.findall(r"FASTELBO_(\w*T\d+) = (\d+)", _header()) if name != "BFLOAT16"}
