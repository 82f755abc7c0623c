"""How `bench` shows what it measured: tables of text and a bar chart."""

from itertools import chain

from fastelbo._cli._common import table

NOTES = """\
us: the fastest call; median: of all calls; NumPy/: NumPy's fastest call over this one.
memory: peak on top of the inputs, results included; exact for what NumPy allocates (NumPy, Numba,
fastelbo); for PyTorch and JAX the growth of the resident set, good to a few hundred KiB.
error: the largest of all results, relative to the largest entry, against the float64 reference.
traffic: bytes a second of fastelbo over those of a kernel that only moves x, x_recon and as large a
gradient, from where they are, on the same threads; in RAM the better of plain and streamed stores.
Numba's noise is drawn beforehand and does not count. JAX uses all processors of the process."""


def microseconds(seconds):
    if seconds is None:
        return "-"
    us = 1e6 * seconds
    return f"{us:.1f}" if us < 1000 else f"{us:.0f}"


def mebibytes(count):
    if count is None:
        return "-"
    if count < 1 << 20:
        return f"{count / 1024:.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB"


COLUMNS = ("us", "median", "NumPy/", "memory", "error", "traffic")


def _cells(row):
    if row is None:
        return ["-"] * len(COLUMNS)
    if row.disagrees:
        return ["wrong", "-", "-", "-", f"{row.error:.1e}", "-"]
    return [
        microseconds(row.minimum),
        microseconds(row.median),
        f"{row.speedup:.1f}x" if row.speedup else "-",
        mebibytes(row.memory),
        "" if row.is_traffic else f"{row.error:.1e}",
        f"{100 * row.of_bandwidth:.0f} %" if row.of_bandwidth else "",
    ]


def show(rows):
    """The tables of text: one per case and size, float64 beside float32."""
    parts = []
    for key in dict.fromkeys((row.title, row.size) for row in rows):
        mine = [row for row in rows if (row.title, row.size) == key]
        found = {(row.label, row.dtype): row for row in mine}
        dtypes = list(dict.fromkeys(row.dtype for row in mine))
        header = [", ".join(key)]
        columns = len(COLUMNS) - (not any(row.is_traffic for row in mine))
        for dtype in dtypes:
            header += [f"{dtype} {COLUMNS[0]}", *COLUMNS[1:columns]]
        lines = []
        for label in dict.fromkeys(row.label for row in mine):
            cells = (_cells(found.get((label, dtype)))[:columns] for dtype in dtypes)
            lines.append([label, *chain.from_iterable(cells)])
        parts.append(table(header, lines))
    return "\n\n".join(parts)


def show_stages(rows, wholes):
    """The profile: one line a stage, NumPy beside fastelbo."""
    parts = []
    columns = list(dict.fromkeys(row.label for row in rows))
    for dtype in dict.fromkeys(row.dtype for row in rows):
        found = {(row.case, row.label): row.minimum for row in rows if row.dtype == dtype}
        header = [f"stages, {rows[-1].size}, {dtype}"]
        for column in columns:
            header += [f"{column}, us", "share"]
        lines = []
        for whole, stages in wholes.items():
            for name in (*stages, whole):
                cells = []
                for column in columns:
                    seconds, total = found[name, column], found[whole, column]
                    cells.append(microseconds(seconds))
                    cells.append(f"{100 * seconds / total:.0f} %" if seconds and total else "-")
                title = name if name != whole else "all of it in one call"
                lines.append([title, *cells])
        parts.append(table(header, lines))
    return "\n\n".join(parts)


def show_builds(builds):
    """One line a case, size and build."""
    every = [row for _, rows in builds for row in rows]
    columns = dict.fromkeys((row.dtype, row.label) for row in every if row.is_ours)
    lines = []
    for size, case in dict.fromkeys((row.size, row.case) for row in every):
        for build, rows in builds:
            found = {(r.dtype, r.label): r for r in rows if (r.size, r.case) == (size, case)}
            cells = []
            for column in columns:
                row = found[column]
                cells.append(microseconds(row.minimum))
                cells.append(f"{row.speedup:.1f}x" if row.speedup else "-")
            lines.append([f"{case}, {size}", build, *cells])
    header = ["builds", ""]
    for dtype, label in columns:
        header += [f"{dtype}, {label.removeprefix('fastelbo, ')}, us", "NumPy/"]
    return table(header, lines, left=2)


def show_vae(report):
    """One line a contender: an epoch, and the ELBO reached, by which to see that it is the same."""
    rows = report["rows"]
    torch = next((row["minimum"] for row in rows if row["label"] == "PyTorch eager"), None)
    lines = []
    for row in rows:
        ratio = f"{torch / row['minimum']:.1f}x" if torch else "-"
        times = (f"{1e3 * row[name]:.1f}" for name in ("minimum", "median"))
        cells = ("wrong", "-", "-") if row["disagrees"] else (*times, ratio)
        lines.append([row["label"], *cells, f"{row['elbo']:.2f}"])
    header = [f"an epoch of a VAE, {report['model']}", "ms", "median", "PyTorch/", "ELBO"]
    absent = (f"{label}: {why}" for label, why in report["absent"].items())
    return "\n".join([table(header, lines), *absent])


