"""What an encoder gives away: small networks, large ones and semi-amortized ones on the digits."""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastelbo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="few epochs and rows")
parser.add_argument("--output", default="amortization_gap.png")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

digits = load_digits().data / 16
train, test = train_test_split(digits, test_size=500, random_state=options.seed)
rows = 32 if options.quick else 500
epochs = 3 if options.quick else 100
models = {
    "small, 8 units": {"hidden": (8,)},
    "large, 256 units": {"hidden": (256,)},
    "semi-amortized, 8 units": {"hidden": (8,), "refine_steps": 3},
}

print("nats a digit               gap, train  gap, test  test - train   ELBO of q   of q*, test")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
counts = [0, 1, 2, 4, 8, 16, 32]
for i, (name, settings) in enumerate(models.items()):
    model = fastelbo.VAE(latent_dim=8, epochs=epochs, random_state=options.seed, **settings)
    model.fit(train)
    gaps = fastelbo.generalization_gap(model, (train[:rows],), (test[:rows],), rng=1)
    curve = [
        fastelbo.refine_posterior(model, test[:rows], steps=steps, rng=1).elbo.mean()
        for steps in counts
    ]
    print(
        f"{name:26} {gaps.train:10.3f} {gaps.test:10.3f} {gaps.gap:13.3f} "
        f"{curve[0]:11.3f} {curve[-1]:13.3f}"
    )
    left.plot(counts, curve, "o-", label=name)
    right.bar(np.array([0, 1]) + 0.27 * (i - 1), [gaps.train, gaps.test], 0.25, label=name)
left.set_xscale("symlog", linthresh=1)
left.set_xticks(counts, counts)
left.set(xlabel="steps of refine_posterior", ylabel="ELBO of held-out digits, nats")
left.legend(fontsize="small")
right.set_xticks([0, 1], ["training digits", "held-out digits"])
right.set_ylabel("amortization gap, nats")
figure.savefig(options.output, dpi=120)
print(options.output)
