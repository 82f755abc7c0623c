"""A classifier on 10 labels a class, with and without digits that a VAE generates from them."""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.svm import SVC

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="one draw of the labels, few epochs")
parser.add_argument("--output", default="augmentation.png")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

digits, labels = load_digits(return_X_y=True)
train, test, train_labels, test_labels = train_test_split(
    digits / 16, labels, test_size=600, stratify=labels, random_state=options.seed
)
# The VAE sees all training digits, and no label.
model = fastelbo.VAE(
    hidden=(256,),
    latent_dim=10,
    likelihood="gaussian",
    epochs=5 if options.quick else 150,
    random_state=options.seed,
).fit(train)
codes = model.transform(train)


def generated(x, y, each, rng):
    """Around each digit's code, between it and the codes of unlabelled digits that are near."""
    z = model.transform(x)
    near = NearestNeighbors(n_neighbors=each).fit(codes).kneighbors(z, return_distance=False)
    share = rng.uniform(0.3, 1, (len(z), each, 1))
    mixed = (1 - share) * z[:, None] + share * codes[near]
    return model.inverse_transform(mixed.reshape(-1, z.shape[1])), np.repeat(y, each)


classifiers = {
    "logistic regression": LogisticRegression(max_iter=2000),
    "nearest neighbour": KNeighborsClassifier(1),
    "support vectors": SVC(),
}


def accuracies(x, y):
    return [kind.fit(x, y).score(test, test_labels) for kind in classifiers.values()]


results = []
for seed in range(1 if options.quick else 10):
    rng = np.random.default_rng([options.seed, seed])
    few = np.concatenate(
        [rng.choice(np.flatnonzero(train_labels == c), 10, replace=False) for c in range(10)]
    )
    x, y = train[few], train_labels[few]
    more_x, more_y = generated(x, y, 10, rng)
    results.append([accuracies(x, y), accuracies(np.r_[x, more_x], np.r_[y, more_y])])
results = np.array(results)  # draws of the labels, without and with, classifiers
gains = results[:, 1] - results[:, 0]
print("accuracy on 600 digits, mean over draws of the labels")
print("                     100 labelled  and 1000 generated    gain")
for i, name in enumerate(classifiers):
    (alone, augmented), gain = results[..., i].mean(axis=0), gains[:, i].mean()
    error = gains[:, i].std() / np.sqrt(len(gains) - 1) if len(gains) > 1 else np.nan
    print(f"{name:20} {alone:12.3f} {augmented:19.3f}  {gain:+.3f} +- {error:.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for i in range(len(classifiers)):
    for before, after in results[..., i]:
        left.plot([2 * i, 2 * i + 1], [before, after], "o-", color=f"C{i}", alpha=0.6)
left.set_xticks([0.5, 2.5, 4.5], classifiers)
left.set(
    ylabel="accuracy on held-out digits", xlabel="left: 100 labelled, right: and 1000 generated"
)
tiles = [[x[10 * c], *more_x[100 * c : 100 * c + 9]] for c in range(10)]
right.imshow(np.block([[a.reshape(8, 8) for a in row] for row in tiles]), cmap="gray_r")
right.axvline(7.5, color="tab:orange")
right.set(title="a labelled digit, and nine generated from it", xticks=[], yticks=[])
figure.savefig(options.output, dpi=120)
print(options.output)
