"""rate_distortion."""

import sys

import numpy as np
import pytest

from fastelbo import VAE, RateDistortion, rate_distortion
from tests.test_vae import QUICK
from tests.test_vae import bars as bars

TRAINING = {**QUICK, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def curve(bars):
    model = VAE(**{**TRAINING, "epochs": 150})
    return rate_distortion(model, bars, [20.0, 0.3, 1.0], X_test=bars[:50], epochs=30)


def test_the_price_of_a_nat_moves_along_the_curve(curve):
    """Ascending in beta, the rate falls and the distortion grows; a line of slope -beta touches."""
    assert curve.beta.tolist() == [0.3, 1.0, 20.0]
    assert (np.diff(curve.rate) < 0).all()
    assert (np.diff(curve.distortion) > 0).all()
    for i, beta in enumerate(curve.beta):
        objectives = curve.distortion + beta * curve.rate
        assert objectives[i] <= objectives.min() + 0.1
    assert curve.rate[-1] < 0.1


def test_points_are_those_of_models_trained_in_turn(bars):
    model = VAE(**TRAINING)
    got = rate_distortion(model, bars, [0.5, 2.0])
    assert not hasattr(model, "_model")
    assert model.beta == 1.0
    own = VAE(**{**TRAINING, "beta": 0.5})
    for i, beta in enumerate((0.5, 2.0)):
        own.set_params(beta=beta).partial_fit(bars).partial_fit(bars).partial_fit(bars)
        reconstruction, kl = own.score_parts(bars)
        assert (got.rate[i], got.distortion[i]) == (kl.mean(), -reconstruction.mean())
    assert got.test_rate is got.test_distortion is None


def test_test_data_are_measured_too(curve, bars):
    whole = rate_distortion(VAE(**TRAINING), bars, [1.0], X_test=bars, epochs=1)
    np.testing.assert_array_equal(whole.rate, whole.test_rate)
    np.testing.assert_array_equal(whole.distortion, whole.test_distortion)
    assert curve.test_rate.shape == (3,)
    assert (curve.test_rate != curve.rate).all()


def test_epochs_are_of_further_betas(bars, monkeypatch):
    epochs = []
    trained = VAE.partial_fit

    def count(self, X):
        epochs.append(self.beta)
        return trained(self, X)

    monkeypatch.setattr(VAE, "partial_fit", count)
    rate_distortion(VAE(**TRAINING), bars, [1, 2, 4], epochs=2)
    assert epochs == [1.0] * 3 + [2.0] * 2 + [4.0] * 2


def test_progress_bar(bars, capsys):
    pytest.importorskip("tqdm")
    rate_distortion(VAE(**TRAINING), bars[:20], [1, 2], epochs=2, verbose=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "beta=2.00" in shown
    rate_distortion(VAE(**TRAINING), bars[:20], [1, 2], epochs=2)
    assert capsys.readouterr().err == ""


def test_plot(curve):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    ax = figure.subplots()
    assert curve.plot(ax) is ax
    drawn, tested = ax.get_lines()
    np.testing.assert_array_equal(drawn.get_xydata(), np.stack(curve[1:3], axis=1))
    np.testing.assert_array_equal(tested.get_xydata(), np.stack(curve[3:], axis=1))
    assert [text.get_text() for text in ax.texts] == ["0.3", "1", "20"]


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    one = np.ones(1)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastelbo\[plot\]"'):
        RateDistortion(one, one, one, None, None).plot()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "vae"}, TypeError, "model must be a VAE, got str"),
        ({"model": VAE(latent_dim=0)}, ValueError, "latent_dim must be at least 1"),
        ({"betas": []}, ValueError, "betas has shape"),
        ({"betas": 1.0}, ValueError, "betas has shape"),
        ({"betas": [1.0, -1.0]}, ValueError, "betas must be finite and not negative"),
        ({"betas": [1.0, np.nan]}, ValueError, "betas must be finite"),
        ({"betas": [1.0, 1.0]}, ValueError, "betas must differ"),
        ({"betas": ["a"]}, TypeError, "betas must hold real numbers"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"verbose": 1}, TypeError, "verbose must be True or False"),
        ({"X": np.full((2, 3), 2.0)}, ValueError, r"X\[0, 0\] = 2.* outside the domain"),
        ({"X_test": np.full((2, 3), 2.0)}, ValueError, r"X_test\[0, 0\] = 2.*: scale X_test"),
        ({"X_test": np.zeros((2, 4))}, ValueError, r"X_test has shape \(2, 4\), expected"),
    ],
)
def test_errors(monkeypatch, arguments, error, message):
    monkeypatch.setattr(VAE, "partial_fit", lambda self, X: pytest.fail("was trained"))
    given = {"model": VAE(**TRAINING), "X": np.zeros((2, 3)), "betas": [1.0], **arguments}
    with pytest.raises(error, match=message):
        rate_distortion(given.pop("model"), given.pop("X"), given.pop("betas"), **given)
