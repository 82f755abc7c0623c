"""What a beta-VAE and a beta-TCVAE disentangle that a plain VAE does not: shapes of known factors.

Images of 16 x 16 pixels show a soft disk by its three factors: column, row and size. The measures
compare codes with these; the picture moves one code at a time, the most informative first.
From one model to the next every measure is higher. Still none has one code for each factor: the
size gets a code of its own in the beta-TCVAE, whose columns take two.
"""

import argparse

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier

import fastelbo

FACTORS = ("column", "row", "size")
PIXELS = 16


def shapes():
    """All images (N, 256) in [0, 1], and their factors (N, 3)."""
    factors = np.stack(np.meshgrid(range(12), range(8), range(4), indexing="ij"), -1).reshape(-1, 3)
    column, row, size = (factors * [0.9, 0.5, 0.7] + [3.0, 6.0, 1.5])[:, :, None, None].swapaxes(
        0, 1
    )
    y, x = np.mgrid[:PIXELS, :PIXELS]
    distance = np.hypot(x - column, y - row)
    return (1 / (1 + np.exp(4 * (distance - size)))).reshape(len(factors), -1), factors


class Network:
    """Two dense layers with a ReLU between, trained by Adam, uphill."""

    def __init__(self, rng, inputs, hidden, outputs):
        sizes = (inputs, hidden), (hidden, outputs)
        self.weights = [rng.normal(size=s) / np.sqrt(s[0]) for s in sizes]
        self.weights += [np.zeros(hidden), np.zeros(outputs)]
        self.moments = [(np.zeros_like(w), np.zeros_like(w)) for w in self.weights]
        self.steps = 0

    def __call__(self, x):
        first, second, bias, last = self.weights
        self.x, self.h = x, np.maximum(x @ first + bias, 0)
        return self.h @ second + last

    def backward(self, grad, rate):
        """Takes a step; returns the gradient of x."""
        first, second, *_ = self.weights
        d_h = grad @ second.T * (self.h > 0)
        d_x = d_h @ first.T
        grads = self.x.T @ d_h, self.h.T @ grad, d_h.sum(0), grad.sum(0)
        self.steps += 1
        for w, g, (m, v) in zip(self.weights, grads, self.moments, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            mean, square = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
            w += rate * mean / (np.sqrt(square) + 1e-8)
        return d_x


class BetaTcvae:
    """A VAE whose total correlation weighs beta, mutual information and single KLs one each."""

    def __init__(self, beta, seed, latent_dim=6, hidden=128):
        self.beta, self.rng = beta, np.random.default_rng(seed)
        self.encoder = Network(self.rng, PIXELS**2, hidden, 2 * latent_dim)
        self.decoder = Network(self.rng, latent_dim, hidden, PIXELS**2)

    def encode(self, x):
        return map(np.ascontiguousarray, np.split(self.encoder(x), 2, axis=1))

    def fit(self, x, epochs, rate=3e-3, batch=64):
        for _ in range(epochs):
            for rows in np.array_split(self.rng.permutation(len(x)), len(x) // batch):
                mu, logvar = self.encode(x[rows])
                z = fastelbo.reparameterize(mu, logvar, rng=self.rng)
                _, grad = fastelbo.beta_tcvae_elbo_and_grad(
                    x[rows],
                    z,
                    mu,
                    logvar,
                    self.decoder(z),
                    dataset_size=len(x),
                    likelihood="bernoulli",
                    beta=self.beta,
                )
                d_z = grad.z + self.decoder.backward(grad.x_recon, rate)
                back = fastelbo.reparameterize_backward(d_z, mu, logvar, z)
                d_code = np.hstack([back.mu + grad.mu, back.logvar + grad.logvar])
                self.encoder.backward(d_code, rate)
        return self

    def transform(self, x):
        return next(self.encode(x))

    def inverse_transform(self, z):
        return fastelbo.Bernoulli().mean(self.decoder(z))


def beta_vae(x, beta, seed, epochs):
    return fastelbo.VAE(
        hidden=(128,),
        latent_dim=6,
        beta=beta,
        epochs=epochs,
        batch_size=64,
        learning_rate=3e-3,
        random_state=seed,
    ).fit(x)


def beta_tcvae(x, beta, seed, epochs):
    return BetaTcvae(beta, seed).fit(x, epochs)


#: How each model is trained, and its beta: of the KL, or of the total correlation in it.
MODELS = {
    "VAE": (beta_vae, 1.0),
    "beta-VAE": (beta_vae, 4.0),
    "beta-TCVAE": (beta_tcvae, 6.0),
}


def measures(model, x, factors, seed):
    """MIG, SAP, D, C, I, and how many units are active."""
    codes = model.transform(x)
    trees = GradientBoostingClassifier(n_estimators=10, random_state=seed)
    dci = fastelbo.dci(codes, factors, estimator=trees, random_state=seed)
    return {
        "MIG": fastelbo.mutual_information_gap(codes, factors).score,
        "SAP": fastelbo.sap(codes, factors, continuous=True).score,
        "D": dci.disentanglement,
        "C": dci.completeness,
        "I": dci.informativeness,
        "active units": fastelbo.active_units(codes).sum(),
    }


def traversals(model, x, factors):
    """Images (code, step, 16, 16) around the middle shape, and what each code knows most of."""
    codes = model.transform(x)
    information = fastelbo.mutual_information_gap(codes, factors).mutual_information
    order = np.argsort(-information.max(axis=1))[:4]
    middle = codes[np.abs(factors - np.median(factors, axis=0)).sum(axis=1).argmin()]
    steps = np.linspace(-2, 2, 8)
    z = np.repeat(middle[None, None], len(order), 0).repeat(len(steps), 1)
    for i, code in enumerate(order):
        z[i, :, code] = steps
    images = model.inverse_transform(z.reshape(-1, codes.shape[1]))
    names = [f"{FACTORS[information[c].argmax()]} {information[c].max():.1f}" for c in order]
    return images.reshape(len(order), len(steps), PIXELS, PIXELS), names


def draw(models, x, factors, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(models), figsize=(14, 3), layout="constrained")
    for axis, (name, model) in zip(axes, models.items(), strict=True):
        images, names = traversals(model, x, factors)
        rows = images.transpose(0, 2, 1, 3).reshape(len(names) * PIXELS, -1)
        axis.imshow(rows, cmap="gray", vmin=0, vmax=1)
        axis.set_yticks(PIXELS * (np.arange(len(names)) + 0.5), names)
        axis.set(xticks=[], title=f"{name}, beta = {MODELS[name][1]:g}")
    figure.supxlabel("one code a row, from -2 to 2", fontsize=9)
    figure.supylabel("knows most of (nats)", fontsize=9)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer epochs, one seed")
    parser.add_argument("--output", default="disentanglement.png")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    x, factors = shapes()
    epochs, seeds = (40, 1) if arguments.quick else (300, 3)
    print(f"{len(x)} images, {epochs} epochs, means over {seeds} seeds")
    models = {}
    for name, (train, beta) in MODELS.items():
        found = []
        for seed in range(arguments.seed, arguments.seed + seeds):
            model = train(x, beta, seed, epochs)
            models.setdefault(name, model)
            found.append(measures(model, x, factors, seed))
        if len(models) == 1:
            print(f"{'':11}beta" + "".join(f"{measure:>14}" for measure in found[0]))
        means = (np.mean([f[measure] for f in found]) for measure in found[0])
        print(f"{name:11}{beta:4g}" + "".join(f"{mean:14.3f}" for mean in means))
    draw(models, x, factors, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
