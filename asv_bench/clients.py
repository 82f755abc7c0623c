"""Whole training steps of scvi-tools' and pythae's models, with their own loss and with fastelbo's.

    python asv_bench/clients.py [NAME ...]

Needs ``pip install scvi-tools pythae``; what is not installed is left out. A step is forward,
backward and Adam's on one minibatch of generated data, all contenders in turns, minima of all. The
losses are those of `docs/howto`, and of here where a page has none. At most: with a loss that only
adds up what it is given, no loss makes a step faster. Where other programs use the processors,
OpenMP's workers that wait by spinning are what is measured: OMP_WAIT_POLICY=passive.
"""

import argparse
import importlib.util
import math
import sys
import warnings
from functools import partial
from pathlib import Path

import torch

import fastelbo.torch as ft
from fastelbo._cli._common import take_turns

#: Of names that are not the model's and ``Config``.
CONFIGS = {"INFOVAE_MMD": "INFOVAE_MMD_Config"}
HOWTO = Path(__file__).parents[1] / "docs" / "howto"


def howto(name):
    """The module of a page."""
    spec = importlib.util.spec_from_file_location(name, HOWTO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Clients ------------------------------------------------------------------------------------------


def added_up(tensors):
    return sum(t.sum() for t in tensors)


def scvi(genes, likelihood):
    """SCVI's module, 128 cells a minibatch, and the same with another loss."""
    from scvi.module import VAE

    page = howto("scvi_tools")

    class Zeros(page.FastVAE):
        def loss(self, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
            px, qz = generative_outputs["px"], inference_outputs["qz"]
            reconstruction = ft.zero_inflated_negative_binomial_loss(
                tensors["X"], px.mu, px.theta, px.zi_logits, reduction="none"
            )
            kl = ft.kl_standard_normal(qz.loc, 2 * qz.scale.log(), reduction="none")
            loss = torch.mean(reconstruction + kl_weight * kl)
            return page.LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=kl)

    counts = torch.distributions.NegativeBinomial(0.3, torch.tensor(0.7)).sample((128, genes))
    index = torch.zeros(128, 1, dtype=torch.long)
    tensors = {"X": counts + (torch.arange(genes) == 0), "batch": index, "labels": index}

    class Costless(VAE):
        def loss(self, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
            px, qz = generative_outputs["px"], inference_outputs["qz"]
            logits = [px.zi_logits] if likelihood == "zinb" else []
            loss = added_up([px.mu, px.theta, qz.loc, qz.scale, *logits])
            return page.LossOutput(loss=loss, n_obs_minibatch=len(qz.loc))

    fast = Zeros if likelihood == "zinb" else page.FastVAE
    options = {"n_input": genes, "gene_likelihood": likelihood}
    return [(kind(**options), lambda m: m(tensors)[2].loss) for kind in (VAE, fast, Costless)]


def pythae(kind, batch, latent, **options):
    """A model of pythae's for images of 28 x 28 with cross-entropy, and with another loss."""
    from pythae import models

    own = getattr(models, kind)
    config = getattr(models, CONFIGS.get(kind, f"{kind}Config"))(
        input_dim=(1, 28, 28), latent_dim=latent, reconstruction_loss="bce", **options
    )
    data = {"data": torch.rand(batch, 1, 28, 28)}

    class Costless(own):
        def loss_function(self, recon_x, x, *others):
            loss = added_up(t for t in (recon_x, *others) if getattr(t, "requires_grad", False))
            return (loss,) * (4 if kind == "INFOVAE_MMD" else 3)

    return [(k(config), lambda m: m(data).loss) for k in (own, fast_of(kind, own), Costless)]


def fast_of(kind, own):
    page = howto("pythae_models")
    if kind == "BetaTCVAE":
        return page.FastBetaTCVAE

    class InfoVAE(own):
        def loss_function(self, recon_x, x, z, z_prior, mu, log_var):
            config = self.model_config
            flat, probs = x.flatten(1), recon_x.flatten(1)
            reconstruction = -page.bernoulli.log_prob(flat, probs)
            kl = ft.kl_standard_normal(mu, log_var)
            width = config.kernel_bandwidth * math.sqrt(config.latent_dim)
            scales = [width * math.sqrt(scale) for scale in self.scales]
            mmd = ft.mmd(z, z_prior, kernel="imq", bandwidth=scales)
            loss = reconstruction + (1 - self.alpha) * kl + (self.alpha + self.lbd - 1) * mmd
            return loss, reconstruction, kl, mmd

    class IWAE(own):
        def loss_function(self, recon_x, x, mu, log_var, z):
            flat, by_sample = x.flatten(1), recon_x.transpose(0, 1)
            options = {"likelihood": page.bernoulli}
            latents = z.transpose(0, 1), mu[:, 0], log_var[:, 0]
            bound = ft.iwae(flat, *latents, by_sample, **options)
            return -bound, bound, bound

    return {"INFOVAE_MMD": InfoVAE, "IWAE": IWAE}[kind]


CLIENTS = {
    "scvi-nb-2000": partial(scvi, 2000, "nb"),
    "scvi-zinb-5000": partial(scvi, 5000, "zinb"),
    "infovae-256": partial(pythae, "INFOVAE_MMD", 256, 20, kernel_choice="imq"),
    "betatcvae-512": partial(pythae, "BetaTCVAE", 512, 20, use_mss=True),
    "betatcvae-1024": partial(pythae, "BetaTCVAE", 1024, 20, use_mss=True),
    "iwae-16-128": partial(pythae, "IWAE", 128, 20, number_samples=16),
}


# Steps --------------------------------------------------------------------------------------------


def step_of(model, loss_of):
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        return loss

    return step


def gradients(model, loss_of):
    """Of one loss by all parameters, one behind the other."""
    torch.manual_seed(1)
    found = torch.autograd.grad(loss_of(model), [*model.parameters()], allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def apart(expected, found):
    return ((found - expected).norm() / expected.norm()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLIENTS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # of their dependencies
    for name in args.names or CLIENTS:
        torch.manual_seed(0)
        try:
            (theirs, loss), (ours, own_loss), (costless, sums) = CLIENTS[name]()
        except ModuleNotFoundError as error:
            print(f"{name}: left out, {error}")
            continue
        ours.load_state_dict(theirs.state_dict())
        off = apart(gradients(theirs, loss), gradients(ours, own_loss))
        steps = {
            "own": step_of(theirs, loss),
            "fastelbo": step_of(ours, own_loss),
            "costless": step_of(costless, sums),
        }
        best = {k: min(s) for k, s in take_turns(steps, args.rounds, 0.02).items()}
        faster = {k: best["own"] / seconds for k, seconds in best.items()}
        print(
            f"{name}: own {1e3 * best['own']:.2f} ms, fastelbo {1e3 * best['fastelbo']:.2f} ms, "
            f"{faster['fastelbo']:.2f}x of at most {faster['costless']:.2f}x; "
            f"gradients {off:.0e} apart",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
