"""Pictures of trained models: an axes of Matplotlib goes in and comes out, nothing else changes.

Matplotlib is imported by what draws. No state of its own is set: a picture alone looks as the
user's style has it, and those of the command line call `plain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_whole, check_choice, shown
from fastelbo._reading import as_unmasked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

# Style ------------------------------------------------------------------------------------------

INK = "#1c2541"
MUTED = "#7b8494"
FAINT = "#e6e9ef"
PAPER = "#ffffff"
#: Ten that stay apart for colour-blind eyes, too: tests/test_plots.py measures how far. Petroff,
#: Accessible color sequences for data visualization, arXiv 2107.02270, 2021.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
BLUE, YELLOW, RED, GREY, VIOLET, BROWN, ORANGE = COLOURS[:7]
#: A class beyond the colours has the next marker.
MARKERS = "os^DvPX"
MOST_CLASSES = len(COLOURS) * len(MARKERS)
#: From light to dark, in the order of values; of pictures and of labels that are numbers.
PIXELS = (PAPER, "#b9c4dd", "#4a5d94", INK)
SCALE = "cividis"


def plain(axes):
    """An axes without a frame, on a faint grid."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=MUTED, fontsize=10)


def axes_of(ax, asking):
    """The axes to draw on: the one that was given, or pyplot's current one."""
    try:
        import matplotlib  # noqa: F401
        from matplotlib.axes import Axes
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f'{asking} needs Matplotlib: pip install "fastelbo[plot]"', name="matplotlib"
        ) from None
    if ax is None:
        from matplotlib import pyplot

        return pyplot.gca()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be an Axes of Matplotlib or None, got {shown(ax)}")
    return ax


def key_above(ax, styles):
    """A legend of {name: style of a line} over the upper right corner, where no data are."""
    from matplotlib.lines import Line2D

    ax.legend(
        handles=[Line2D([], [], label=name, **style) for name, style in styles.items()],
        loc="lower right", bbox_to_anchor=(1, 1), ncols=len(styles), frameon=False,
        fontsize="small", borderaxespad=0.2, handletextpad=0.7, columnspacing=1.2,
    )  # fmt: skip


def _whole_numbers(ax):
    from matplotlib.ticker import MaxNLocator

    whole = MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    ax.xaxis.set_major_locator(whole)


# History ----------------------------------------------------------------------------------------

#: What is measured in nats: it shares an axis. The rest is numbers of another kind.
NATS = ("elbo", "objective", "reconstruction", "kl")
#: The first epochs, a share of all, where an objective may be anything.
EARLY = 0.05


