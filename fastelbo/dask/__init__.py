"""fastelbo on dask arrays: objectives, likelihoods, bounds and models of data in many chunks.

Everything is lazy and runs where dask runs it: on threads, or on the ``distributed`` client that
is the default. Arrays of Zarr and HDF5 come as dask arrays, or as they are. Each task uses one
thread for its kernels unless told otherwise, and what goes wrong in one names the argument and the
chunk.

>>> import dask.array as da
>>> import fastelbo.dask
>>> x = da.zeros((1000, 20), chunks=(100, 10))
>>> value = fastelbo.dask.log_prob(fastelbo.Bernoulli(), x, x)
"""

try:
    from dask.array import Array as Array
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'fastelbo.dask needs dask: pip install "fastelbo[dask]"', name="dask"
    ) from error

from fastelbo.dask.bounds import StreamingBound, importance_bound
from fastelbo.dask.elbo import ElboResult, elbo
from fastelbo.dask.likelihoods import log_prob
from fastelbo.dask.models import inverse_transform, score_samples, transform
from fastelbo.dask.training import fit, partial_fit

__all__ = [
    "ElboResult",
    "StreamingBound",
    "elbo",
    "fit",
    "importance_bound",
    "inverse_transform",
    "log_prob",
    "partial_fit",
    "score_samples",
    "transform",
]
