"""Divergences of (samples, batch, L) and more axes are those of one batch of them all."""

import importlib.util

import numpy as np
import pytest

import fastelbo
from fastelbo import FreeBits, reference

LEADING = (2, 3, 4)


def draw(name, dtype=np.float64):
    """Arrays with LEADING axes, by the function's own names; of the last factor all share one."""
    rng = np.random.default_rng(0)
    own = {
        "kl_standard_normal": {"mu": (5,), "logvar": (5,)},
        "kl_normal": dict.fromkeys(("mu_q", "logvar_q", "mu_p", "logvar_p"), (5,)),
        "kl_full_normal": {"mu_q": (5,), "tril_q": (5, 5), "mu_p": (5,), "tril_p": (5, 5)},
    }[name]
    arrays = {}
    for argument, event in own.items():
        leading = () if argument == "tril_p" else LEADING
        arrays[argument] = rng.normal(size=(*leading, *event)).astype(dtype)
        if len(event) == 2:
            arrays[argument] = np.tril(0.1 * arrays[argument], -1) + np.eye(5, dtype=dtype)
    return arrays


def flattened(array):
    return array if array.shape == (5, 5) else array.reshape(-1, *array.shape[len(LEADING) :])


NAMES = ("kl_standard_normal", "kl_normal", "kl_full_normal")


@pytest.mark.parametrize("module", [fastelbo, reference], ids=["fastelbo", "reference"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_they_are_one_batch(name, reduction, module):
    arrays = draw(name)
    function = getattr(module, f"{name}_and_grad")
    value, grads = function(*arrays.values(), reduction=reduction)
    expected, flat = function(*map(flattened, arrays.values()), reduction=reduction)
    assert np.shape(value) == (LEADING if reduction == "none" else ())
    np.testing.assert_array_equal(np.ravel(value), np.ravel(expected))
    np.testing.assert_array_equal(
        value, getattr(module, name)(*arrays.values(), reduction=reduction)
    )
    for grad, array, row in zip(grads, arrays.values(), flat, strict=True):
        assert grad.shape == array.shape
        np.testing.assert_array_equal(flattened(grad), row)


@pytest.mark.parametrize("name", NAMES)
def test_out_is_written_to(name):
    arrays = draw(name, np.float32)
    out = tuple(np.empty_like(a) for a in arrays.values())
    function = getattr(fastelbo, f"{name}_and_grad")
    _, grads = function(*arrays.values(), out=out)
    assert type(grads) is type(function(*arrays.values())[1])
    for mine, given in zip(grads, out, strict=True):
        assert mine is given
    strided = (np.empty((*out[0].shape, 2), np.float32)[..., 0], *out[1:])
    with pytest.raises(ValueError, match="contiguous"):
        function(*arrays.values(), out=strided)


def test_free_bits_are_of_the_whole_batch():
    mu, logvar = draw("kl_standard_normal").values()
    bits = FreeBits(0.4)
    value = fastelbo.kl_standard_normal(mu, logvar, free_bits=bits)
    assert value == fastelbo.kl_standard_normal(flattened(mu), flattened(logvar), free_bits=bits)
    assert value == pytest.approx(
        reference.kl_standard_normal(mu, logvar, free_bits=bits), rel=1e-13
    )


@pytest.mark.parametrize("name", NAMES)
def test_errors_name_what_does_not_fit(name):
    arrays = draw(name)
    function = getattr(fastelbo, name)
    for argument in list(arrays)[1:]:
        wrong = {**arrays, argument: np.ones((2, 4, 3, 5))}
        with pytest.raises(ValueError, match=f"^{argument} has shape .* expected"):
            function(*wrong.values())
    empty = [a if a.shape == (5, 5) else a[:, :0] for a in arrays.values()]
    with pytest.raises(ValueError, match="empty"):
        function(*empty)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
@pytest.mark.parametrize("name", NAMES)
def test_so_do_tensors(name, forced, request):
    import torch

    import fastelbo.torch

    if forced:
        request.getfixturevalue("composite")()
    arrays = draw(name)
    function = getattr(fastelbo.torch, name)
    for reduction in ("mean", "none"):
        leaves = [torch.tensor(a, requires_grad=True) for a in arrays.values()]
        value = function(*leaves, reduction=reduction)
        expected, grads = getattr(fastelbo, f"{name}_and_grad")(
            *arrays.values(), reduction=reduction
        )
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-12)
        for mine, theirs in zip(torch.autograd.grad(value.sum(), leaves), grads, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-11, atol=1e-13)
    wrong = [torch.ones(2, 4, 3, 5), *[torch.tensor(a) for a in list(arrays.values())[1:]]]
    with pytest.raises(ValueError, match=r"has shape .* expected"):
        function(*wrong)
