"""The rate-distortion curve of VAEs on the digits: what each nat of the code buys.

One VAE is trained at a small beta, then at larger and larger ones. Below the curve lie the lines of
slope -beta at its points: none cuts it, as each model minimises distortion + beta * rate.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--betas", type=int, default=14, help="how many")
parser.add_argument("--first", type=int, default=300, help="epochs at the first beta")
parser.add_argument("--epochs", type=int, default=80, help="epochs at each further beta")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--quick", action="store_true", help="few betas and epochs")
parser.add_argument("--output", default="rate_distortion.png")


def slopes(curve):
    """Nats of distortion that the last nat of rate saved, between each two points."""
    return -np.diff(curve.distortion) / np.diff(curve.rate)


def draw(curve, evidence, path):
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    curve.plot(left)
    across = np.linspace(0.0, 1.05 * curve.rate.max(), 50)
    for beta, rate, distortion in zip(*curve[:3], strict=True):
        left.plot(across, distortion - beta * (across - rate), color="0.8", lw=0.7, zorder=0)
    left.set_ylim(0.9 * curve.distortion.min(), 1.05 * curve.distortion.max())
    left.set_xlim(-0.06 * across[-1], across[-1])
    left.set_title("the curve, its models by beta, and lines of slope -beta")
    right.plot(curve.beta, curve.rate, "o-", label="rate")
    right.plot(curve.beta, curve.distortion, "o-", label="distortion")
    right.plot(curve.beta, evidence, "k:", label="rate + distortion = -ELBO, test data")
    best = np.argmin(evidence)
    right.plot(curve.beta[best], evidence[best], "k*", ms=12, label="the largest ELBO")
    right.set_ylim(top=1.3 * evidence.max())
    right.set(xscale="log", xlabel="beta", ylabel="nats", title="what a nat costs")
    right.legend()
    figure.savefig(path, dpi=120)


def main():
    args = parser.parse_args()
    if args.quick:
        args.betas, args.first, args.epochs = 5, 30, 10
    digits = load_digits().data / 16
    train, test = train_test_split(digits, test_size=360, random_state=args.seed)
    if args.quick:
        test = test[:100]
    model = fastelbo.VAE(epochs=args.first, random_state=args.seed)
    betas = np.geomspace(0.05, 5.0, args.betas)
    curve = fastelbo.rate_distortion(
        model, train, betas, X_test=test, epochs=args.epochs, verbose=not args.quick
    )
    evidence = curve.test_rate + curve.test_distortion
    print("  beta     rate  distortion     test  distortion   -ELBO")
    for *row, total in zip(*curve, evidence, strict=True):
        print("{:6.3f}  {:7.3f}  {:10.3f}  {:7.3f}  {:10.3f}".format(*row), f"{total:7.3f}")
    steps, gains = -np.diff(curve.rate), slopes(curve)
    used = steps > 0.05  # where the code has collapsed all that is left is noise
    print(f"rate falls with beta: {bool((steps[used] > 0).all())}")
    print(f"distortion grows: {bool((np.diff(curve.distortion)[used] > 0).all())}")
    print(f"convex (slopes {np.array2string(gains[used], precision=2)}):", end=" ")
    print(bool((np.diff(gains[used]) > 0).all()))
    draw(curve, evidence, args.output)
    print(args.output)


if __name__ == "__main__":
    main()
