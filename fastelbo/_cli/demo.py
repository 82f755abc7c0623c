"""``fastelbo demo``: train a VAE, say how well it does, draw what it learnt."""

import argparse
import importlib
import math
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np

from fastelbo import active_units, build_info
from fastelbo._cli._demo_data import CELL_TYPE, Refusal, check, load_digits, load_file, need
from fastelbo._files import replacing
from fastelbo._named import LIKELIHOODS
from fastelbo._vae_settings import trained_names

#: Share of the data that is kept for testing, and how many samples at most.
TEST_SHARE, MOST_TEST = 0.2, 10_000
QUICK_EPOCHS = 20
#: How often the test data are scored, about: each time takes as long as several epochs.
CURVE_POINTS = 50
#: Test samples that are weighed: 500 draws for each of them take their time.
MOST_WEIGHED = 500
#: Below so many parameters one thread does: more gain little, and wait for each other at
#: length where the processors are busy with something else, too.
SMALL_NETWORK = 500_000


def add_arguments(parser):
    """The options of ``fastelbo demo``."""
    parser.add_argument(
        "--data",
        metavar="FILE",
        type=Path,
        help="samples (N, D): .npy, .npz (of SciPy's sparse matrices, too), .csv with a header, "
        ".parquet, .h5ad; or pictures (N, H, W): .npy, .npz. uint8 is divided by 255, unless "
        "--likelihood is one of counts (default: scikit-learn's handwritten digits)",
    )
    parser.add_argument(
        "--key", help="the array in an .npz (default: the only one, or X), the layer in an .h5ad"
    )
    parser.add_argument(
        "--labels",
        metavar="NAME",
        help="the column of labels in a table (default: the last, if it holds words), of obs in an "
        f".h5ad (default: {CELL_TYPE}), the array in an .npz (default: y)",
    )
    parser.add_argument(
        "--likelihood",
        choices=trained_names(),
        help="(default: bernoulli, or negative_binomial of counts)",
    )
    parser.add_argument("--latent-dim", type=_count, default=10, metavar="L")
    parser.add_argument("--hidden", type=_count, nargs="+", default=[256], metavar="H")
    parser.add_argument("--beta", type=_weight, default=1.0, help="weight of the KL")
    parser.add_argument("--epochs", type=_count, default=800)
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--quick", action="store_true", help=f"at most {QUICK_EPOCHS} epochs")
    parser.add_argument(
        "--framework",
        choices=("numpy", "torch"),
        default="numpy",
        help="what networks and training are made of: fastelbo.VAE, or PyTorch and fastelbo.torch",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("fastelbo-demo"), help="where to write"
    )


