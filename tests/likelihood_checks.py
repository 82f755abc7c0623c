"""What the tests of single likelihoods share."""

import mpmath
import numpy as np
import pytest

from fastelbo._catalogue import REDUCTIONS
from tests.conftest import TOLERANCE


def exact(likelihood, x, parameters, density, dtype, *, sizes=None, digits=80):
    """One element, value and gradient, against mpmath.

    ``density(x, *parameters)`` is log p in mpmath; derivatives are taken of it. Errors are relative
    to the results, or to ``sizes`` (of the value and of each derivative) where those are larger.
    """
    arrays = [np.full((1, 1), p, dtype) for p in parameters]
    value, gradients = likelihood.log_prob_and_grad(np.full((1, 1), x, dtype), *arrays)
    got = [value, *(float(g[0, 0]) for g in gradients)]
    sizes = sizes or (0.0,) * len(got)
    tiny = float(np.finfo(dtype).smallest_subnormal)
    with mpmath.workdps(digits):
        given = [mpmath.mpf(float(a[0, 0])) for a in arrays]
        wanted = [density(mpmath.mpf(float(x)), *given)]
        for i in range(len(gradients)):
            wanted.append(
                mpmath.diff(lambda p, i=i: density(x, *given[:i], p, *given[i + 1 :]), given[i])
            )
        for g, w, size in zip(got, wanted, sizes, strict=True):
            error = abs(mpmath.mpf(g) - w)
            bound = TOLERANCE[dtype] * max(abs(w), size) + tiny
            assert error <= bound, (g, float(w), float(error / bound))


def offends(likelihood, dtype, x, *parameters, name="x", where=(3, 17), bad=()):
    """Each bad number in `name` is refused by its place, unless validate=False or masked."""
    names = ("x", *likelihood.parameters)
    arrays = [np.array(x, dtype), *(np.array(p, dtype) for p in parameters)]
    loose = type(likelihood).__new__(type(likelihood))
    loose.__dict__.update(likelihood.__dict__, _validate=False)
    mask = np.ones(np.shape(x), bool)
    mask[where] = False
    clean = likelihood.log_prob(*arrays, mask=mask)
    for number in bad:
        spoilt = [a.copy() for a in arrays]
        spoilt[names.index(name)][where] = number
        place = rf"{name}\[{', '.join(str(i) for i in where)}\]"
        for reduction in REDUCTIONS:
            with pytest.raises(ValueError, match=place):
                likelihood.log_prob(*spoilt, reduction=reduction)
            with pytest.raises(ValueError, match=place):
                likelihood.log_prob_and_grad(*spoilt, reduction=reduction)
        loose.log_prob_and_grad(*spoilt)
        value, gradients = likelihood.log_prob_and_grad(*spoilt, mask=mask)
        assert value == clean
        for gradient in gradients:
            assert np.isfinite(gradient).all()
