"""The picture of `fastelbo demo`: reconstructions, samples, latent map and training curves."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

INK = "#1c2541"
MUTED = "#7b8494"
FAINT = "#e6e9ef"
PAPER = "#ffffff"
TEST = "#e4572e"
#: Ten colours that stay apart, also for most colour-blind eyes.
CLASSES = (
    "#3d5a98", "#e4572e", "#2a9d8f", "#e9b44c", "#8e4585",
    "#56b4e9", "#9c6644", "#e07a9b", "#6a994e", "#4a4e58",
)  # fmt: skip
#: Points of the latent map, at most.
MOST_POINTS = 5000
PIXELS = LinearSegmentedColormap.from_list("ink", [PAPER, "#b9c4dd", "#4a5d94", INK])


def draw(*, model, data, test, test_elbo, seed):
    """The figure, for a fitted model; `test` are the rows of the data that it was tested on."""
    figure = Figure(figsize=(13, 9), facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 2, left=0.055, right=0.965, bottom=0.07, top=0.855, hspace=0.2, wspace=0.11,
        height_ratios=(1, 1.6),
    )  # fmt: skip
    _headline(figure, model, data, test_elbo)
    generator = np.random.default_rng(seed)
    _reconstructions(figure, grid[0, 0], model, data, test, generator)
    _samples(figure, grid[0, 1], model, data, seed)
    _latent_map(figure, grid[1, 0], model, data, generator)
    _curves(figure, grid[1, 1], model, test_elbo)
    return figure


def _headline(figure, model, data, test_elbo):
    figure.text(
        0.055, 0.945, "What the autoencoder learnt", fontsize=21, fontweight="bold", color=INK
    )
    text = (
        f"{data.name}   ·   {_counted(model.latent_dim, 'latent dimension')}   ·   "
        f"{model.likelihood} likelihood   ·   {_counted(model.n_parameters_, 'parameter')}   ·   "
        f"{_counted(model.n_iter_, 'epoch')}"
    )
    figure.text(0.055, 0.913, text, fontsize=11, color=MUTED)
    value = f"{test_elbo[-1][1]:.2f} nats".replace("-", "\N{MINUS SIGN}")
    figure.text(0.965, 0.945, value, fontsize=21, fontweight="bold", color=TEST, ha="right")
    figure.text(0.965, 0.913, "ELBO of the test set", fontsize=11, color=MUTED, ha="right")


def _counted(n, noun):
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _panel(figure, cell, title, note):
    axes = figure.add_subplot(cell)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=10)
    axes.set_title(note, loc="right", fontsize=10, color=MUTED, pad=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    return axes


# Rows of data -----------------------------------------------------------------------------------


def _reconstructions(figure, cell, model, data, test, generator):
    labels = None if data.labels is None else data.labels[test]
    original = data.X[test[_one_of_each(len(test), labels, 20, generator)]]
    rebuilt = model.inverse_transform(model.transform(original))
    note = "above, their reconstruction below" if data.image else "grey, rebuilt in colour"
    axes = _panel(figure, cell, "Reconstruction", f"test data {note}")
    if data.image:
        half = len(original) // 2
        stripes = [original[:half], rebuilt[:half], original[half:], rebuilt[half:]]
        _mosaic(axes, stripes, data.image)
    else:
        _ridges(axes, original[:6], rebuilt[:6])


def _samples(figure, cell, model, data, seed):
    axes = _panel(figure, cell, "Samples", "decoded draws from the prior N(0, I)")
    drawn = model.sample(40, rng=seed)
    if data.image:
        _mosaic(axes, np.split(drawn, 4), data.image)
    else:
        _ridges(axes, None, drawn[:6])


def _one_of_each(size, labels, n, generator):
    """An even number of rows to show: classes in turn and in order where there are any."""
    order = generator.permutation(size)
    if labels is not None:
        seen = {}
        rank = np.empty(len(order), int)
        for position, row in enumerate(order):
            rank[position] = seen[labels[row]] = seen.get(labels[row], -1) + 1
        order = order[np.lexsort((labels[order], rank))]
    n = min(n, len(order))
    return order[: n - n % 2] if n > 1 else np.repeat(order[:1], 2)


def _mosaic(axes, stripes, image):
    """Four rows of pictures, two and two."""
    height, width = image
    gap = max(1, round(0.12 * width))
    low, high = min(s.min() for s in stripes), max(s.max() for s in stripes)
    y = 0.0
    for i, stripe in enumerate(stripes):
        for j, row in enumerate(stripe):
            x = j * (width + gap)
            axes.imshow(
                row.reshape(image), cmap=PIXELS, vmin=low, vmax=high, interpolation="nearest",
                extent=(x, x + width, y + height, y),
            )  # fmt: skip
            axes.add_patch(
                Rectangle((x, y), width, height, fill=False, edgecolor=FAINT, linewidth=0.8)
            )
        y += height + gap + (0.5 * height if i == 1 else 0)
    axes.set_xlim(-0.5, len(stripes[0]) * (width + gap) - gap + 0.5)
    axes.set_ylim(y - gap + 0.5, -0.5)
    axes.set_aspect("equal", anchor="NW")
    axes.set_axis_off()


def _ridges(axes, below, above):
    """Rows as curves over their features, one above the other."""
    every = above if below is None else np.concatenate([below, above])
    low, high = float(every.min()), float(every.max())
    step = 0.7 * (high - low or 1.0)
    features = np.arange(above.shape[1])
    for i in range(len(above)):
        base = -i * step
        if below is not None:
            axes.plot(features, base + below[i], color="#b4bac6", linewidth=2.2)
        axes.plot(features, base + above[i], color=CLASSES[i % len(CLASSES)], linewidth=1.6)
    axes.set_yticks([])
    axes.margins(x=0.01)


# Latents and training ---------------------------------------------------------------------------


def _latent_map(figure, cell, model, data, generator):
    shown = generator.permutation(len(data.X))[:MOST_POINTS]
    labels = None if data.labels is None else data.labels[shown]
    means = model.transform(data.X[shown]).astype(np.float64)
    note = "posterior means"
    names = ("$z_1$", "$z_2$")
    if means.shape[1] > 2:
        centred = means - means.mean(axis=0)
        _, s, axes_of = np.linalg.svd(centred, full_matrices=False)
        share = (s[:2] ** 2).sum() / max((s**2).sum(), np.finfo(float).tiny)
        means = centred @ axes_of[:2].T
        note += f" on two principal axes, {share:.0%} of the variance"
        names = ("first principal axis", "second principal axis")
    elif means.shape[1] == 1:
        spread = generator.uniform(-1, 1, len(means))
        means = np.column_stack([means[:, 0], spread])
        names = ("$z_1$", "")
    axes = _panel(figure, cell, "Latent map", note)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(names[0], fontsize=10, color=MUTED)
    axes.set_ylabel(names[1], fontsize=10, color=MUTED)
    if model.latent_dim == 1:
        axes.set_yticks([])
    classes = [] if labels is None else list(np.unique(labels))
    if not 2 <= len(classes) <= len(CLASSES):
        axes.scatter(*means.T, s=16, color=CLASSES[0], alpha=0.6, linewidths=0)
        return
    for name, colour in zip(classes, CLASSES, strict=False):
        axes.scatter(*means[labels == name].T, s=15, color=colour, alpha=0.65, linewidths=0)
    centres = np.array([np.median(means[labels == name], axis=0) for name in classes])
    for name, colour, place in zip(
        classes, CLASSES, _apart(centres, 0.065 * np.ptp(means, axis=0)), strict=False
    ):
        axes.text(
            *place, str(name), fontsize=13, fontweight="bold", color=PAPER,
            ha="center", va="center",
            bbox={"boxstyle": "circle,pad=0.25", "fc": colour, "ec": PAPER, "lw": 1.5},
        )  # fmt: skip


def _apart(places, least):
    """Places moved until no two are nearer than `least`, which holds a distance for each axis."""
    places = places / np.maximum(least, np.finfo(float).tiny)
    for _ in range(100):
        away = places[:, None] - places
        distance = np.linalg.norm(away, axis=2)
        push = np.where((distance > 0) & (distance < 1), (1 - distance) / 2, 0)
        places = places + (away * (push / np.maximum(distance, 1e-9))[:, :, None]).sum(axis=1)
    return places * least


def _curves(figure, cell, model, test_elbo):
    history = model.history_
    epochs = np.arange(1, model.n_iter_ + 1)
    inner = cell.subgridspec(2, 1, height_ratios=(2, 1), hspace=0.16)
    top = _panel(figure, inner[0], "Training", "nats per sample")
    bottom = _panel(figure, inner[1], "", "")
    tested = np.array(test_elbo)
    name = "training" if model.beta == 1 else rf"training ($\beta$ = {model.beta:g})"
    _line(top, epochs, history["elbo"], INK, f"ELBO, {name}", 1.1)
    _line(top, tested[:, 0], tested[:, 1], TEST, "ELBO, test")
    _line(bottom, epochs, history["kl"], CLASSES[2], "KL", 1.1)
    both = np.concatenate([history["elbo"], tested[:, 1]])
    settled = np.concatenate([history["elbo"][len(epochs) // 20 :], tested[:, 1]])
    room = 0.08 * (both.max() - settled.min() or 1.0)
    top.set_ylim(settled.min() - room, both.max() + room)
    top.tick_params(labelbottom=False)
    bottom.set_xlabel("epoch", fontsize=10, color=MUTED)
    for axes, place in ((top, "lower right"), (bottom, "lower right")):
        axes.grid(color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc=place, fontsize=10, frameon=False, labelcolor=INK)


def _line(axes, x, y, colour, label, width=1.8):
    marker = "o" if len(x) == 1 else None
    axes.plot(x, y, color=colour, linewidth=width, label=label, marker=marker)
