"""README's tables of speed, from one run of ``python -m fastelbo bench --json``.

``python docs/_ext/speed.py --measure`` measures for about ten minutes, on a machine that should do
nothing else, keeps what bench says in docs/measured/bench.json, and writes the tables that README
has between markers; without --measure it makes these of the file anew.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README, MEASURED = ROOT / "README.md", ROOT / "docs" / "measured" / "bench.json"

#: The lecture's problem, in both dtypes: the columns of the first table.
ELBO = {"elbo": "value", "elbo_and_grad": "value + gradient"}
#: What the second table has, in float32, value and gradient where there are both.
CASES = (
    "elbo-Bernoulli_and_grad",
    "iwae-Bernoulli_and_grad",
    "NegativeBinomial_and_grad",
    "ZeroInflatedNegativeBinomial_and_grad",
    "beta_tcvae_elbo_and_grad",
    "mixture_log_prob_and_grad",
    "mmd_and_grad",
)
#: The calls of bench: their options.
RUNS = (
    (),
    ("--dtype", "float32", "--calls", *CASES),
    ("--dtype", "float32", "--torch", "--jax", "elbo_from_buffers"),
)
#: The columns of the second table, and whom they are of: the fastest of these counts.
PEERS = {
    "NumPy": ("NumPy",),
    "PyTorch eager": ("PyTorch eager",),
    "torch.compile": ("torch.compile",),
    "JAX jit": ("JAX jit",),
    "matrix products": ("torch.compile, GEMM", "JAX jit, GEMM"),
    "Numba": ("Numba prange", "Numba prange, fastmath"),
}
#: Whom fastelbo.torch is compared with.
IN_TORCH = ("PyTorch eager", "torch.compile")


def measured():
    """The reports of all calls of bench."""
    command = [sys.executable, "-m", "fastelbo", "bench", "--json"]
    # Not checked: bench says on stderr who was wrong, and its cells stay empty.
    runs = (subprocess.run([*command, *run], stdout=subprocess.PIPE, check=False) for run in RUNS)
    return [json.loads(run.stdout) for run in runs]


# Markdown ---------------------------------------------------------------------------------------


def digits(seconds, unit):
    """Three digits of a time; nothing of none."""
    if seconds is None:
        return ""
    value = seconds / unit
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def fastest(rows, labels):
    """The least time of contenders; None if there is none."""
    return min((r["minimum"] for r in rows if r["label"] in labels and r["minimum"]), default=None)


def ahead(row):
    return f"{row['ahead']:.2f}x {row['best_peer']}" if row["ahead"] else ""


def machine(reports):
    """On what, with what, and how busy it was."""
    about = reports[0]["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    busy = [report["busy"] for report in reports if report["busy"] is not None]
    others = f"; other programs used {max(busy):.1f} CPUs meanwhile" if busy else ""
    return (
        f"Measured on {about['threads']} threads of an {about['processor']}, {about['build']} "
        f"build, Python {about['python']}, {versions}{others}."
    )


def ours_of(rows):
    """fastelbo on all threads."""
    mine = [
        row for row in rows if row["label"].startswith("fastelbo") and "out=" not in row["label"]
    ]
    return max(mine, key=lambda row: row["threads"])


def elbo_table(reports):
    """The first table: who takes how long for the value and its gradient, in microseconds."""
    rows = [row for row in reports[0]["rows"] if row["case"] in ELBO]
    size = rows[0]["size"]
    rows = [row for row in rows if row["size"] == size]
    columns = [(case, dtype) for case in ELBO for dtype in ("float64", "float32")]
    cells = {key: [r for r in rows if (r["case"], r["dtype"]) == key] for key in columns}
    ours = {key: ours_of(cells[key]) for key in columns}
    threads = reports[0]["environment"]["threads"]
    labels = dict.fromkeys(r["label"] for r in rows if r["threads"] == threads)
    traffic = [label for label in labels if label.startswith("memory")]
    theirs = [label for label in labels if not label.startswith(("fastelbo", "memory"))]
    lines = [
        [label, *(digits(fastest(cells[key], [label]), 1e-6) for key in columns)]
        for label in theirs
    ]
    lines += [
        ["**fastelbo**", *(f"**{digits(ours[key]['minimum'], 1e-6)}**" for key in columns)],
        ["memory traffic alone", *(digits(fastest(cells[key], traffic), 1e-6) for key in columns)],
        ["ahead of the best peer", *(ahead(ours[key]) for key in columns)],
    ]
    return table(["us", *(f"{ELBO[case]}, {dtype}" for case, dtype in columns)], lines)


def cases_table(reports):
    """The second: in milliseconds, float32, the best peer in every row."""
    lines = []
    rows = [row for report in reports for row in report["rows"] if row["dtype"] == "float32"]
    for case, size in dict.fromkeys((row["case"], row["size"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["size"]) == (case, size)]
        if not case.endswith("_and_grad"):
            continue
        ours = ours_of(mine)
        lines.append(
            [
                f"`{case}`, {size}",
                *(digits(fastest(mine, labels), 1e-3) for labels in PEERS.values()),
                f"**{digits(ours['minimum'], 1e-3)}**",
                ahead(ours),
            ]
        )
    return table(["ms", *PEERS, "**fastelbo**", "ahead of the best peer"], lines)


def calls_table(reports):
    """What calls cost by themselves, of those that README speaks of."""
    found = dict(reports[1]["small_call"])
    unit = found.pop("np.add")
    names = ("elbo", "SquaredError", "Bernoulli", "kl_standard_normal", "kl_normal")
    lines = [
        [f"`{name}`", f"{found[name]:.1f}", f"{found[f'{name}_and_grad']:.1f}"] for name in names
    ]
    return table([f"in `np.add(a, b, out=c)`, {1e6 * unit:.2g} us", "value", "and gradient"], lines)


def torch_table(reports):
    """fastelbo.torch beside PyTorch: losses, forward and backward, and a step, in microseconds."""
    lines, labels = [], ()
    for found in reports[2]["torch"]["tables"]:
        times = {row["label"]: row.get("minimum") for row in found["rows"]}
        labels = labels or tuple(times)
        if times.keys() == set(labels):
            cells = [digits(times[label], 1e-6) for label in labels]
            lines.append([found["title"], *cells, *(by(times, peer) for peer in IN_TORCH)])
    return table(["us", *labels, *(f"over {peer}" for peer in IN_TORCH)], lines)


def by(times, label):
    """How many times as fast as another the loss of fastelbo.torch is."""
    mine, other = times["fastelbo.torch"], times[label]
    return f"{other / mine:.2f}x" if mine and other else ""


def jax_table(reports):
    """fastelbo.jax beside plain JAX, both under jit: value and gradients, in milliseconds."""
    lines = []
    rows = reports[2]["jax"]
    for case, size in dict.fromkeys((row["case"], row["size"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["size"]) == (case, size)]
        ours = ours_of(mine)
        if ours["minimum"]:
            plain = digits(fastest(mine, [ours["best_peer"]]), 1e-3)
            ours_too = f"**{digits(ours['minimum'], 1e-3)}**"
            lines.append([f"`{case}`, {size}", plain, ours_too, f"{ours['ahead']:.2f}x"])
    return table(["ms", "jax.jit", "**fastelbo.jax**", "ahead"], lines)


BLOCKS = {
    "torch": torch_table,
    "jax": jax_table,
    "machine": machine,
    "elbo": elbo_table,
    "cases": cases_table,
    "calls": calls_table,
}


def written(text, reports):
    """A text whose blocks between markers hold what was measured."""
    for name, block in BLOCKS.items():
        begin, end = f"<!-- measured: {name} -->", "<!-- end of what was measured -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"{README.name} has no block {begin}")
        text = f"{before}{begin}\n\n{block(reports)}\n\n{rest[rest.index(end) :]}"
    return text


if __name__ == "__main__":
    if "--measure" in sys.argv[1:]:
        MEASURED.write_text(json.dumps(measured(), indent=1) + "\n")
    README.write_text(written(README.read_text(), json.loads(MEASURED.read_text())))
