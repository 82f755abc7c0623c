"""The catalogue's cases as tests go through them."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

from fastelbo._catalogue import CASES, flatten
from tests.conftest import assert_close


def any_array(data, dtype, shape, values):
    """An array drawn by Hypothesis between the least and the largest of `values`.

    Whole numbers if they are; and none so small that products vanish, unless that is the least.
    """
    least, most = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        whole = hnp.arrays(np.int64, shape, elements=st.integers(least, most))
        return data.draw(whole).astype(dtype)
    low, high = np.nextafter(np.float32([least, most]), np.float32(0))
    a = data.draw(hnp.arrays(dtype, shape, elements=st.floats(float(low), float(high), width=32)))
    return np.where(np.abs(a) > 1e-9, a, least if least >= 0 else 0).astype(dtype)


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
