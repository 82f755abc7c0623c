"""kl_full_normal and kl_full_normal_and_grad."""

import numpy as np
import pytest

import fastelbo
from fastelbo import kl_full_normal, kl_full_normal_and_grad, kl_normal, reference
from fastelbo._catalogue.divergences import factors

NAMES = ("mu_q", "tril_q", "mu_p", "tril_p")


def draw(dtype=np.float64, batch=4, dims=3, shared=""):
    rng = np.random.default_rng(2026)
    square = (dims, dims)
    return [
        factors(rng, square if name in shared else (batch, *square)).astype(dtype)
        if "tril" in name
        else rng.normal(size=(batch, dims)).astype(dtype)
        for name in NAMES
    ]


def test_the_value_that_pytorch_tests():
    tril = np.linalg.cholesky([[1.0, 0.2], [0.2, 1.0]])
    value = kl_full_normal([[1.0, 3.0]], np.eye(2), [[0.0, 0.0]], tril)
    assert value == pytest.approx(4.6045890027398722, rel=1e-15)


def test_diagonal_factors_are_kl_normal():
    mu_q, mu_p, logvar_q, logvar_p = np.random.default_rng(0).normal(size=(4, 5, 3))
    tril_q, tril_p = (np.exp(0.5 * v)[..., None] * np.eye(3) for v in (logvar_q, logvar_p))
    expected = kl_normal(mu_q, logvar_q, mu_p, logvar_p)
    assert kl_full_normal(mu_q, tril_q, mu_p, tril_p) == pytest.approx(expected, rel=1e-14)


def test_no_cancellation_near_equality():
    small = np.array([[[1 + 1e-9]]])
    value = kl_full_normal([[0.0]], small, [[0.0]], [[1.0]])
    assert value == pytest.approx((small.item() - 1) ** 2, rel=1e-6)
    assert kl_full_normal([[2.0]], small, [[2.0]], small) == 0
    tiny = np.array([[[1e-200]]])
    assert kl_full_normal([[2.0]], tiny, [[2.0]], tiny) == 0
    assert kl_full_normal([[2.0]], 2 * tiny, [[2.0]], tiny) == pytest.approx(1.5 - np.log(2))


def test_a_singular_factor_is_named():
    tril_p = np.array([[1e-200, 0.0], [1.0, 1e-200]])
    with pytest.raises(ValueError, match="tril_p is singular"):
        kl_full_normal(np.zeros((1, 2)), np.eye(2), np.zeros((1, 2)), tril_p)


def test_what_lies_above_the_diagonal_is_not_read():
    mu_q, tril_q, mu_p, tril_p = draw()
    full = [a + np.triu(np.full(a.shape, 7.0), 1) for a in (tril_q, tril_p)]
    value, grad = kl_full_normal_and_grad(mu_q, full[0], mu_p, full[1])
    assert value == kl_full_normal(mu_q, tril_q, mu_p, tril_p)
    for by in (grad.tril_q, grad.tril_p):
        np.testing.assert_array_equal(np.triu(by, 1), 0)


@pytest.mark.parametrize("module", [fastelbo, reference], ids=["kernel", "reference"])
def test_a_p_without_width_is_infinitely_far(module):
    """Whatever comes after the one axis that it lacks."""
    tril_p = np.tril(np.full((5, 5), 0.1), -1) + np.diag([1.0, 1e-308, 1.0, 1.0, 1.0])
    assert module.kl_full_normal(np.ones((1, 5)), np.eye(5), np.zeros((1, 5)), tril_p) == np.inf


def test_errors():
    arrays = draw()
    for which, name in enumerate(NAMES):
        for bad, error in ((arrays[which][:-1], ValueError), ("text", TypeError)):
            given = [*arrays[:which], bad, *arrays[which + 1 :]]
            with pytest.raises(error, match=name if error is TypeError else "shape"):
                kl_full_normal(*given)
    for name in ("tril_q", "tril_p"):
        given = dict(zip(NAMES, arrays, strict=True))
        given[name] = given[name] * [1.0, 0.0, 1.0]
        with pytest.raises(ValueError, match=f"{name} must have a positive diagonal"):
            kl_full_normal(**given)
    with pytest.raises(ValueError, match="reduction"):
        kl_full_normal(*arrays, reduction="all")
    with pytest.raises(ValueError, match="empty batch"):
        kl_full_normal(*(a[:0] for a in arrays))
    with pytest.raises(ValueError, match="overlaps"):
        kl_full_normal_and_grad(*arrays, out=tuple(arrays))


@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
@pytest.mark.parametrize("name", ["tril_q", "tril_p"])
def test_torch_says_the_same(name, forced, composite):
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    if forced:
        composite()
    given = {n: torch.tensor(a) for n, a in zip(NAMES, draw(), strict=True)}
    given[name] = given[name] * torch.tensor([1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=f"{name} must have a positive diagonal"):
        ft.kl_full_normal(**given)
