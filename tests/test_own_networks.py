"""VAE with networks of the user's own: convolutions, gradients, errors, copies."""

import copy
import pickle

import numpy as np
import pytest

import fastelbo
from fastelbo import VAE, SquaredError
from fastelbo._network import Autoencoder
from fastelbo._visible import Visible
from tests.test_vae import QUICK
from tests.test_vae import bars as bars
from tests.test_vae_training import raising, same, slopes_of


class Layers:
    """Two dense layers, ReLU between them, as a user would write them."""

    def __init__(self, features, hidden, outputs, seed=0, dtype=np.float32):
        draw = np.random.default_rng(seed).standard_normal
        self.first = (draw((features, hidden)) / np.sqrt(features)).astype(dtype)
        self.bias = np.zeros(hidden, dtype)
        self.second = (draw((hidden, outputs)) / np.sqrt(hidden)).astype(dtype)
        self.last = np.zeros(outputs, dtype)

    def parameters(self):
        return [self.first, self.bias, self.second, self.last]

    def forward(self, x):
        h = np.maximum(x @ self.first + self.bias, 0)
        return h @ self.second + self.last, (x, h)

    def backward(self, cache, gradient):
        x, h = cache
        d_h = (gradient @ self.second.T) * (h > 0)
        grads = [x.T @ d_h, d_h.sum(0), h.T @ gradient, gradient.sum(0)]
        return d_h @ self.first.T, grads


class Convolution:
    """A decoder to 4 x 4 pictures: a dense layer, ReLU, a convolution of 3 x 3."""

    def __init__(self, latent_dim, channels=3, outputs=1, seed=0, dtype=np.float32):
        draw = np.random.default_rng(seed).standard_normal
        self.channels, self.outputs = channels, outputs
        self.weight = draw((latent_dim, 16 * channels)).astype(dtype)
        self.bias = (0.1 * draw(16 * channels)).astype(dtype)
        self.kernel = (draw((channels, 3, 3, outputs)) / np.sqrt(9 * channels)).astype(dtype)

    def parameters(self):
        return [self.weight, self.bias, self.kernel]

    def forward(self, z):
        h = np.maximum(z @ self.weight + self.bias, 0).reshape(-1, 4, 4, self.channels)
        padded = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        pictures = np.einsum("bijcyx,cyxo->boij", windows, self.kernel)
        return pictures.reshape(len(z), -1), (z, h, windows)

    def backward(self, cache, gradient):
        z, h, windows = cache
        gradient = gradient.reshape(-1, self.outputs, 4, 4)
        d_kernel = np.einsum("bijcyx,boij->cyxo", windows, gradient)
        d_padded = np.zeros((len(z), 6, 6, self.channels), gradient.dtype)
        for y in range(3):
            for x in range(3):
                part = np.einsum("boij,co->bijc", gradient, self.kernel[:, y, x])
                d_padded[:, y : y + 4, x : x + 4] += part
        d_h = (d_padded[:, 1:5, 1:5] * (h > 0)).reshape(len(z), -1)
        return d_h @ self.weight.T, [z.T @ d_h, d_h.sum(0), d_kernel]


