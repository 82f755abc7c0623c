"""A VAE whose encoder and decoder are convolutions in NumPy, beside one of dense layers.

``fastelbo.VAE`` takes any object with forward, backward and parameters as `encoder` or `decoder`.
Here each layer has the three methods, and so has a chain of them.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=200)
parser.add_argument("--latent-dim", type=int, default=8)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--quick", action="store_true", help="few epochs")
parser.add_argument("--output", default="own_networks.png")


class Linear:
    """x @ weight + bias."""

    def __init__(self, inputs, outputs, rng):
        scale = np.sqrt(2 / inputs)
        self.weight = scale * rng.standard_normal((inputs, outputs), dtype=np.float32)
        self.bias = np.zeros(outputs, np.float32)

    def parameters(self):
        return [self.weight, self.bias]

    def forward(self, x):
        return x @ self.weight + self.bias, x

    def backward(self, x, gradient):
        return gradient @ self.weight.T, [x.T @ gradient, gradient.sum(axis=0)]


class Convolution(Linear):
    """3 x 3, the border filled with zeros: (B, H, W, C) to (B, H / stride, W / stride, C')."""

    def __init__(self, inputs, outputs, rng, stride=1):
        super().__init__(9 * inputs, outputs, rng)
        self.stride = stride

    def forward(self, x):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        windows = windows[:, :: self.stride, :: self.stride].transpose(0, 1, 2, 4, 5, 3)
        rows = windows.reshape(-1, len(self.weight))
        y, _ = super().forward(rows)
        return y.reshape(*windows.shape[:3], -1), (rows, x.shape)

    def backward(self, cache, gradient):
        rows, (batch, height, width, channels) = cache
        by_rows, grads = super().backward(rows, gradient.reshape(-1, len(self.bias)))
        windows = by_rows.reshape(*gradient.shape[:3], 3, 3, channels)
        padded = np.zeros((batch, height + 2, width + 2, channels), by_rows.dtype)
        s = self.stride
        for i in range(3):
            for j in range(3):
                padded[:, i : i + height : s, j : j + width : s] += windows[:, :, :, i, j]
        return padded[:, 1:-1, 1:-1], grads


class Step:
    """What has no parameters."""

    def parameters(self):
        return []


class ReLU(Step):
    def forward(self, x):
        return np.maximum(x, 0), x > 0

    def backward(self, positive, gradient):
        return gradient * positive, []


class Shape(Step):
    """Rows of another shape."""

    def __init__(self, *shape):
        self.shape = shape

    def forward(self, x):
        return x.reshape(-1, *self.shape), x.shape

    def backward(self, shape, gradient):
        return gradient.reshape(shape), []


class Enlarge(Step):
    """Each pixel becomes 2 x 2 of them."""

    def forward(self, x):
        return x.repeat(2, axis=1).repeat(2, axis=2), None

    def backward(self, _, gradient):
        batch, height, width, channels = gradient.shape
        blocks = gradient.reshape(batch, height // 2, 2, width // 2, 2, channels)
        return blocks.sum(axis=(2, 4)), []


class Chain:
    """Layers one after the other: what ``fastelbo.VAE`` takes."""

    def __init__(self, *layers):
        self.layers = layers

    def parameters(self):
        return [array for layer in self.layers for array in layer.parameters()]

    def forward(self, x):
        caches = []
        for layer in self.layers:
            x, cache = layer.forward(x)
            caches.append(cache)
        return x, caches

    def backward(self, caches, gradient):
        grads = []
        for layer, cache in zip(self.layers[::-1], caches[::-1], strict=True):
            gradient, of_layer = layer.backward(cache, gradient)
            grads = of_layer + grads
        return gradient, grads


def convolutional(latent_dim, rng):
    """(encoder, decoder) of pictures of 8 x 8."""
    last = Linear(2 * 2 * 32, 2 * latent_dim, rng)
    last.weight[:, latent_dim:] = 0  # log-variances begin at 0
    encoder = Chain(
        *(Shape(8, 8, 1), Convolution(1, 16, rng, stride=2), ReLU()),
        *(Convolution(16, 32, rng, stride=2), ReLU(), Shape(2 * 2 * 32), last),
    )
    decoder = Chain(
        *(Linear(latent_dim, 2 * 2 * 32, rng), ReLU(), Shape(2, 2, 32)),
        *(Enlarge(), Convolution(32, 16, rng), ReLU()),
        *(Enlarge(), Convolution(16, 1, rng), Shape(8 * 8)),
    )
    return encoder, decoder


def draw(models, digits, path):
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    for (name, model), color in zip(models.items(), ("#4477aa", "#cc5500"), strict=True):
        epochs = np.arange(1, model.n_iter_ + 1)
        label = f"{name}, {model.n_parameters_:,} parameters"
        left.plot(epochs, model.history_["val_elbo"], color=color, label=label)
        left.plot(epochs, model.history_["elbo"], ":", color=color)
    bottom = min(model.history_["val_elbo"][-1] for model in models.values())
    left.set(xlabel="epoch", ylabel="ELBO [nats]", title="digits held out (dotted: trained on)")
    left.set_ylim(bottom - 4, bottom + 1.5)
    left.legend(loc="lower right")
    rows = [digits]
    rows += [model.inverse_transform(model.transform(digits)) for model in models.values()]
    picture = np.block([[np.pad(digit.reshape(8, 8), 1) for digit in row] for row in rows])
    right.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
    right.set_yticks([4.5, 14.5, 24.5], ["test digits", *models])
    right.set_xticks([])
    right.set_title("reconstructed")
    figure.savefig(path, dpi=120)


def main():
    args = parser.parse_args()
    epochs = 8 if args.quick else args.epochs
    digits = load_digits().data / 16
    train, test = train_test_split(digits, test_size=360, random_state=args.seed)
    options = {
        "latent_dim": args.latent_dim,
        "epochs": epochs,
        "learning_rate": fastelbo.LearningRateSchedule(3e-3, steps=epochs * 11, warmup=11),
        "validation_fraction": 0.1,
        "random_state": args.seed,
    }
    encoder, decoder = convolutional(args.latent_dim, np.random.default_rng(args.seed))
    models = {
        "dense": fastelbo.VAE(**options),
        "convolutions": fastelbo.VAE(**options, encoder=encoder, decoder=decoder),
    }
    print("networks      parameters  active units  ELBO of test digits")
    for name, model in models.items():
        model.fit(train)
        active = model.history_["active_units"][-1]
        score = model.score(test[:50] if args.quick else test)
        print(f"{name:12}  {model.n_parameters_:10}  {active:12}  {score:19.2f}")
    draw(models, test[:8], args.output)
    print(args.output)


if __name__ == "__main__":
    main()
