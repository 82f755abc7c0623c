"""latent_ode_elbo and latent_ode_elbo_and_grad: facts worked by hand."""

import numpy as np
import pytest

import fastelbo
from fastelbo import latent_ode_elbo, latent_ode_elbo_and_grad, reference


def draw(batch=4, times=5, features=2):
    rng = np.random.default_rng(0)
    x, x_recon = rng.normal(size=(2, batch, times, features))
    mu, logvar = rng.normal(size=(2, batch, 3))
    when = np.sort(rng.uniform(size=(batch, times)), axis=1)
    return [x, when, mu, logvar, x_recon]


def test_by_hand():
    """Observed errors 0 and 2; the third value is missing. KL 1/2."""
    x, x_recon = [[[1.0], [2.0], [np.nan]]], [[[1.0], [0.0], [9.0]]]
    mask = [[True, True, False]]
    result, grad = latent_ode_elbo_and_grad(
        x, [[0.0, 0.7, np.nan]], [[1.0]], [[0.0]], x_recon, mask=mask, beta=2.0
    )
    assert result == (-5.0, -4.0, 0.5, None)
    np.testing.assert_array_equal(grad.x_recon.ravel(), [0.0, 4.0, 0.0])
    assert (grad.mu, grad.logvar) == (-2.0, 0.0)


@pytest.mark.parametrize("p", [fastelbo.SquaredError(), fastelbo.StudentT(df=3.0)])
def test_it_is_a_sum_over_what_was_observed(p):
    """One (t, d) at a time, by the likelihood of a single number."""
    x, times, mu, logvar, x_recon = draw()
    mask = np.random.default_rng(1).uniform(size=x.shape) < 0.6
    got = latent_ode_elbo(x, times, mu, logvar, x_recon, likelihood=p, mask=mask, reduction="none")
    kl = fastelbo.kl_standard_normal(mu, logvar, reduction="none")
    for b in range(len(x)):
        one_by_one = [p.log_prob([x[b, t, d]], [x_recon[b, t, d]]) for t, d in np.argwhere(mask[b])]
        assert got.reconstruction[b] == pytest.approx(sum(one_by_one), rel=1e-13)
        assert got.elbo[b] == pytest.approx(sum(one_by_one) - kl[b], rel=1e-13)


def test_a_mask_of_times_is_one_of_all_their_features():
    arrays = draw()
    whole = np.random.default_rng(1).uniform(size=arrays[0].shape[:2]) < 0.6
    by_feature = np.repeat(whole[..., None], 2, axis=2)
    expected = latent_ode_elbo_and_grad(*arrays, mask=by_feature)
    for module in (fastelbo, reference):
        (elbo, *_), (*_, by_recon) = module.latent_ode_elbo_and_grad(*arrays, mask=whole)
        assert elbo == pytest.approx(expected[0].elbo, rel=1e-14)
        np.testing.assert_allclose(by_recon, expected[1].x_recon, rtol=1e-14)


def test_padding_changes_nothing():
    """A short series padded with NaN is the short series, in values and in times."""
    arrays = draw()
    short = [a[:, :3] if a.ndim == 3 or a.shape[1] == 5 else a for a in arrays]
    mask = np.arange(5) < 3
    x, times, mu, logvar, x_recon = arrays
    padded = [np.where(mask[:, None], x, np.nan), np.where(mask, times, np.nan)]
    mask = np.broadcast_to(mask, times.shape)
    got = latent_ode_elbo(*padded, mu, logvar, x_recon, mask=mask)
    assert got.elbo == pytest.approx(latent_ode_elbo(*short).elbo, rel=1e-14)


def test_observations_at_one_time_are_in_order():
    x, _, *rest = draw(times=3)
    assert latent_ode_elbo(x, [0.0, 0.0, 1.0], *rest) == latent_ode_elbo(x, [0, 1, 2], *rest)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 2.0, 1.0], r"times out of order: times\[2\] = 1 comes after 2; sort each series"),
        ([[0.0, 1.0, 2.0], [0.0, -1.0, 2.0]], r"times out of order: times\[1, 1\] = -1 comes aft"),
        ([0.0, np.nan, 1.0], r"times\[1\] = nan is not finite"),
        ([0.0, 1.0], r"times has shape \(2,\), expected \(3,\) or \(2, 3\) like x"),
        (0.0, "times has shape"),
    ],
)
def test_times_are_checked(times, message):
    x, _, *rest = draw(batch=2, times=3)
    out = tuple(np.full(shape, 77.0) for shape in ((2, 3), (2, 3), (2, 3, 2)))
    with pytest.raises(ValueError, match=f"^{message}"):
        latent_ode_elbo(x, times, *rest)
    with pytest.raises(ValueError, match=f"^{message}"):
        latent_ode_elbo_and_grad(x, times, *rest, out=out)
    assert all((array == 77).all() for array in out)
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    with pytest.raises(ValueError, match=f"^{message}"):
        ft.latent_ode_elbo(*map(torch.tensor, (x, times, *rest)))


def test_times_that_are_missing_are_not_checked():
    x, _, *rest = draw(batch=1, times=3)
    times, mask = [[0.0, 9.0, 1.0]], [[True, False, True]]
    assert np.isfinite(latent_ode_elbo(x, times, *rest, mask=mask).elbo)
    by_feature = np.array([[[True, False], [False, False], [True, True]]])
    assert np.isfinite(latent_ode_elbo(x, times, *rest, mask=by_feature).elbo)
    with pytest.raises(ValueError, match="out of order"):
        latent_ode_elbo(x, times, *rest, mask=[[True, True, True]])
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    tensors = map(torch.tensor, (x, times, *rest))
    got = ft.latent_ode_elbo(*tensors, mask=torch.tensor(mask)).elbo
    assert got.item() == latent_ode_elbo(x, times, *rest, mask=mask).elbo


def test_other_errors():
    x, times, *rest = draw()
    with pytest.raises(ValueError, match=r"^x has shape \(4,\), expected \(batch, times, \.\.\.\)"):
        latent_ode_elbo(x[:, 0, 0], times, *rest)
    with pytest.raises(TypeError, match=r"^mask must be boolean"):
        latent_ode_elbo(x, times, *rest, mask=np.ones(times.shape))
    with pytest.raises(ValueError, match=r"^mask has shape"):
        latent_ode_elbo(x, times, *rest, mask=np.ones((3, 5), bool))


@pytest.mark.parametrize("wrap", [lambda out: out, lambda out: (out,)])
def test_gradients_are_not_written_over_the_times(wrap):
    x, times, zero = np.zeros((2, 3, 1)), np.array([[0.0, 1.0, 2.0]] * 2), np.zeros((2, 1))
    kept = times.copy()
    out = None, None, wrap(times.reshape(x.shape))
    with pytest.raises(ValueError, match="x_recon overlaps an input"):
        latent_ode_elbo_and_grad(x, times, zero, zero, np.ones(x.shape), out=out)
    assert np.array_equal(times, kept)