def draw_history(ax, history, series=None):
    """Curves over the epochs; what is not in nats is on an axis at the right."""
    if series is None:
        series = [name for name, found in history.items() if _base(name) in NATS or _varies(found)]
    else:
        series = [series] if isinstance(series, str) else list(series)
        for name in series:
            check_choice(name, "series", tuple(history))
    nats = [name for name in series if _base(name) in NATS]
    others = [name for name in series if name not in nats]
    handles = [_curve(ax, name, history) for name in nats]
    panels = [ax]
    if others:
        panels.append(ax.twinx() if nats else ax)
        handles += [_curve(panels[-1], name, history) for name in others]
        panels[-1].set_ylabel(", ".join(_title(name, history) for name in others))
    if nats:
        ax.set_ylabel("nats a sample")
    ax.set_xlabel("epoch")
    _whole_numbers(ax)
    if max((len(history[name]) for name in series), default=0) == 1:
        ax.set_xlim(0.5, 1.5)  # no ticks at fractions of the only epoch
    columns = min(3, len(handles)) or 1
    for panel in panels if handles else ():
        fit_to(panel, room=0.08 + 0.09 * -(-len(handles) // columns))
    if handles:
        panels[-1].legend(
            handles=handles, loc="upper left", ncols=columns, fontsize="small", frameon=False
        )


def _base(name):
    return name.removeprefix("val_")


def _varies(found):
    return len(set(found)) > 1


def _title(name, history):
    """What a series is called; that of the objective says what it is made of."""
    base = _base(name)
    title = {"elbo": "ELBO", "kl": "KL"}.get(base, base.replace("_", " "))
    betas = set(history.get("beta", ())) if name == "elbo" else {1.0}
    if betas - {1.0}:
        weight = f"{betas.pop():g}" if len(betas) == 1 else "beta"
        title = f"reconstruction \N{MINUS SIGN} {weight} KL"
    return title if base == name else f"{title}, validation"


def _curve(ax, name, history):
    """One series, of validation dashed; a single epoch is a point."""
    found = history[name]
    base = _base(name)
    colours = dict(zip(NATS, (BLUE, BLUE, ORANGE, VIOLET), strict=True))
    others = [_base(other) for other in history if _base(other) not in NATS]
    colour = colours.get(base) or (GREY, BROWN, RED, YELLOW)[others.index(base) % 4]
    line = {"linestyle": "-" if base in NATS else ":"} if base == name else {"linestyle": "--"}
    (drawn,) = ax.plot(
        np.arange(1, len(found) + 1), found, color=colour, label=_title(name, history),
        marker="o" if len(found) == 1 else None, **line,
    )  # fmt: skip
    return drawn


def fit_to(ax, room=0.08):
    """Limits of y, without early epochs if these took half of the height or more.

    `room` is the share of the height that stays empty above, for a legend.
    """
    points = np.concatenate([line.get_xydata() for line in ax.get_lines()])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return
    epochs, values = points.T
    late = values[epochs > EARLY * epochs.max()]
    shown = late if 2 * np.ptp(late) < np.ptp(values) else values
    low, high = shown.min(), shown.max()
    height = (high - low) or max(abs(high), 1.0) * 0.1
    ax.set_ylim(low - 0.06 * height, high + height * room / (1 - room))


# Latents ----------------------------------------------------------------------------------------


def draw_latents(ax, means, y=None, held_out=None):
    """Posterior means: the first two, or principal axes of more; of a single one, rows or bars."""
    means = np.asarray(means, np.float64)
    y = None if y is None else _labels(y, len(means))
    held_out = np.zeros(len(means), bool) if held_out is None else _flags(held_out, len(means))
    classes, codes = _classes(y)
    if means.shape[1] == 1 and y is None:
        _bars(ax, means[:, 0], held_out)
        keys = {"color": BLUE, "linewidth": 5, "alpha": 0.6}, {"color": INK, "linewidth": 1.5}
    else:
        places, colours = _drawn_as(ax, means, y, classes, codes)
        _points(ax, places, colours, codes // len(COLOURS), held_out)
        if classes and means.shape[1] > 1:
            _name_classes(ax, places, classes, codes)
        dot = {"linestyle": "", "marker": "o", "markeredgecolor": MUTED}
        keys = {**dot, "markerfacecolor": MUTED}, {**dot, "markerfacecolor": "none"}
    if held_out.any():
        key_above(ax, dict(zip(("training", "held out"), keys, strict=True)))


def _drawn_as(ax, means, y, classes, codes):
    """Places (N, 2) and colours of the points; the axes say what is on them."""
    own = _colours(len(classes or ()))[codes]
    if means.shape[1] > 1:
        scaled = y is not None and classes is None
        return _plane(ax, means), _scaled(ax, y) if scaled else own
    ax.set_xlabel("$z_1$")
    if classes:
        return _rows(ax, means[:, 0], classes, codes), own
    ax.set_ylabel("y")
    return np.column_stack([means[:, 0], y.astype(np.float64)]), own


def _labels(y, rows):
    y = as_unmasked(y, "y")
    if y.shape != (rows,):
        raise _arrays.shape_error("y", y.shape, f"({rows},), a label for each row of X")
    return y


def _flags(held_out, rows):
    held_out = _arrays.as_any_array(held_out, "held_out")
    if held_out.dtype != bool:
        raise TypeError(
            f"held_out must be boolean, True for rows that training has not seen; got dtype "
            f"{held_out.dtype}"
        )
    if held_out.shape != (rows,):
        raise _arrays.shape_error("held_out", held_out.shape, f"({rows},), a flag for each row")
    return held_out


def _classes(y):
    """(the classes or None, the number of each row's): None if y is missing, or a quantity."""
    if y is None:
        return None, np.zeros(1, int)
    try:
        classes, codes = np.unique(y, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"y must have labels of one kind, which can be sorted: {error}") from None
    many = len(classes) > MOST_CLASSES
    if y.dtype.kind in "iuf" and (many or not np.all(classes == np.round(classes))):
        return None, np.zeros(1, int)
    if many:
        raise ValueError(
            f"y has {len(classes)} different labels, of which {MOST_CLASSES} can be told apart: "
            f"leave y out, or join some"
        )
    return [f"{name:g}" if y.dtype.kind == "f" else str(name) for name in classes], codes


def _colours(count):
    """Rows of RGB, one a class; one where there are none."""
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(COLOURS[i % len(COLOURS)]) for i in range(max(count, 1))])


def _scaled(ax, y):
    """Colours of a quantity, which a bar beside the axes explains."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = y[np.isfinite(y)]
    if not known.size:
        raise ValueError("y has no finite number at all")
    norm = Normalize(known.min(), known.max())
    scale = colormaps[SCALE].with_extremes(bad=FAINT)
    ax.figure.colorbar(ScalarMappable(norm, scale), ax=ax, label="y")
    return scale(norm(np.ma.masked_invalid(y)))[:, :3]


def _plane(ax, means):
    """Two columns of places, and what they are on the axes."""
    if means.shape[1] == 2:
        ax.set(xlabel="$z_1$", ylabel="$z_2$")
        return means
    variances, directions = np.linalg.eigh(np.cov(means.T, bias=True))
    share = variances[-2:] / max(variances.sum(), np.finfo(float).tiny)
    ax.set(
        xlabel=f"first principal axis, {share[1]:.0%} of the variance",
        ylabel=f"second principal axis, {share[0]:.0%}",
    )
    return (means - means.mean(axis=0)) @ directions[:, [-1, -2]]


def _rows(ax, z, classes, codes):
    """Places of one dimension: a row a class, and within it apart by no more than their order."""
    ax.set_ylim(len(classes) - 0.4, -0.6)
    ax.set_yticks(range(len(classes)), classes)
    for row in range(len(classes)):
        median = np.median(z[codes == row])
        ax.plot([median, median], [row - 0.42, row + 0.42], color=INK, linewidth=2, zorder=3)
    golden = 0.5 * (np.sqrt(5) - 1)
    return np.column_stack([z, codes + 0.7 * (np.arange(len(z)) * golden % 1 - 0.5)])


def _bars(ax, z, held_out):
    """The distribution of one dimension, of either part with the same bins."""
    edges = np.histogram_bin_edges(z, int(np.clip(np.sqrt(len(z)), 8, 40)))
    ax.set(xlabel="$z_1$", ylabel="density")
    if not held_out.all():
        ax.hist(z[~held_out], edges, density=True, color=BLUE, alpha=0.6)
    if held_out.any():
        ax.hist(z[held_out], edges, density=True, color=INK, histtype="step", linewidth=1.5)


def _points(ax, places, colours, markers, held_out):
    """Filled where training saw the row, hollow where not."""
    size = float(np.clip(30_000 / len(places), 7, 30))
    colours = np.broadcast_to(colours, (len(places), 3))
    markers = np.broadcast_to(markers, len(places)) % len(MARKERS)
    for marker in np.unique(markers):
        for hollow in (False, True):
            mine = (markers == marker) & (held_out == hollow)
            if not mine.any():
                continue
            ax.scatter(
                *places[mine].T, s=size, marker=MARKERS[marker], edgecolors=colours[mine],
                facecolors=ax.get_facecolor() if hollow else colours[mine],
                alpha=0.9 if hollow else 0.6, linewidths=1.0 if hollow else 0.0,
                zorder=2 if hollow else 1, rasterized=len(places) > 5000,
            )  # fmt: skip


def _name_classes(ax, places, classes, codes):
    """The name of each class at the median of its points, or beside it where that is taken."""
    colours = _colours(len(classes))
    middles = np.array([np.median(places[codes == i], axis=0) for i in range(len(classes))])
    height = 13.0 if len(classes) <= 12 else 9.0
    in_points = np.array([ax.bbox.width, ax.bbox.height]) * 72 / ax.figure.dpi
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    widths = [max(0.66 * height * len(name) + 9, height + 9) for name in classes]
    boxes = np.column_stack([widths, np.full(len(classes), height + 9)]) / in_points
    wanted = (middles - low) / (high - low)
    at = spread(wanted, boxes)
    to = {"textcoords": "axes fraction", "ha": "center", "va": "center"}
    line = {"arrowstyle": "-", "color": INK, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    for i in np.flatnonzero((at != wanted).any(axis=1)):  # below all names
        ax.annotate("", middles[i], at[i], arrowprops=line, zorder=3, **to)
    for name, colour, middle, place in zip(classes, colours, middles, at, strict=True):
        bright = colour @ [0.299, 0.587, 0.114] > 0.6
        ax.annotate(
            name, middle, place, fontsize=height, fontweight="bold", zorder=4,
            color=INK if bright else PAPER,
            bbox={"boxstyle": "round,pad=0.25", "fc": colour, "ec": PAPER, "lw": 1.5}, **to,
        )  # fmt: skip


def spread(places, sizes):
    """Centres of boxes in a unit square: where they were, or at the nearest place that is free."""
    steps = np.linspace(-1, 1, 81)
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    offsets = offsets[np.argsort(np.hypot(*offsets.T), kind="stable")]
    found = np.empty_like(places)
    for i, (place, size) in enumerate(zip(places, sizes, strict=True)):
        tried = np.clip(place, size / 2, 1 - size / 2) + offsets
        inside = (np.abs(tried - 0.5) <= 0.5 - size / 2 + 1e-9).all(axis=1)
        away = np.abs(tried[:, None] - found[:i])
        free = inside & (away >= 0.5 * (size + sizes[:i])).any(axis=2).all(axis=1)
        found[i] = tried[free.argmax()] if free.any() else place
    return found


# Rows of data -----------------------------------------------------------------------------------


def draw_reconstructions(ax, X, rebuilt, shape):
    """Rows and what the model makes of them: pictures in pairs, or curves of either."""
    if shape is None:
        draw_curves(ax, rebuilt, below=X)
        return
    bands = -(-len(X) // 10)
    columns = -(-len(X) // bands)
    parts = [range(start, min(start + columns, len(X))) for start in range(0, len(X), columns)]
    draw_pictures(ax, [side[part] for part in parts for side in (X, rebuilt)], shape)
    ax.tick_params(length=0)
    ax.set_yticks(ax.get_yticks(), ["data", "rebuilt"] * bands)


def picture_shape(features, shape=None):
    """What a row is drawn as: (height, width), with 3 colours perhaps, or None for a curve."""
    if shape is None:
        side = round(features**0.5)
        return (side, side) if side >= 4 and side * side == features else None
    try:
        extents = tuple(as_whole(extent, "shape", 1) for extent in shape)
    except TypeError:
        raise TypeError(f"shape must be (height, width), got {shown(shape)}") from None
    if len(extents) not in (2, 3) or extents[2:] not in ((), (3,)):
        raise ValueError(f"shape must be (height, width) or (height, width, 3), got {shape}")
    if np.prod(extents) != features:
        raise ValueError(
            f"shape {extents} has {np.prod(extents)} values, but X has {features} features"
        )
    return extents


def _first(X, n):
    """At most n rows; a frame's with their names."""
    if not hasattr(X, "columns"):
        X = np.atleast_1d(as_unmasked(X, "X"))
    return X[:n]


def draw_pictures(ax, stripes, shape, together=2):
    """Stripes of pictures below each other, in bands of so many; one scale of grey for all."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb

    height, width = shape[:2]
    gap = max(1, round(0.12 * width))
    grey = LinearSegmentedColormap.from_list("ink", PIXELS).with_extremes(bad=YELLOW)
    every = np.concatenate(stripes)
    norm = Normalize(np.nanmin(every), np.nanmax(every), clip=True)
    tops = np.arange(len(stripes)) * (height + gap)
    tops = tops + np.arange(len(stripes)) // together * max(2 * gap, height // 2)
    columns = max(map(len, stripes))
    canvas = np.ones((tops[-1] + height + 2 * gap, columns * (width + gap) + gap, 3))
    for top, stripe in zip(tops, stripes, strict=True):
        canvas[top : top + height + 2 * gap, : len(stripe) * (width + gap) + gap] = to_rgb(FAINT)
        for i, row in enumerate(stripe):
            picture = norm(np.ma.masked_invalid(row.reshape(shape)))
            tile = grey(picture)[..., :3] if len(shape) == 2 else picture.filled(0.5)
            left = gap + i * (width + gap)
            canvas[top + gap : top + gap + height, left : left + width] = tile
    ax.imshow(canvas, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks(tops + gap + (height - 1) / 2, [""] * len(tops))
    ax.spines[:].set_visible(False)


def draw_curves(ax, above, below=None):
    """Rows as curves over their features, one above the other."""
    every = above if below is None else np.concatenate([below, above])
    step = 0.7 * (float(np.nanmax(every) - np.nanmin(every)) or 1.0)
    features = np.arange(1, above.shape[1] + 1)
    marker = "o" if len(features) == 1 else None
    data, model = {"color": "0.72", "linewidth": 3}, {"color": BLUE, "linewidth": 1.4}
    for i, row in enumerate(above):
        if below is not None:
            ax.plot(features, below[i] - i * step, marker=marker, **data)
        ax.plot(features, row - i * step, marker=marker, **model)
    ax.set(xlabel="feature", yticks=[])
    _whole_numbers(ax)
    ax.margins(x=0.01)
    if below is not None:
        key_above(ax, {"data": data, "rebuilt": model})


# Methods ----------------------------------------------------------------------------------------


class Plots:
    """What a trained model draws of itself: it has `history_` and `transform`."""

    history_: dict[str, list[float]]
    n_features_in_: int

    def plot_history(self, ax: Any = None, *, series: str | Sequence[str] | None = None) -> Any:
        """Draw `history_` over the epochs, by Matplotlib.

        The first 20th of the epochs is cut off where it would take most of the height.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default the current axes of pyplot.
        series : str or sequence of str, optional
            Keys of `history_`; by default all, but for numbers that never change, such as a fixed
            ``"beta"``. What is not in nats has an axis of its own, at the right.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ModuleNotFoundError
            If Matplotlib is not there.
        ValueError, TypeError
            If the model is not fitted, or an argument does not fit.
        """
        self._check_fitted()
        ax = axes_of(ax, "plot_history")
        draw_history(ax, self.history_, series)
        return ax

    def plot_latent(
        self, X: ArrayLike, y: ArrayLike | None = None, ax: Any = None, *, held_out: Any = None
    ) -> Any:
        """Draw where rows lie in the latent space: their posterior means, by Matplotlib.

        Two dimensions are drawn as they are, more on their two principal axes, and one in a row for
        each class, or as a histogram.

        Parameters
        ----------
        X : array_like, shape (N, D)
        y : array_like, shape (N,), optional
            Labels of any kind, which stand at the medians of their classes; or a quantity: numbers
            that are not whole, or more different ones than 70.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default the current axes of pyplot.
        held_out : array_like of bool, shape (N,), optional
            Rows that training has not seen, which are drawn hollow.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ModuleNotFoundError
            If Matplotlib is not there.
        ValueError, TypeError
            If the model is not fitted, or an argument does not fit.
        """
        means = self.transform(X)
        ax = axes_of(ax, "plot_latent")
        draw_latents(ax, means, y, held_out)
        return ax

    def plot_reconstructions(
        self, X: ArrayLike, n: int = 10, ax: Any = None, *, shape: Sequence[int] | None = None
    ) -> Any:
        """Draw rows and what the model makes of their posterior means, by Matplotlib.

        Parameters
        ----------
        X : array_like, shape (N, D)
        n : int, optional
            How many rows, from the first.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default the current axes of pyplot.
        shape : (int, int) or (int, int, 3), optional
            Rows are pictures of this height and width, in grey or in colours. By default they are
            square pictures where D is a square of at least 16, and curves otherwise. What is
            missing is yellow in a picture in grey, and a gap in a curve.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ModuleNotFoundError
            If Matplotlib is not there.
        ValueError, TypeError
            If the model is not fitted, or an argument does not fit.
        """
        self._check_fitted()
        shape = picture_shape(self.n_features_in_, shape)
        X = _first(X, as_whole(n, "n", 1))
        rebuilt = self._rebuilt(X)
        ax = axes_of(ax, "plot_reconstructions")
        draw_reconstructions(ax, np.asarray(X, np.float64), rebuilt, shape)
        return ax

    def _rebuilt(self, X):
        """Means of p(x|z) at the posterior means."""
        return self.inverse_transform(self.transform(X))
