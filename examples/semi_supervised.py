"""Digits of which a hundred have labels: M2 beside a supervised network of the same encoder."""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="one seed and few epochs")
parser.add_argument("--output", default="semi_supervised.png")
parser.add_argument("--seed", type=int, default=0, help="the first of five")
options = parser.parse_args()

HIDDEN = (256, 128)  # of the classifier, either way
A_CLASS = 10  # labels
digits, classes = load_digits(return_X_y=True)
digits = digits / 16


def with_few_labels(seed):
    """(X, y with -1 for what is not known, which are known) to train on, and (X, y) to test."""
    x, x_test, y, y_test = train_test_split(
        digits, classes, test_size=500, stratify=classes, random_state=seed
    )
    rng = np.random.default_rng(seed)
    of_class = [rng.choice(np.flatnonzero(y == c), A_CLASS, replace=False) for c in range(10)]
    known = np.concatenate(of_class)
    labels = np.full(len(y), -1)
    labels[known] = y[known]
    return x, labels, known, x_test, y_test


def scores(seed):
    """Accuracy of the supervised network and of M2 on the same test digits, and M2 itself."""
    x, labels, known, x_test, y_test = with_few_labels(seed)
    supervised = MLPClassifier(HIDDEN, batch_size=100, max_iter=2000, random_state=seed)
    supervised.fit(x[known], labels[known])  # until its loss no longer falls
    model = fastelbo.SemiSupervisedVAE(
        hidden=HIDDEN,
        latent_dim=5,
        alpha=3,
        batch_size=100,
        epochs=2 if options.quick else 300,
        random_state=seed,
    ).fit(x, labels)
    return supervised.score(x_test, y_test), model.score(x_test, y_test), model


print(f"accuracy on 500 digits, {10 * A_CLASS} of 1297 with a label")
print("seed   supervised     M2")
table = []
for seed in range(options.seed, options.seed + (1 if options.quick else 5)):
    *pair, model = scores(seed)
    table.append(pair)
    print(f"{seed:4d}   {pair[0]:10.3f} {pair[1]:6.3f}", flush=True)
mean = np.mean(table, axis=0)
print(f"mean   {mean[0]:10.3f} {mean[1]:6.3f}   gain {100 * (mean[1] - mean[0]):+.1f} points")

columns = 12
z = np.random.default_rng(options.seed).normal(size=(columns, 5))
rows = [model.inverse_transform(z, np.full(columns, c)) for c in range(10)]
figure, axes = plt.subplots(figsize=(6.6, 6.2))
image = np.block([[np.pad(digit.reshape(8, 8), ((0, 2), (1, 1))) for digit in row] for row in rows])
axes.imshow(image, cmap="gray_r", vmin=0, vmax=1)
axes.set_yticks(np.arange(10) * 10 + 3.5, range(10))
axes.set_xticks([])
axes.set_xlabel("a style z a column")
axes.set_ylabel("class")
axes.set_title("M2: the same styles in every class")
figure.tight_layout()
figure.savefig(options.output, dpi=120)
print(options.output)
