"""The picture of `fastelbo demo`: reconstructions, samples, latent map, training and units."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fastelbo import active_units
from fastelbo._plots import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    PAPER,
    RED,
    draw_curves,
    draw_pictures,
    fit_to,
    plain,
)

#: Points of the latent map, at most.
MOST_POINTS = 5000
#: Units whose names fit below their bars.
MOST_NAMES = 20


def draw(*, model, data, means, test, test_elbo, seed):
    """The figure, for a fitted model and its posterior means; `test` are rows it was tested on."""
    figure = Figure(figsize=(13, 10), facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 2, left=0.06, right=0.965, bottom=0.06, top=0.87, hspace=0.2, wspace=0.12,
        height_ratios=(1, 1.9),
    )  # fmt: skip
    generator = np.random.default_rng(seed)
    shown = generator.permutation(data.X.shape[0])[:MOST_POINTS]
    _headline(figure, model, data, test_elbo, active_units(means))
    _reconstructions(figure, grid[0, 0], model, data, test, generator)
    _samples(figure, grid[0, 1], model, data, seed)
    _latent_map(figure, grid[1, 0], model, data, shown, np.isin(shown, test))
    right = grid[1, 1].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.36)
    _curves(figure, right[0].subgridspec(2, 1, height_ratios=(2, 1), hspace=0.1), model, test_elbo)
    _units(figure, right[1], means)
    return figure


def _headline(figure, model, data, test_elbo, active):
    figure.text(
        0.06, 0.95, "What the autoencoder learnt", fontsize=21, fontweight="bold", color=INK
    )
    parts = (
        data.name if len(data.name) < 42 else f"{data.name[:40]}\N{HORIZONTAL ELLIPSIS}",
        f"{_counted(len(active), 'latent dimension')}, {active.sum()} active",
        f"{model.likelihood} likelihood",
        _counted(model.n_parameters_, "parameter"),
        _counted(model.n_iter_, "epoch"),
    )
    figure.text(0.06, 0.921, "   ·   ".join(parts), fontsize=11, color=MUTED)
    value = f"test ELBO {test_elbo[-1][1]:.2f} nats".replace("-", "\N{MINUS SIGN}")
    figure.text(0.965, 0.95, value, fontsize=17, fontweight="bold", color=RED, ha="right")


def _counted(n, noun):
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _panel(figure, cell, title="", note=""):
    axes = figure.add_subplot(cell)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=10)
    axes.set_title(note, loc="right", fontsize=10, color=MUTED, pad=10)
    return axes


# Rows of data -----------------------------------------------------------------------------------


def _reconstructions(figure, cell, model, data, test, generator):
    labels = None if data.labels is None else data.labels[test]
    rows = data.dense(test[_one_of_each(len(test), labels, 20 if data.image else 6, generator)])
    axes = _panel(figure, cell, "Reconstruction", "of test data" if data.image else "")
    model.plot_reconstructions(rows, n=len(rows), ax=axes, shape=data.image)
    _at_top(axes, data)


def _samples(figure, cell, model, data, seed):
    axes = _panel(figure, cell, "Samples", "decoded draws from the prior N(0, I)")
    drawn = model.sample(40 if data.image else 6, rng=seed)
    if data.image:
        draw_pictures(axes, np.split(drawn, 4), data.image)
    else:
        draw_curves(axes, drawn)
    _at_top(axes, data)


def _at_top(axes, data):
    plain(axes)
    if data.image:
        axes.grid(False)
        axes.set_anchor("N")


def _one_of_each(size, labels, n, generator):
    """Rows to show: classes in turn and in order where there are any."""
    order = generator.permutation(size)
    if labels is not None:
        seen = {}
        rank = np.empty(len(order), int)
        for position, row in enumerate(order):
            rank[position] = seen[labels[row]] = seen.get(labels[row], -1) + 1
        order = order[np.lexsort((labels[order], rank))]
    return order[:n]


# Latents and training ---------------------------------------------------------------------------


def _latent_map(figure, cell, model, data, shown, held_out):
    axes = _panel(figure, cell, "Latent map")
    labels = None if data.labels is None else data.labels[shown]
    model.plot_latent(data.X[shown], labels, ax=axes, held_out=held_out)
    plain(axes)


def _curves(figure, cells, model, test_elbo):
    top = _panel(figure, cells[0], "Training", "nats a sample")
    bottom = _panel(figure, cells[1])
    model.plot_history(top, series="elbo")
    (trained,) = top.get_lines()
    trained.set(label=f"{trained.get_label()}, training", linewidth=1.1)
    epochs, tested = np.transpose(test_elbo)
    marker = "o" if len(epochs) == 1 else None
    top.plot(epochs, tested, color=RED, linewidth=2, label="ELBO, test", marker=marker)
    model.plot_history(bottom, series="kl")
    for axes in (top, bottom):
        fit_to(axes)
        axes.legend(loc="lower right", fontsize=10, frameon=False, labelcolor=INK)
        axes.set_ylabel("")
        axes.margins(x=0.02)
        plain(axes)
    top.set_xlabel("")
    top.tick_params(labelbottom=False)


def _units(figure, cell, means):
    """Variances of the posterior means, hollow where a unit tells nothing of the data."""
    active = active_units(means)
    note = f"{active.sum()} of {len(active)} active: variance of the posterior means"
    axes = _panel(figure, cell, "Units", note)
    units = np.arange(1, len(active) + 1)
    faces = np.where(active, BLUE, PAPER)
    edges = np.where(active, BLUE, MUTED)
    width = min(0.7, 0.07 * len(units))
    axes.bar(units, means.var(axis=0), width, color=faces, edgecolor=edges)
    axes.set_xlim(0.5, len(units) + 0.5)
    plain(axes)
    axes.grid(False, axis="x")
    axes.axhline(0, color=FAINT)
    if len(units) <= MOST_NAMES:
        axes.set_xticks(units, [f"$z_{{{unit}}}$" for unit in units])
        for name, is_active in zip(axes.get_xticklabels(), active, strict=True):
            name.set_color(INK if is_active else MUTED)
