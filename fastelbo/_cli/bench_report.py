"""How `bench` says what it measured: tables of text."""

from itertools import chain

from fastelbo._cli._common import table
from fastelbo._cli.contenders import thread_count

NOTES = """\
us: the fastest call; median: of all calls; NumPy/: NumPy's fastest call over this one.
memory: peak on top of the inputs, results included; exact for what NumPy allocates (NumPy, Numba,
fastelbo); for PyTorch and JAX the growth of the resident set, good to a few hundred KiB.
error: the largest of all results, relative to the largest entry, against the float64 reference.
traffic: bytes a second of fastelbo over those of a kernel that only moves x, x_recon and as large a
gradient, from where they are, on the same threads; in RAM the better of plain and streamed stores.
JAX uses all processors of the process."""


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


def times(ratio):
    """A ratio: two digits of what would be 0.0."""
    if not ratio:
        return "-"
    return f"{ratio:.1f}x" if ratio >= 0.1 else f"{ratio:.2g}x"


#: CPUs that others may have used before times are said to be theirs, too.
QUIET = 0.2


def show_busy(others):
    """A warning if the machine was busy: whoever waits for several threads then tells of others."""
    if others is None or others < QUIET:
        return ""
    return (
        f"THE MACHINE WAS BUSY: other programs used {others:.1f} CPUs meanwhile. Believe no\n"
        "ratio: who waits for several threads (PyTorch, Numba, JAX) loses most."
    )


def show_calls(report):
    """What calls cost by themselves: a line each function."""
    report = dict(report)
    unit = report.pop("np.add")
    lines = []
    for name in dict.fromkeys(name.removesuffix("_and_grad") for name in report):
        cells = [report.get(name), report.get(f"{name}_and_grad")]
        lines.append([name, *("-" if cell is None else f"{cell:.1f}" for cell in cells)])
    header = [f"a (1, 1, 1) call, in np.add(a, b, out=c) of one element ({1e9 * unit:.0f} ns)"]
    return table([*header, "value", "and gradient"], lines)


COLUMNS = ("us", "median", "NumPy/", "memory", "error", "traffic")


def _cells(row):
    if row is None:
        return ["-"] * len(COLUMNS)
    if row.disagrees:
        return ["wrong", "-", "-", "-", f"{row.error:.1e}", "-"]
    return [
        microseconds(row.minimum),
        microseconds(row.median),
        times(row.speedup),
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
        parts.append("\n".join([table(header, lines), *_best_peers(mine)]))
    return "\n\n".join(parts)


def _best_peers(rows):
    """A line a dtype: the fastest of what others write, and how far fastelbo is ahead of it."""
    for dtype in dict.fromkeys(row.dtype for row in rows):
        ours = [row for row in rows if row.dtype == dtype and row.ahead]
        if ours:
            best = max(ours, key=lambda row: row.ahead)
            yield f"best peer, {dtype}: {best.best_peer}; fastelbo {times(best.ahead)}"


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
                cells.append(times(row.speedup))
            lines.append([f"{case}, {size}", build, *cells])
    header = ["builds", ""]
    for dtype, label in columns:
        header += [f"{dtype}, {label.removeprefix('fastelbo, ')}, us", "NumPy/"]
    return table(header, lines, left=2)


def show_halves(rows):
    """One line a case and storage."""
    lines = []
    for row in rows:
        cells = (microseconds(row.get("minimum")), times(row.get("speedup")), f"{row['error']:.1e}")
        lines.append([f"{row['case']}, {row['size']}", row["storage"], *cells])
    header = ["as stored", "x, all else", "us", "float32/", "error of the value"]
    return table(header, lines, left=2)


def show_vae(report):
    """One line a contender: an epoch, and the ELBO reached, by which to see that it is the same."""
    rows = report["rows"]
    torch = next((row["minimum"] for row in rows if row["label"] == "PyTorch eager"), None)
    lines = []
    for row in rows:
        ratio = times(torch / row["minimum"] if torch else None)
        spent = (f"{1e3 * row[name]:.1f}" for name in ("minimum", "median"))
        cells = ("wrong", "-", "-") if row["disagrees"] else (*spent, ratio)
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
            ratio = times(row.get("speedup"))
            spent = (microseconds(row.get(name)) for name in ("minimum", "median"))
            cells = ("wrong", "-", "-") if row["disagrees"] else (*spent, ratio)
            share = [f"{100 * row['share']:.0f} %" if "share" in row else ""]
            lines.append([row["label"], *cells, *share])
        header = [f"{found['title']}, float32", "us", "median", "eager/", "share of the loss"]
        if not any("share" in row for row in found["rows"]):
            header, lines = header[:-1], [line[:-1] for line in lines]
        parts.append(table(header, lines))
    parts += [f"{label}: {why}" for label, why in report["absent"].items()]
    return "\n\n".join(parts)


def measured_on(about):
    """The versions, and the machine."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"fastelbo {about['fastelbo']} (build {about['build']}), {versions}, Python "
        f"{about['python']}",
        f"{about['processor']}, {thread_count(about['threads'])}",
    )


def caption(report):
    """What stands below a picture: the machine, the versions, and who is absent."""
    versions, machine = measured_on(report["environment"])
    absent = "".join(f"  {name}: {why}." for name, why in report["absent"].items())
    return f"{machine}; {versions}.{absent}"


def four_cases(rows):
    """The rows of the first four cases: what is drawn unless names were given."""
    cases = list(dict.fromkeys((row.case, row.size) for row in rows))[:4]
    return [row for row in rows if (row.case, row.size) in cases]


def text(report, rows, stages, builds, jax, wholes, thetas):
    """Everything, to be printed."""
    parts = [
        "\n".join(measured_on(report["environment"])),
        show_busy(report["busy"]),
        show(rows),
        "\n".join(f"{name}: {why}" for name, why in report["absent"].items()),
        show_stages(stages, wholes) if stages else "",
        show_builds(builds) if builds else "",
        show_halves(report["half"]) if report["half"] else "",
        show_vae(report["vae"]) if report["vae"] else "",
        show_errors(report["negative_binomial_errors"], thetas),
        show_torch(report["torch"]) if report["torch"] else "",
        show(jax),
        show_calls(report["small_call"]),
        NOTES,
    ]
    return "\n\n".join(part for part in parts if part)
