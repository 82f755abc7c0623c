"""The picture of `fastelbo bench --plot`: bars of times on logarithmic axes, a panel a case."""

import textwrap

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fastelbo._cli._common import DTYPES
from fastelbo._plots import INK, MUTED, ORANGE, PAPER, PIXELS, plain

#: By who computes, and in what: light is float32.
OURS = dict(zip(DTYPES, (ORANGE, "#f7bd8d"), strict=True))
THEIRS = dict(zip(DTYPES, (PIXELS[2], PIXELS[1]), strict=True))
#: Inches: a bar, what is between two names, and a panel besides its bars.
BAR, GAP, AROUND = 0.16, 0.08, 0.95
#: How much of a panel's width is left for the numbers beside the longest bar.
NUMBERS = 0.3


def draw(rows, caption):
    """The figure of all rows that were timed; `caption` says on what machine, by which versions."""
    rows = [row for row in rows if row.minimum and not row.is_traffic]
    cases = list(dict.fromkeys((row.case, row.title, row.size) for row in rows))
    panels = [[r for r in rows if (r.case, r.title, r.size) == case] for case in cases]
    columns = min(2, len(panels)) or 1
    bands = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [AROUND + max(map(_height, band)) for band in bands]
    lines = textwrap.wrap(caption, 92 * columns)
    figure = Figure(
        figsize=(1 + 5.6 * columns, 0.8 + 0.16 * len(lines) + sum(heights)),
        facecolor=PAPER,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    figure.suptitle(
        "Time a call: shorter is better\nlogarithmic; x: times NumPy's speed",
        x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK,
    )  # fmt: skip
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=MUTED)
    keys = {"fastelbo": OURS, "others": THEIRS}
    figure.legend(
        handles=[
            Patch(color=colour, label=f"{name}, {dtype}")
            for name, colours in keys.items()
            for dtype, colour in colours.items()
        ],
        loc="upper right", ncols=2, fontsize=8, frameon=False,
    )  # fmt: skip
    if bands:
        grid = figure.add_gridspec(len(bands), columns, height_ratios=heights)
        for i, panel in enumerate(panels):
            _panel(figure.add_subplot(grid[i // columns, i % columns]), panel)
    return figure


def _names(rows):
    """Who was timed, in the order of the tables."""
    return list(dict.fromkeys(row.label for row in rows))


def _height(rows):
    return len(_names(rows)) * (BAR * len({row.dtype for row in rows}) + GAP)


def _panel(axes, rows):
    names = _names(rows)
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    times = 1e6 * np.array([row.minimum for row in rows])
    low = times.min() / 2
    thick = 1 / (len(dtypes) + GAP / BAR)
    for row, us in zip(rows, times, strict=True):
        y = names.index(row.label) + thick * (dtypes.index(row.dtype) - 0.5 * (len(dtypes) - 1))
        colour = (OURS if row.is_ours else THEIRS)[row.dtype]
        axes.barh(y, us - low, 0.9 * thick, left=low, color=colour)
        axes.annotate(
            _note(row, us), (us, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5,
            color=INK,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(low, low * (times.max() / low) ** (1 / (1 - NUMBERS)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if times.max() < 30 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda us, _: _unit(us)))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    plain(axes)
    axes.grid(False, axis="y")
    for name, label in zip(names, axes.get_yticklabels(), strict=True):
        ours = any(row.is_ours for row in rows if row.label == name)
        label.set(color=INK, fontweight="bold" if ours else "normal")
    case, title, size = rows[0].case, rows[0].title, rows[0].size
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=17)
    axes.annotate(
        f"{case}, {size}", (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points",
        fontsize=8.5, color=MUTED,
    )  # fmt: skip


def _note(row, us):
    if not row.speedup or row.label == "NumPy":
        return _unit(us)
    digits = ".1f" if row.speedup >= 0.95 else ".2g"
    return f"{_unit(us)}   {row.speedup:{digits}}x"


def _unit(us):
    """Three digits of a time."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= 0.9995 * size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.3g} µs"
