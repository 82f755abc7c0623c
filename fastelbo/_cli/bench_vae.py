"""An epoch of ``fastelbo.VAE`` beside the same model in PyTorch.

Each side trains in a process of its own, in turns: two pools of worker threads in one process, each
waiting by spinning, would slow both down.
"""

import importlib.util
import statistics
import time

import numpy as np

from fastelbo import _builds
from fastelbo._cli import _common

MODEL = {"hidden": (256,), "latent_dim": 10, "batch_size": 128, "learning_rate": 1e-3}
SIDES = ("PyTorch eager", "torch.compile", "fastelbo.VAE")
#: Sides whose ELBO after the same epochs differs by more than this, relatively, do not train the
#: same model; seeds make less of a difference.
AGREEMENT = 0.1


def digits():
    """The images that scikit-learn ships, (1797, 64) in [0, 1]."""
    from sklearn.datasets import load_digits

    return (load_digits().data / 16).astype(np.float32)


def train(side, threads, epochs):
    """Seconds of every epoch but the first, and the ELBO of the last: what a process runs."""
    X = digits()
    if side == "fastelbo.VAE":
        import fastelbo

        model = fastelbo.VAE(**MODEL, random_state=0)

        def epoch():
            model.partial_fit(X)
            return model.history_["elbo"][-1]
    else:
        import torch

        from fastelbo._cli._torch_vae import train_epoch_factory

        torch.set_num_threads(threads)
        epoch = train_epoch_factory(X, **MODEL, compiled=side == "torch.compile")
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        elbo = epoch()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[1:], "elbo": elbo}


def measure(threads, quick=False):
    """Rows of the sides that are installed, as dicts, and why others are absent."""
    absent = {}
    if importlib.util.find_spec("sklearn") is None:
        return {"model": "", "rows": [], "absent": {"VAE": "not installed (sklearn has the data)"}}
    sides = list(SIDES)
    if importlib.util.find_spec("torch") is None:
        sides = ["fastelbo.VAE"]
        absent["PyTorch"] = "not installed"
    elif quick:
        sides.remove("torch.compile")
        absent["torch.compile"] = "left out by --quick"
    rounds, epochs = (1, 8) if quick else (2, 20)
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    found = {side: [] for side in sides}
    for side in _common.progress(sides * rounds, "VAE"):
        found[side].append(
            _common.in_build(
                _builds.BUILD,
                "fastelbo._cli.bench_vae",
                "train",
                environment=dict.fromkeys(pools, str(threads)),
                side=side,
                threads=threads,
                epochs=epochs,
            )
        )
    rows = []
    for side, runs in found.items():
        seconds = [s for run in runs for s in run["seconds"]]
        rows.append(
            {
                "label": side,
                "minimum": min(seconds),
                "median": statistics.median(seconds),
                "elbo": statistics.median(run["elbo"] for run in runs),
            }
        )
    ours = rows[-1]["elbo"]
    for row in rows:
        row["disagrees"] = not abs(row["elbo"] - ours) <= AGREEMENT * abs(ours)
    widths = "-".join(str(w) for w in (64, *MODEL["hidden"], MODEL["latent_dim"]))
    model = f"digits, {widths}, batch {MODEL['batch_size']}"
    return {"model": model, "rows": rows, "absent": absent}
