"""``fastelbo demo``: train a VAE, say how well it does, draw what it learnt."""

import argparse
import importlib
import importlib.util
import math
import sys
import time
import warnings
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastelbo import build_info
from fastelbo._estimator import finite_matrix
from fastelbo._files import replacing, what_is_wrong
from fastelbo._named import LIKELIHOODS
from fastelbo._vae_settings import check_domain

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


class Refusal(Exception):
    """What the user is told in one line, with exit code 2."""


class Data(NamedTuple):
    name: str
    X: np.ndarray  # (N, D), float32
    labels: np.ndarray | None  # (N,) or None
    image: tuple[int, int] | None  # what a row of X is to be drawn as, if it is a picture


def add_arguments(parser):
    """The options of ``fastelbo demo``."""
    parser.add_argument(
        "--data",
        metavar="FILE",
        type=Path,
        help=".npy or .npz of samples (N, D) or pictures (N, H, W); uint8 is divided by 255 "
        "(default: scikit-learn's handwritten digits)",
    )
    parser.add_argument("--key", help="name of the array in an .npz (default: the only one, or X)")
    parser.add_argument("--likelihood", choices=tuple(LIKELIHOODS), default="bernoulli")
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
        _need("demo", "matplotlib", "tqdm", *([] if args.data else ["sklearn"]))
        if args.framework == "torch":
            _need("torch", "torch")
        if args.key is not None and args.data is None:
            raise Refusal("--key names an array of a file: it needs --data")
        data = _load_file(args.data, args.key) if args.data else _load_digits()
        _check(data, args.likelihood)
        made = _prepare(args.output)
        _demo(args, data)
    except (Refusal, OSError, MemoryError, FloatingPointError) as error:
        print(f"fastelbo demo: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2
    finally:
        _tidy(made)
    return 0


def _need(extra, *modules):
    """Refuse, where modules are absent that an extra would install."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        names = ", ".join({"sklearn": "scikit-learn"}.get(name, name) for name in absent)
        raise Refusal(f'needs {names}: pip install "fastelbo[{extra}]"')


# Data -------------------------------------------------------------------------------------------


def _load_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = (digits.data / 16).astype(np.float32)
    return Data("handwritten digits of scikit-learn", X, digits.target, (8, 8))


def _load_file(path, key):
    array, labels = _read(path, key)
    if array.dtype.kind not in "fiub":
        raise Refusal(f"{path}: expected numbers, got dtype {array.dtype}")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise Refusal(
            f"{path}: expected samples (N, D) or pictures (N, H, W), got shape {array.shape}"
        )
    if len(array) < 10:
        raise Refusal(f"{path}: expected at least 10 samples, got {len(array)}")
    image = array.shape[1:] if array.ndim == 3 else None
    X = array.reshape(len(array), -1)
    side = math.isqrt(X.shape[1])
    if image is None and side >= 4 and side * side == X.shape[1]:
        image = (side, side)
    with np.errstate(over="ignore"):
        X = X.astype(np.float32)
    if array.dtype == np.uint8:
        X /= 255
    return Data(path.name, X, labels, image)


def _read(path, key):
    """The array of a file, and labels if it is an .npz that has them."""
    if not path.is_file():
        raise Refusal(f"{path}: no such file")
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("error")
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                if key is not None:
                    raise Refusal(f"{path}: an .npy holds one array; --key is for .npz")
                return stored, None
            with stored:
                names = stored.files
                if key is None:
                    key = names[0] if len(names) == 1 else "X"
                if key not in names:
                    there = ", ".join(names) or "none"
                    raise Refusal(f"{path}: no array {key!r}; there are: {there}")
                array = stored[key]
                labels = stored["y"] if "y" in names and key != "y" else None
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(f"{path}: no .npy or .npz to read, {what_is_wrong(error)}") from None
    if labels is not None and (labels.shape != array.shape[:1] or labels.dtype.kind not in "iub"):
        labels = None
    return array, labels


def _check(data, likelihood):
    try:
        finite_matrix(data.X, np.float32, data.name)
        check_domain(data.X, LIKELIHOODS[likelihood]())
    except ValueError as error:
        raise Refusal(str(error)) from None


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
    order = np.random.default_rng(args.seed).permutation(len(data.X))
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
    picture, weights = args.output / "vae.png", args.output / model.FILE
    _draw(picture, model=model, data=data, test=test, test_elbo=test_elbo, seed=args.seed)
    model.save(weights)
    _print_table(
        {
            "test ELBO": f"{reconstruction - kl:.2f} nats",
            "reconstruction": f"{reconstruction:.2f}",
            "KL": f"{kl:.2f}",
            **weighted,
            "trained in": f"{seconds:.1f} s, {1e3 * seconds / model.epochs:.1f} ms an epoch",
            "picture": str(picture),
            "model": f"{weights}   ({model.READ_BY})",
        }
    )


def _weighted_bounds(model, X):
    """Rows of the table: importance-weighted bounds, which grow towards log p(x).

    Each sample has noise of its own, so that the mean is closer than with the noise of one.
    """
    few = f" ({MOST_WEIGHED} of the test data)" if len(X) == MOST_WEIGHED else ""
    found = {}
    for samples in (1, 5, 50, 500):
        rows = [model.score_samples(X[i : i + 1], samples=samples, rng=i) for i in range(len(X))]
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
            now = {names[key]: f"{values[-1]:.2f}" for key, values in model.history_.items()}
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
            "data": f"{data.name}: {len(data.X)} samples of {of}",
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
    down = [features, *model.hidden, 2 * model.latent_dim]
    up = [model.latent_dim, *model.hidden[::-1], features]
    return sum((n + 1) * m for w in (down, up) for n, m in pairwise(w))


def _print_table(rows):
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value}")
    sys.stdout.flush()