@pytest.mark.parametrize("prior", ["standard", "vamp"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_gradient_of_a_step_is_that_of_differences(prior, outputs):
    rng = np.random.default_rng(0)
    likelihood = SquaredError() if outputs == 1 else fastelbo.Gaussian("learned")
    own = {
        "encoder": Layers(16, 5, 4, dtype=np.float64),
        "decoder": Convolution(2, outputs=outputs, dtype=np.float64),
    }
    model = Autoencoder(Visible(likelihood, 16), (), 2, np.float64, prior, 3, **own)
    x = rng.random((7, 16))
    model.initialise(rng, x)
    start = model.adam.parameters.copy()
    assert start.size == 16 * 5 + 5 + 5 * 4 + 4 + 48 * 3 + 27 * outputs + 3 * 16 * (prior == "vamp")

    def objective(parameters):
        model.adam.parameters[...] = parameters
        model.publish()
        value, kl = model.step(x, np.arange(7), likelihood, 0.7, 0.0, 11, 0.0, 1)
        return value - 0.7 * kl

    objective(start)
    gradient, at = model.adam.grads.copy(), range(0, start.size, 7)
    np.testing.assert_allclose(gradient[at], slopes_of(objective, start, at), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("refine_steps", [0, 2])
def test_layers_of_ones_own_do_what_dense_ones_do(refine_steps):
    rng = np.random.default_rng(0)
    wide = {"dtype": np.float64}
    own = {"encoder": Layers(16, 5, 4, **wide), "decoder": Layers(2, 5, 16, **wide)}
    models = [
        Autoencoder(Visible(SquaredError(), 16), (5,), 2, **wide, **more) for more in ({}, own)
    ]
    x = rng.random((20, 16))
    for model in models:
        model.initialise(np.random.default_rng(0), x)
    models[1].adam.parameters[...] = models[0].adam.parameters
    models[1].publish()
    for step in range(5):
        found = [
            model.step(x, np.arange(20), SquaredError(), 1.0, 0.0, step, 0.01, 1, refine_steps)
            for model in models
        ]
        np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
    for network in ("encoder", "decoder"):
        dense = getattr(models[0], network)
        np.testing.assert_allclose(own[network].first, dense.weights[0], rtol=1e-8)
        np.testing.assert_allclose(own[network].last, dense.biases[1], rtol=1e-6)


def test_a_convolution_learns(bars):
    given = Convolution(3)
    before = copy.deepcopy(given.parameters())
    options = {**QUICK, "epochs": 40, "learning_rate": 0.01, "validation_fraction": 0.2}
    model = VAE(**options, decoder=given).fit(bars)
    elbo = model.history_["val_elbo"]
    assert elbo[-1] > elbo[0] + 3
    assert elbo[-1] > -8  # independent pixels give -11.09
    for now, then in zip(given.parameters(), before, strict=True):
        np.testing.assert_array_equal(now, then)  # the copy is trained
    assert type(model.decoder_) is Convolution
    assert model.encoder_ is None
    assert (model.decoder_.kernel != given.kernel).any()
    assert model.n_parameters_ == 16 * 17 + 17 * 6 + 48 * 4 + 27
    z = model.transform(bars[:5])
    means = 1 / (1 + np.exp(-model.decoder_.forward(z)[0]))
    np.testing.assert_allclose(model.inverse_transform(z), means, rtol=1e-5)
    assert model.score(bars) == pytest.approx(elbo[-1], abs=1)
    again = VAE(**options, decoder=given).fit(bars)
    np.testing.assert_array_equal(again.transform(bars), model.transform(bars))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_training(bars, copied):
    model = VAE(**QUICK, encoder=Layers(16, 8, 6), decoder=Convolution(3)).fit(bars)
    other = copied(model)
    assert other.decoder_ is not model.decoder_
    same(other, model, bars)


def test_an_interruption_is_undone_in_them_too(bars):
    own = {"encoder": Layers(16, 8, 6), "decoder": Convolution(3)}
    model = VAE(**QUICK, **own, beta=raising(KeyboardInterrupt(), 7))
    with pytest.warns(fastelbo.TrainingWarning, match="interrupted in epoch 3"):
        model.fit(bars)
    same(model, VAE(**{**QUICK, "epochs": 2}, **own).fit(bars), bars)


def test_they_are_not_saved(bars, tmp_path):
    model = VAE(**QUICK, decoder=Convolution(3)).fit(bars)
    for _ in range(2):
        with pytest.raises(TypeError, match="such as the decoder, Convolution: pickle the model"):
            model.save(tmp_path / "model.npz")
        model.set_params(decoder=None)  # which is for the next fit
    with pytest.raises(ValueError, match="whose decoder is 'Convolution', not None"):
        model.set_params(warm_start=True).fit(bars)
    assert list(tmp_path.iterdir()) == []


def changed(**methods):
    """A network of 16 -> 6 with other methods."""
    return type("Own", (Layers,), methods)(16, 4, 6)


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (3, TypeError, "encoder must have methods .* got 3, which has no forward, backward, para"),
        (Layers, TypeError, "encoder must have methods .* give an object, not the class Layers"),
        (changed(backward=None), TypeError, r"encoder must have .* which has no backward$"),
        (Layers(16, 4, 5), ValueError, r"encoder.forward: its output .*\(2, 5\).* \(2, 6\)"),
        (Layers(15, 4, 6), ValueError, "matmul"),
        (changed(forward=lambda self, x: x), TypeError, r"forward must return \(output, cache\)"),
        (changed(forward=lambda self, x: None), TypeError, "forward must .*, it returned None"),
        (
            changed(forward=lambda self, x: (np.full((len(x), 6), np.nan), x)),
            ValueError,
            r"encoder.forward: its output has nan at \(0, 0\), before any training",
        ),
        (
            changed(backward=lambda self, cache, gradient: [gradient]),
            TypeError,
            r"backward must return \(gradient of x, .* it returned a list of 1",
        ),
        (
            changed(backward=lambda self, cache, gradient: (None, [gradient])),
            TypeError,
            "backward must return a list of 4 gradients, .* returned a list of 1",
        ),
        (
            changed(backward=lambda self, cache, gradient: (None, self.parameters()[::-1])),
            ValueError,
            r"encoder.backward: its gradient 0 .*\(6,\).* \(16, 4\)",
        ),
        (
            changed(
                backward=lambda self, cache, gradient: (
                    None,
                    [np.full_like(array, np.inf) for array in self.parameters()],
                )
            ),
            ValueError,
            r"encoder.backward: its gradient 0 has inf at \(0, 0\), before any training",
        ),
        (
            changed(parameters=lambda self: [[1.0]]),
            TypeError,
            r"encoder.parameters\(\)\[0\] must be an array of floats .* got a list of 1",
        ),
        (changed(parameters=lambda self: [1.0]), TypeError, "can be written to, got 1.0"),
        (
            changed(parameters=lambda self: [np.arange(3)]),
            TypeError,
            r"got an array of shape \(3,\) and dtype int64",
        ),
        (
            changed(parameters=lambda self: [np.broadcast_to(1.0, 3)]),
            TypeError,
            "got a read-only float64 array",
        ),
    ],
)
def test_networks_that_do_not_fit(bars, fitted, encoder, error, message):
    model = copy.deepcopy(fitted).set_params(encoder=encoder)
    with pytest.raises(error, match=message):
        model.fit(bars)
    np.testing.assert_array_equal(model.transform(bars), fitted.transform(bars))


@pytest.fixture(scope="module")
def fitted(bars):
    return VAE(**QUICK).fit(bars)


def test_an_encoder_may_give_no_gradient_of_x(bars):
    encoder = changed(backward=lambda *args: (None, Layers.backward(*args)[1]))
    own, plain = (VAE(**QUICK, encoder=e).fit(bars) for e in (encoder, Layers(16, 4, 6)))
    assert own.history_ == plain.history_
    with pytest.raises(TypeError, match=r"encoder.backward: its gradient of x .* None"):
        VAE(**QUICK, encoder=encoder, prior="vamp").fit(bars)


def test_inputs_cannot_be_written_to(bars):
    def spoiling(self, x):
        x += 1
        return Layers.forward(self, x)

    with pytest.raises(ValueError, match="read-only"):
        VAE(**QUICK, encoder=changed(forward=spoiling)).fit(bars)


def test_what_an_encoder_sees_of_missing_values(bars):
    """Values and flags beside: (B, 2 D)."""
    X = bars.copy()
    X[::3, 5] = np.nan
    encoder = Layers(32, 8, 6)
    model = VAE(**QUICK, missing="nan", encoder=encoder, decoder=Convolution(3)).fit(X)
    filled = np.where(np.isnan(X), np.nanmean(X[:, 5]), X)
    seen = np.hstack([filled, np.isnan(X)])
    means = model.encoder_.forward(seen)[0][:, :3]
    np.testing.assert_allclose(model.transform(X), means, atol=1e-5)
    with pytest.raises(ValueError, match="matmul"):
        VAE(**QUICK, missing="nan", encoder=Layers(16, 8, 6)).fit(X)
