"""reinforce and reinforce_and_grad; what they share is in test_importance_bound.py."""

import numpy as np
import pytest

from fastelbo import importance_bound, reinforce, reinforce_and_grad, vimco_and_grad


def test_is_the_elbo():
    log_w = np.random.default_rng(0).normal(size=(5, 4))
    assert reinforce(log_w) == importance_bound(log_w, alpha=1)


def test_baselines_do_not_bias_and_lower_the_variance():
    """z ~ Bernoulli(sigmoid(logit)), f(z) = log w: the estimates of one gradient."""
    logit, samples = 0.4, 4
    p = 1 / (1 + np.exp(-logit))
    log_joint = np.log([0.15, 0.4]) - 30
    z = (np.random.default_rng(0).random((samples, 200_000)) < p).astype(int)
    log_w = log_joint[z] - np.log(np.where(z == 1, p, 1 - p))
    score = z - p
    estimates = {}
    for baseline in ("leave-one-out", "none"):
        _, grad = reinforce_and_grad(log_w, baseline=baseline, reduction="sum")
        estimates[baseline] = ((grad.log_q - grad.log_w) * score).sum(axis=0)
    exact = p * (1 - p) * (log_joint[1] - log_joint[0] - logit)
    for estimate in estimates.values():
        assert abs(estimate.mean() - exact) < 4.5 * estimate.std() / np.sqrt(len(estimate))
    assert estimates["leave-one-out"].var() < 0.05 * estimates["none"].var()
    # VIMCO estimates another bound, but its baseline does for it what this one does here.
    _, grad = vimco_and_grad(log_w, reduction="sum")
    assert ((grad.log_q - grad.log_w) * score).sum(axis=0).var() < 0.05 * estimates["none"].var()


def test_one_sample_needs_no_others_without_a_baseline():
    value, grad = reinforce_and_grad([[2.0, 3.0]], baseline="none", reduction="sum")
    assert value == 5.0
    np.testing.assert_array_equal(grad.log_q, [[2.0, 3.0]])
    assert reinforce([[2.0, 3.0]], baseline="none") == 2.5


@pytest.mark.parametrize("baseline", ["mean", None, 0])
def test_unknown_baseline(baseline):
    error = ValueError if isinstance(baseline, str) else TypeError
    for function in (reinforce, reinforce_and_grad):
        with pytest.raises(error, match="baseline"):
            function(np.zeros((2, 2)), baseline=baseline)
