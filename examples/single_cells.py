"""Single cells of several types from several laboratories, told apart by CountVAE whatever the lab.

Counts are generated: types differ in a tenth of the genes, batches in all of them, cells in their
library size. In the latent space neighbours should be of one type, and of any batch.
"""

import argparse
import time

import numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--cells", type=int, default=5000)
parser.add_argument("--genes", type=int, default=2000)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--quick", action="store_true", help="few cells and genes")
parser.add_argument("--output", default="single_cells.png")
parser.add_argument("--seed", type=int, default=0)


def generated_cells(cells, genes, *, types=8, batches=3, depth=0.5, differ=0.7, seed=0):
    """(counts (cells, genes), types, batches); a gene has `depth` counts in a cell, on average."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(types, size=cells), rng.integers(batches, size=cells)
    differs = rng.random((types, genes)) < 0.1
    of_type = np.where(differs, rng.normal(0.0, differ, (types, genes)), 0.0)
    of_batch = rng.normal(0.0, 0.2, (batches, genes))
    share = np.exp(rng.normal(0.0, 1.5, genes) + of_type[kind] + of_batch[batch])
    share /= share.sum(axis=1, keepdims=True)
    library = rng.lognormal(np.log(depth * genes), 0.4, (cells, 1))
    theta = rng.lognormal(0.5, 0.7, genes)
    counts = rng.poisson(library * share * rng.gamma(theta, 1 / theta, (cells, genes)))
    return counts, kind, batch


def accuracy(Z, labels):
    """Of labels found by those of the nearest neighbours, cross-validated."""
    return cross_val_score(KNeighborsClassifier(15), Z, labels, cv=5).mean()


def draw(Z, kind, batch, output):
    """The latent space in its two main directions, coloured either way."""
    import matplotlib.pyplot as plt

    centred = Z - Z.mean(axis=0)
    x, y = np.linalg.svd(centred, full_matrices=False)[2][:2] @ centred.T
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.4))
    for axes, labels, name in zip(panels, (kind, batch), ("types", "batches"), strict=True):
        axes.scatter(x, y, 3, labels, cmap="tab10", vmin=0, vmax=9)
        axes.set_title(name)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.tight_layout()
    figure.savefig(output, dpi=120)
    print(output)


def main():
    options = parser.parse_args()
    easier = {}
    if options.quick:
        options.cells, options.genes = 1000, 500
        easier = {"depth": 2.0, "differ": 1.5}
    counts, kind, batch = generated_cells(options.cells, options.genes, seed=options.seed, **easier)
    print(f"{options.cells} cells, {options.genes} genes, {(counts == 0).mean():.0%} zeros")
    model = fastelbo.CountVAE(epochs=options.epochs, random_state=options.seed)
    start = time.perf_counter()
    Z = model.fit_transform(counts, batch=batch)
    print(f"trained for {options.epochs} epochs in {time.perf_counter() - start:.1f} s")
    by_chance = np.bincount(batch).max() / len(batch)
    print(
        f"type by nearest neighbours   {accuracy(Z, kind):.3f}  (of counts themselves "
        f"{accuracy(np.log1p(counts), kind):.3f})"
    )
    print(f"batch by nearest neighbours  {accuracy(Z, batch):.3f}  (by chance {by_chance:.3f})")
    drawn = model.posterior_predictive(counts, batch=batch, rng=options.seed)
    print(
        f"counts a cell                {counts.sum(axis=1).mean():.1f}  (of cells drawn "
        f"{drawn.sum(axis=1).mean():.1f})"
    )
    try:
        draw(Z, kind, batch, options.output)
    except ModuleNotFoundError as error:
        print(f"no picture: {error}")


if __name__ == "__main__":
    main()
