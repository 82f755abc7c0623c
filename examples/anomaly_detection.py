"""Anomalies: classes held out of scikit-learn's data sets, and found again among the others."""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="one split, two digits, few epochs")
parser.add_argument("--output", default="anomaly_detection.png")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()


def detectors(seed):
    """One setting for all data sets: scikit-learn's defaults, and of three tried for the VAE."""
    vae = fastelbo.VAE(
        hidden=(64,),
        latent_dim=4,
        likelihood="gaussian",
        epochs=5 if options.quick else 100,
        batch_size=32,
        learning_rate=3e-3,
        random_state=seed,
    )
    return {
        "VAE": fastelbo.VAEOutlierDetector(vae, contamination=0.05),
        "IsolationForest": IsolationForest(random_state=seed),
        "LocalOutlierFactor": LocalOutlierFactor(novelty=True),
    }


def scaler(name):
    return FunctionTransformer(lambda X: X / 16) if name == "digits" else StandardScaler()


#: Of each: the loader and the classes that are held out in turn; of tumours, the malignant ones.
DATA = {
    "digits": (load_digits, (8, 9) if options.quick else range(10)),
    "breast_cancer": (load_breast_cancer, (0,)),
    "wine": (load_wine, (0, 1, 2)),
}
found = {name: {} for name in DATA}
shown = {}
for name, (load, classes) in DATA.items():
    X, y = load(return_X_y=True)
    for seed in options.seed + np.arange(1 if options.quick else 3):
        train, test, y_train, y_test = train_test_split(
            X, y, test_size=0.4, stratify=y, random_state=seed
        )
        if options.quick:
            test, y_test = test[:100], y_test[:100]
        for held_out in classes:
            for detector, model in detectors(seed).items():
                chain = make_pipeline(scaler(name), model).fit(train[y_train != held_out])
                scores = chain.decision_function(test)
                aurocs = found[name].setdefault(detector, [])
                aurocs.append(roc_auc_score(y_test == held_out, -scores))
                shown[name, detector] = scores, y_test == held_out, held_out

names = list(detectors(0))
print("AUROC of a class held out: mean and standard deviation over classes and splits")
print(f"{'':13}" + "".join(f"{name:>20}" for name in names))
for data, by_detector in found.items():
    cells = [f"{np.mean(a):.3f} +- {np.std(a):.3f}" for a in by_detector.values()]
    print(f"{data:13}" + "".join(f"{cell:>20}" for cell in cells))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for i, name in enumerate(names):
    for j, data in enumerate(DATA):
        values = np.array(found[data][name])
        place = j + 0.25 * (i - 1)
        spread = np.linspace(-0.07, 0.07, len(values)) if len(values) > 1 else 0
        left.plot(place + spread, values, "o", ms=4, alpha=0.5, color=f"C{i}")
        label = name if j == 0 else None
        left.hlines(values.mean(), place - 0.1, place + 0.1, color=f"C{i}", lw=3, label=label)
left.axhline(0.5, color="gray", lw=1)
left.set(ylabel="AUROC of a class held out", ylim=(None, 1.02))
left.set_xticks(range(len(DATA)), list(DATA))
left.legend(loc="lower right")
scores, is_new, held_out = shown["digits", "VAE"]
bins = np.linspace(*np.percentile(scores, [0.5, 100]), 30)
for new, label in ((False, "the other digits"), (True, f"{held_out}, never seen")):
    right.hist(scores[is_new == new], bins, density=True, alpha=0.6, label=label)
right.axvline(0, color="black", lw=1, ls="--", label="below: 5 % of the training data")
right.set(xlabel="decision_function of the VAE, nats", ylabel="density")
right.margins(y=0.35)
right.legend(loc="upper left")
figure.savefig(options.output, dpi=120)
print(options.output)
