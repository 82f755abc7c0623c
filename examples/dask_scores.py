"""Digits in a Zarr store larger than a limit of memory: trained on and scored chunk by chunk."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import zarr

import fastelbo
import fastelbo.dask

ROWS = 8192  # a chunk, 2 MiB


def scores(X, model):
    """log p(x | z) of each row at the mean of its posterior, in nats: lazy if X is."""
    probabilities = model.inverse_transform(model.transform(X))
    bernoulli = fastelbo.Bernoulli(probs=True)
    if isinstance(X, da.Array):
        return fastelbo.dask.log_prob(bernoulli, X, probabilities, reduction="none")
    return bernoulli.log_prob(X, probabilities, reduction="none")


def write(path, megabytes, digits, seed):
    """So many megabytes of digits, noisy and moved, of which one in fifty has shuffled pixels."""
    rng = np.random.default_rng(seed)
    count = megabytes * (1 << 20) // (4 * 64)
    options = {"shape": (count, 64), "chunks": (ROWS, 64), "dtype": "f4"}
    store = zarr.open_array(path / "x", mode="w", **options)
    odd = rng.random(count) < 0.02
    for start in range(0, count, ROWS):
        some = digits[rng.integers(len(digits), size=min(ROWS, count - start))]
        moved = np.roll(some, rng.integers(-1, 2), axis=2) + rng.normal(0, 0.05, some.shape)
        x = np.clip(moved, 0, 1).reshape(len(some), 64)
        bad = odd[start : start + len(x)]
        x[bad] = rng.permuted(x[bad], axis=1)
        store[start : start + len(x)] = x
    np.save(path / "odd.npy", odd)


def peak():
    """The most memory that this process has had, in MiB, as Linux tells it."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def measure(how, folder):
    """Score a store, in this process: seconds, and megabytes beyond what it had before."""
    model = fastelbo.VAE.load(folder.parent / "model.npz")
    scores(np.zeros((1, 64), np.float32), model)
    with dask.config.set(scheduler="threads", num_workers=2):
        scores(da.zeros((2, 64), np.float32, chunks=1), model).compute()
        before, start = peak(), time.perf_counter()
        X = da.from_zarr(folder / "x") if how == "dask" else zarr.open_array(folder / "x")[:]
        found = np.asarray(scores(X, model))
        seconds = time.perf_counter() - start
    np.save(folder / f"{how}.npy", found)
    print(json.dumps([seconds, peak() - before]))


def main(options):
    # Not for what is measured, in processes of their own.
    import matplotlib.pyplot as plt
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    sizes = (4,) if options.quick else (32, 64, 128, 256)
    limit = sizes[-1] // 4
    ways = {"all in memory": "memory", "by dask, 2 MiB chunks": "dask"}
    found = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for size in sizes:
            write(folder / str(size), size, load_digits().images / 16, options.seed)
        X = da.from_zarr(folder / str(sizes[0]) / "x")
        model = fastelbo.VAE(
            hidden=(128,),
            latent_dim=10,
            epochs=1 if options.quick else 5,
            random_state=options.seed,
        ).fit(X)
        model.save(folder / "model.npz")
        print(f"{'MiB':>5} {'way':22} {'seconds':>8} {'MiB on top':>11}")
        for size in sizes:
            for way, how in ways.items():
                command = [sys.executable, sys.argv[0], "--measure", how, str(folder / str(size))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                seconds, most = json.loads(done.stdout)
                found[way].append((seconds, most))
                print(f"{size:5} {way:22} {seconds:8.2f} {most:11.0f}")
        last = folder / str(sizes[-1])
        odd, score, same = (np.load(last / name) for name in ("odd.npy", "dask.npy", "memory.npy"))
        order = np.argsort(score)
        shown = np.concatenate([order[len(order) // 2 :][:12], order[:12]])
        images = da.from_zarr(last / "x")[shown].compute()
    print(f"scores of either way differ by {np.abs(score - same).max():.1e} nats at most")
    area = roc_auc_score(odd, -score)
    print(f"shuffled digits are told from the others with an area under the ROC of {area:.4f}")

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for way, marker in zip(ways, "os", strict=True):
        seconds, most = zip(*found[way], strict=True)
        left.plot(sizes, most, marker=marker, label=f"{way}, {seconds[-1]:.0f} s at the end")
    left.axhline(limit, color="gray", linestyle=":", label=f"a limit of {limit} MiB")
    left.set(
        xlabel="MiB of data", ylabel="MiB of memory on top", title="what scoring a store takes"
    )
    left.legend()
    bins = np.linspace(*np.percentile(score, (0, 100)), 60)
    for kind, label in ((~odd, "digits"), (odd, "shuffled pixels")):
        middle.hist(score[kind], bins, density=True, alpha=0.6, label=label)
    middle.set(
        xlabel="log p(x | z), nats", yticks=[], title=f"{len(score):,} scores, AUC {area:.3f}"
    )
    middle.legend()
    tiles = images.reshape(4, 6, 8, 8).transpose(0, 2, 1, 3).reshape(32, 48)
    right.imshow(tiles, cmap="gray_r")
    right.set(xticks=[], yticks=[], title="ordinary scores; the lowest")
    figure.savefig(options.output, dpi=120)
    print(options.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few megabytes")
    parser.add_argument("--output", default="dask_scores.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]))
    else:
        main(options)
