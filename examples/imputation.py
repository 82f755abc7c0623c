"""Missing pixels, in training and later: VAE.impute beside means and nearest neighbours."""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import train_test_split

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="few epochs and digits")
parser.add_argument("--output", default="imputation.png")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

rng = np.random.default_rng(options.seed)
digits = load_digits().data / 16
train, test = train_test_split(digits, test_size=400, random_state=options.seed)
test = test[:20] if options.quick else test
train = np.where(rng.random(train.shape) < 0.3, np.nan, train)  # no digit is whole

model = fastelbo.VAE(
    hidden=(256,),
    latent_dim=12,
    likelihood="gaussian",
    missing="nan",
    epochs=5 if options.quick else 200,
    random_state=options.seed,
).fit(train)
methods = {
    "mean": SimpleImputer(keep_empty_features=True).fit(train).transform,
    "KNNImputer": KNNImputer(keep_empty_features=True).fit(train).transform,
    "VAE": model.impute,
}

holes = {f"{share:.0%}": rng.random(test.shape) < share for share in (0.1, 0.25, 0.5, 0.75)}
holes["half"] = np.broadcast_to(np.arange(64) >= 32, test.shape)
print("root mean squared error of missing pixels (of 0 to 1), 30 % missing in training")
print("missing" + "".join(f"{name:>12}" for name in methods))
filled = {}
for label, gaps in holes.items():
    holed = np.where(gaps, np.nan, test)
    filled[label] = {"seen": holed} | {name: fill(holed) for name, fill in methods.items()}
    errors = [np.sqrt(np.mean((filled[label][name] - test)[gaps] ** 2)) for name in methods]
    print(f"{label:7}" + "".join(f"{error:12.4f}" for error in errors))

shown, parts = range(10), ["50%", "half"]
figure, axes = plt.subplots(2 * 5, len(shown), figsize=(8, 8.4), layout="constrained")
for part, label in enumerate(parts):
    for j, (name, images) in enumerate({"truth": test, **filled[label]}.items()):
        for ax, i in zip(axes[5 * part + j], shown, strict=True):
            ax.imshow(images[i].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], facecolor="tab:orange")
        axes[5 * part + j, 0].set_ylabel(f"{name}\n{label}" if j == 1 else name, fontsize=7)
figure.savefig(options.output, dpi=120)
print(options.output)
