"""flow_matching and flow_matching_and_grad: facts worked by hand."""

import numpy as np
import pytest

import fastelbo
from fastelbo import endpoint_velocity, flow_matching, flow_matching_and_grad, reference
from tests.conftest import numerical_gradient


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.uniform(0, 0.9, shape[:1]), rng.normal(size=shape)


def test_by_hand():
    """Rows -(0.5 / 0.5)^2 and -(1 / 0.25)^2 - (2 / 0.25)^2."""
    x, t, x_recon = [[1.0, 0.0], [1.0, 2.0]], [0.5, 0.75], [[0.5, 0.0], [0.0, 0.0]]
    rows = flow_matching(x, t, x_recon, reduction="none")
    np.testing.assert_array_equal(rows, [-1.0, -80.0])
    assert flow_matching(x, t, x_recon) == -40.5
    value, grad = flow_matching_and_grad(x, t, x_recon, reduction="sum")
    assert value == -81.0
    np.testing.assert_array_equal(grad.x_recon, [[4.0, 0.0], [32.0, 64.0]])


def test_it_is_the_error_of_the_velocity():
    x, t, x_recon = draw(6, 4)
    noise = np.random.default_rng(1).normal(size=x.shape)
    x_t = (1 - t[:, None]) * noise + t[:, None] * x
    error = (x - noise) - endpoint_velocity(x_recon, x_t, t)
    expected = -(error**2).sum(axis=1)
    np.testing.assert_allclose(flow_matching(x, t, x_recon, reduction="none"), expected)


def test_it_is_a_gaussian_whose_variance_shrinks():
    """Of variance (1 - t)^2 / 2, but for the constant: the same gradient."""
    x, t, x_recon = draw(6, 4)
    log_scale = np.broadcast_to(np.log((1 - t) / np.sqrt(2))[:, None], x.shape)
    value, grad = flow_matching_and_grad(x, t, x_recon)
    gaussian, (by_mean, by_scale) = (
        flow_matching_and_grad(x, t, (x_recon, log_scale), likelihood=fastelbo.Gaussian("learned"))[
            0
        ],
        flow_matching_and_grad(x, t, (x_recon, log_scale), likelihood=fastelbo.Gaussian("learned"))[
            1
        ].x_recon,
    )
    constant = np.mean(-log_scale.sum(axis=1)) - 2 * np.log(2 * np.pi)
    assert gaussian - constant == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(grad.x_recon, by_mean, rtol=1e-12)
    assert by_scale.shape == x.shape


def test_classes_have_a_cross_entropy():
    """Of probabilities 1/4 and 3/4."""
    logits = np.log([[1.0, 3.0], [1.0, 3.0]])
    categorical = fastelbo.Categorical()
    value, grad = flow_matching_and_grad([0, 1], 0.3, logits, likelihood=categorical)
    assert value == pytest.approx(0.5 * (np.log(0.25) + np.log(0.75)), rel=1e-15)
    np.testing.assert_allclose(grad.x_recon, [[0.375, -0.375], [-0.125, 0.125]], rtol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("likelihood", [None, "Gaussian"])
def test_several_times_of_every_endpoint(likelihood, reduction):
    """On a leading axis; the mean is (1/T) sum_t of that over the batch."""
    several = [draw(5, 3, seed=seed) for seed in range(4)]
    x = several[0][0]
    t, x_recon = (np.stack([case[i] for case in several]) for i in (1, 2))
    ours, theirs = (
        {"likelihood": likelihood and getattr(module, likelihood)(2.0), "reduction": reduction}
        for module in (fastelbo, reference)
    )
    value, grad = flow_matching_and_grad(x, t, x_recon, **ours)
    expected, (gradient,) = reference.flow_matching_and_grad(x, t, x_recon, **theirs)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(grad.x_recon, gradient, rtol=1e-13)
    one_by_one = [flow_matching(x, *pair, **ours) for pair in zip(t, x_recon, strict=True)]
    if reduction == "none":
        np.testing.assert_array_equal(value, one_by_one)
    else:
        combine = np.mean if reduction == "mean" else np.sum
        assert value == pytest.approx(combine(one_by_one), rel=1e-13)


def test_masks():
    """What is missing is not read, and has no gradient."""
    x, t, x_recon = draw(6, 4)
    mask = np.random.default_rng(2).uniform(size=x.shape) < 0.6
    spoilt = np.where(mask, x, np.nan)
    value, grad = flow_matching_and_grad(spoilt, t, x_recon, mask=mask)
    assert value == reference.flow_matching(np.where(mask, x, x_recon), t, x_recon)
    np.testing.assert_array_equal(grad.x_recon[~mask], 0)


def test_gradient_is_central_differences():
    x, t, x_recon = draw(3, 2)
    _, grad = flow_matching_and_grad(x, t, x_recon)
    expected = numerical_gradient(lambda a: flow_matching(x, t, a), x_recon)
    np.testing.assert_allclose(grad.x_recon, expected, rtol=1e-8)


def test_out():
    x, t, x_recon = draw(5, 5)
    expected = flow_matching_and_grad(x, t, x_recon)[1].x_recon
    out = np.empty_like(x)
    assert flow_matching_and_grad(x, t, x_recon, out=(out,))[1].x_recon is out
    np.testing.assert_array_equal(out, expected)
    square = np.repeat(t[:, None], 5, axis=1)
    for wrong in (x, x_recon, square):
        before = wrong.copy()
        with pytest.raises(ValueError, match=r"out\.x_recon overlaps"):
            flow_matching_and_grad(x, square[0], x_recon, out=(wrong,))
        np.testing.assert_array_equal(wrong, before)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([[1.0]], 1.0, [[1.0]]), {}, r"^t = 1\.0 lies outside \[0, 1\)"),
        (([[1.0]], [-0.1], [[1.0]]), {}, r"^t\[0\] = -0\.1 lies outside"),
        (([[1.0]], [0.1, 0.2], [[1.0]]), {}, r"^t has shape \(2,\)"),
        (([[1.0]], 0.1, [[1.0, 2.0]]), {}, r"^x_recon has shape"),
        (([2], 0.1, [[1.0, 2.0]]), {"likelihood": fastelbo.Categorical()}, r"^x\[0\] = 2"),
        (([[1.0]], 0.1, [[1.0]]), {"likelihood": "gauss"}, "^likelihood"),
        (([[1.0]], 0.1, [[1.0]]), {"reduction": "all"}, "^reduction"),
    ],
)
def test_errors_name_what_is_wrong(arguments, options, message):
    for function in (flow_matching, flow_matching_and_grad):
        with pytest.raises(ValueError, match=message):
            function(*arguments, **options)


def test_outputs_are_as_many_as_the_likelihood_reads():
    for function in (flow_matching, flow_matching_and_grad):
        with pytest.raises(TypeError, match=r"takes 1 decoder output\(s\) .* got 2"):
            function([[1.0]], 0.1, ([[1.0]],) * 2)
