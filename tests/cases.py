"""The catalogue's cases as tests go through them."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

from fastelbo._catalogue import CASES, flatten
from tests.conftest import assert_close

#: Batches and dimensions around the sizes of lanes, tiles and units.
SHAPES = [(1, 1), (2, 31), (31, 2), (33, 33), (1, 4095), (2, 4097), (4097, 1), (9, 513), (300, 20)]


def any_array(data, dtype, shape, limit):
    """An array drawn by Hypothesis: no number beyond limit, none so small that products vanish."""
    elements = st.floats(-limit, limit, width=32)
    a = data.draw(hnp.arrays(dtype, shape, elements=elements))
    return np.where(np.abs(a) > 1e-9, a, 0).astype(dtype)


def check(name, arrays, dtype, **options):
    """A case, or the one of that name, against its reference: kinds, shapes and numbers."""
    case = CASES[name] if isinstance(name, str) else name
    arrays = list(arrays.values()) if isinstance(arrays, dict) else list(arrays)
    result = case.public(*arrays, **options)
    got, expected = flatten(result), flatten(case.reference(*arrays, **options))
    for mine, specified in zip(got, expected, strict=True):
        assert type(mine) is (float if isinstance(specified, float) else np.ndarray)
    for array in got[len(got) - len(case.outs) :] if case.gives_gradients else ():
        assert array.dtype == dtype
        assert array.flags.c_contiguous
    assert_close(tuple(got), tuple(expected), dtype, tuple(case.scales(arrays, **options)))
    return result
