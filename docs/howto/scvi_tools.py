"""SCVI with its loss by fastelbo, beside scvi-tools' own."""

import warnings

warnings.simplefilter("ignore")  # of scvi-tools' dependencies

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import scvi  # noqa: E402
import torch  # noqa: E402

# The module
from scvi.module.base import LossOutput, auto_move_data  # noqa: E402, F401

from fastelbo.torch import kl_standard_normal, negative_binomial_loss  # noqa: E402


class FastVAE(scvi.module.VAE):
    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
        px, qz = generative_outputs["px"], inference_outputs["qz"]
        reconstruction = negative_binomial_loss(tensors["X"], px.mu, px.theta, reduction="none")
        kl = kl_standard_normal(qz.loc, 2 * qz.scale.log(), reduction="none")
        return LossOutput(
            loss=torch.mean(reconstruction + kl_weight * kl),
            reconstruction_loss=reconstruction,
            kl_local={"kl_divergence_z": kl},
        )


class FastSCVI(scvi.model.SCVI):
    _module_cls = FastVAE


# Both, on the same minibatch
def main():
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(2, 0.3, (200, 100)).astype(np.float32)
    adata = anndata.AnnData(counts)
    FastSCVI.setup_anndata(adata)
    model = FastSCVI(adata, gene_likelihood="nb")
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False, logger=False)
    tensors = next(iter(model._make_data_loader(adata, batch_size=64)))
    inference, generative, ours = model.module(tensors)
    theirs = scvi.module.VAE.loss(model.module, tensors, inference, generative)
    print(f"fastelbo {ours.loss.item():.4f}, scvi-tools {theirs.loss.item():.4f}")
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-4, atol=0)


if __name__ == "__main__":
    main()