def show_errors(errors, thetas):
    """What float32 makes of the negative binomial where theta is large."""
    if not errors:
        return ""
    header = ["error of log p in float32", *(f"theta {theta:.0e}" for theta in thetas)]
    return table(header, [[name, *(f"{e:.0e}" for e in row)] for name, row in errors.items()])


def show_torch(report):
    """A table a loss, and that of the training step, which has the share of the loss."""
    parts = []
    for found in report["tables"]:
        lines = []
        for row in found["rows"]:
            ratio = f"{row['speedup']:.1f}x" if "speedup" in row else "-"
            times = (microseconds(row.get(name)) for name in ("minimum", "median"))
            cells = ("wrong", "-", "-") if row["disagrees"] else (*times, ratio)
            share = [f"{100 * row['share']:.0f} %" if "share" in row else ""]
            lines.append([row["label"], *cells, *share])
        header = [f"{found['title']}, float32", "us", "median", "eager/", "share of the loss"]
        if not any("share" in row for row in found["rows"]):
            header, lines = header[:-1], [line[:-1] for line in lines]
        parts.append(table(header, lines))
    parts += [f"{label}: {why}" for label, why in report["absent"].items()]
    return "\n\n".join(parts)


def text(report, rows, stages, builds, wholes, thetas):
    """Everything, to be printed."""
    about = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    small = dict(report["small_call"])
    unit = small.pop("np.add")
    parts = [
        f"fastelbo {about['fastelbo']} (build {about['build']}), {versions}, Python "
        f"{about['python']}\n{about['processor']}, {about['threads']} threads",
        show(rows),
        "\n".join(f"{name}: {why}" for name, why in report["absent"].items()),
        show_stages(stages, wholes) if stages else "",
        show_builds(builds) if builds else "",
        show_vae(report["vae"]) if report["vae"] else "",
        show_errors(report["negative_binomial_errors"], thetas),
        show_torch(report["torch"]) if report["torch"] else "",
        "\n".join(
            f"{name} of a (1, 1, 1) problem costs {ratio:.1f} np.add(a, b, out=c) of one element "
            f"({1e9 * unit:.0f} ns)"
            for name, ratio in small.items()
        ),
        NOTES,
    ]
    return "\n\n".join(part for part in parts if part)


def four_panels(rows):
    """The rows of the first four cases: a chart that can be read."""
    cases = list(dict.fromkeys((row.case, row.size) for row in rows))[:4]
    return [row for row in rows if (row.case, row.size) in cases]


def plot(rows, path):
    """A bar chart: one panel a case and size, shorter is better."""
    from matplotlib.figure import Figure

    rows = [r for r in rows if r.minimum and not r.is_traffic]
    cases = list(dict.fromkeys((r.title, r.size) for r in rows))
    colours = {"float64": "#4878a8", "float32": "#9cc3e6"}
    strong = {"float64": "#c8553d", "float32": "#eda58f"}
    figure = Figure(figsize=(12, 0.6 + 3.6 * -(-len(cases) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(cases) // 2), 2 if len(cases) > 1 else 1, squeeze=False).ravel()
    for panel in panels[len(cases) :]:
        panel.axis("off")
    for panel, case in zip(panels, cases, strict=False):
        mine = [r for r in rows if (r.title, r.size) == case]
        labels = list(dict.fromkeys(r.label for r in mine))
        dtypes = list(dict.fromkeys(r.dtype for r in mine))
        longest = max(1e6 * r.minimum for r in mine)
        height = 0.8 / len(dtypes)
        for r in mine:
            y = labels.index(r.label) + height * (dtypes.index(r.dtype) - 0.5 * (len(dtypes) - 1))
            colour = (strong if r.label.startswith("fastelbo") else colours)[r.dtype]
            us = 1e6 * r.minimum
            panel.barh(y, us, 0.92 * height, color=colour)
            note = f"{us:.1f} µs" if us < 100 else f"{us:,.0f} µs"
            if r.speedup and r.label != "NumPy":
                note += f"   {r.speedup:.1f}x" if r.speedup >= 0.95 else f"   {r.speedup:.2f}x"
            panel.text(us + 0.012 * longest, y, note, va="center", fontsize=7.5, color="#333333")
        panel.set_yticks(range(len(labels)), labels, fontsize=9)
        panel.invert_yaxis()
        panel.set_xlim(0, 1.3 * longest)
        panel.set_title(", ".join(case), fontsize=11, loc="left", fontweight="bold")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=8, colors="#777777")
        panel.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        panel.set_axisbelow(True)
    figure.suptitle(
        "microseconds a call, and times NumPy's speed\n"
        "dark: float64, light: float32; red: fastelbo",
        fontsize=11,
    )
    figure.savefig(path, dpi=150)