def _count(text):
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text):
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _weight(text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number that is not negative, got {text!r}")
    return number


def run(args):
    """Load, train, draw. Returns 2, after one line, where something does not fit."""
    made = []
    try:
        extra = ["matplotlib", "tqdm", *([] if args.data else ["sklearn"])]
        need("", *extra, install='"fastelbo[demo]"')
        if args.framework == "torch":
            need("", "torch", install='"fastelbo[torch]"')
        data = _load(args)
        args.likelihood = args.likelihood or _likelihood_of(data)
        check(data, LIKELIHOODS[args.likelihood]())
        made = _prepare(args.output)
        _demo(args, data)
    except (Refusal, OSError, MemoryError, FloatingPointError) as error:
        print(f"fastelbo demo: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2
    finally:
        _tidy(made)
    return 0


def _load(args):
    for option, kind in (("key", "an array"), ("labels", "labels")):
        if getattr(args, option) is not None and args.data is None:
            raise Refusal(f"--{option} names {kind} of a file: it needs --data")
    if args.data is None:
        return load_digits()
    counts = args.likelihood is not None and LIKELIHOODS[args.likelihood]()._of_counts
    return load_file(args.data, args.key, args.labels, counts)


def _likelihood_of(data):
    return "negative_binomial" if data.of_counts else "bernoulli"


def _prepare(folder):
    """Make the output folder; returns the folders that were not there before."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".fastelbo.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Refusal(f"cannot write to {folder}: {error.strerror}") from None
    return made


def _tidy(made):
    """Take new folders away again into which nothing came."""
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


# The demo itself --------------------------------------------------------------------------------


def _demo(args, data):
    order = np.random.default_rng(args.seed).permutation(data.X.shape[0])
    n_test = max(1, min(MOST_TEST, int(TEST_SHARE * len(order))))
    test, train = order[:n_test], order[n_test:]
    kind = importlib.import_module(f"fastelbo._cli._demo_{args.framework}").Model
    model = kind(
        hidden=tuple(args.hidden),
        latent_dim=args.latent_dim,
        likelihood=args.likelihood,
        beta=args.beta,
        epochs=min(args.epochs, QUICK_EPOCHS) if args.quick else args.epochs,
        random_state=args.seed,
    )
    with model.threads(1 if _parameters(model, data) < SMALL_NETWORK else None):
        _print_plan(model, data, len(train), n_test)
        test_elbo, seconds = _train(model, data.X[train], data.X[test])
        reconstruction, kl = (float(part.mean()) for part in model.score_parts(data.X[test]))
        weighted = _weighted_bounds(model, data.X[test[:MOST_WEIGHED]])
        means = model.transform(data.X)
    picture, weights = args.output / "vae.png", args.output / model.FILE
    shown = {"means": means, "test": test, "test_elbo": test_elbo, "seed": args.seed}
    _draw(picture, model=model, data=data, **shown)
    model.save(weights)
    _print_table(
        {
            "test ELBO": f"{reconstruction - kl:.2f} nats",
            "reconstruction": f"{reconstruction:.2f}",
            "KL": f"{kl:.2f}",
            **weighted,
            "active units": f"{active_units(means).sum()} of {means.shape[1]}",
            "trained in": f"{seconds:.1f} s, {1e3 * seconds / model.epochs:.1f} ms an epoch",
            "picture": str(picture),
            "model": f"{weights}   ({model.READ_BY})",
        }
    )


def _weighted_bounds(model, X):
    """Rows of the table: importance-weighted bounds, which grow towards log p(x).

    Each sample has noise of its own, so that the mean is closer than with the noise of one.
    """
    few = f" ({MOST_WEIGHED} of the test data)" if X.shape[0] == MOST_WEIGHED else ""
    found = {}
    for samples in (1, 5, 50, 500):
        rows = [
            model.score_samples(X[i : i + 1], samples=samples, rng=i) for i in range(X.shape[0])
        ]
        found[f"IWAE, K = {samples}"] = f"{np.mean(rows):.2f} nats{few}"
    return found


def _train(model, train, test):
    """Returns [(epoch, ELBO of the test data)] and the seconds that training alone took."""
    from tqdm import tqdm

    test_elbo, seconds = [], 0.0
    names = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl": "KL"}
    epochs = range(1, model.epochs + 1)
    with tqdm(epochs, "training", unit="epoch", dynamic_ncols=True, file=sys.stderr) as bar:
        for epoch in bar:
            start = time.perf_counter()
            model.partial_fit(train)
            seconds += time.perf_counter() - start
            if epoch == model.epochs or epoch % max(1, model.epochs // CURVE_POINTS) == 0:
                test_elbo.append((epoch, model.score(test)))
            now = {name: f"{model.history_[key][-1]:.2f}" for key, name in names.items()}
            bar.set_postfix(now, refresh=False)
    return test_elbo, seconds


def _draw(path, **shown):
    from fastelbo._cli import _demo_figure

    figure = _demo_figure.draw(**shown)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _print_plan(model, data, n_train, n_test):
    features = data.X.shape[1]
    widths = [features, *model.hidden, f"({model.latent_dim})", *model.hidden[::-1], features]
    of = f"{data.image[0]} x {data.image[1]} pixels" if data.image else f"{features} values"
    info = build_info()
    _print_table(
        {
            "data": f"{data.name}: {data.X.shape[0]} samples of {of}",
            "split": f"{n_train} to train on, {n_test} to test, by seed {model.random_state}",
            "model": " - ".join(str(width) for width in widths) + f", {model.dtype}",
            "parameters": f"{_parameters(model, data):,}",
            "objective": f"{model.likelihood} likelihood, beta {model.beta:g}",
            "training": f"{model.epochs} epoch{'s' if model.epochs > 1 else ''}, "
            f"batches of {model.batch_size}, Adam at {model.learning_rate:g}",
            "fastelbo": f"{info['fastelbo']}, build {info['build']}",
            "threads": model.describe_threads(),
        }
    )


def _parameters(model, data):
    features = data.X.shape[1]
    visible = model._visible(model._trained_likelihood(features, None), features)
    down = [visible.width, *model.hidden, 2 * model.latent_dim]
    up = [model.latent_dim, *model.hidden[::-1], visible.outputs]
    return sum((n + 1) * m for w in (down, up) for n, m in pairwise(w))


def _print_table(rows):
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value}")
    sys.stdout.flush()
