"""Models of pythae with their losses by fastelbo, beside pythae's own."""

import warnings

warnings.simplefilter("ignore")  # of pythae's dependencies

import torch  # noqa: E402
from pythae.models import VAE, BetaTCVAE, BetaTCVAEConfig, VAEConfig  # noqa: E402
from pythae.models.base.base_utils import ModelOutput  # noqa: E402, F401

# The models
from fastelbo.torch import Bernoulli, kl_standard_normal, total_correlation  # noqa: E402

bernoulli = Bernoulli(probs=True, clamp=True)  # what F.binary_cross_entropy computes


class FastVAE(VAE):
    def loss_function(self, recon_x, x, mu, log_var, z):
        reconstruction = -bernoulli.log_prob(x, recon_x)
        kl = kl_standard_normal(mu, log_var)
        return reconstruction + kl, reconstruction, kl


class FastBetaTCVAE(BetaTCVAE):
    def loss_function(self, recon_x, x, mu, log_var, z, dataset_size):
        config = self.model_config
        reconstruction = -bernoulli.log_prob(x, recon_x)
        parts = total_correlation(
            z, mu, log_var, dataset_size=dataset_size, method="mss", mss="reference"
        )
        weighted = (
            config.alpha * parts.mutual_information
            + config.beta * parts.total_correlation
            + config.gamma * parts.dimension_wise_kl
        )
        return reconstruction + weighted, reconstruction, weighted


# Both, on the same arrays
def main():
    torch.manual_seed(0)
    x, probs = torch.rand(32, 8, 8), torch.rand(32, 8, 8)
    arrays = [torch.randn(32, 4, requires_grad=True) for _ in range(3)]
    settings = {"input_dim": (1, 8, 8), "latent_dim": 4, "reconstruction_loss": "bce"}
    for fast, config, more in (
        (FastVAE, VAEConfig(**settings), ()),
        (FastBetaTCVAE, BetaTCVAEConfig(use_mss=True, **settings), (1000,)),
    ):
        model = fast(config)
        mu, log_var, z = arrays
        losses = [
            loss(probs, x, mu, log_var, z, *more)[0]
            for loss in (model.loss_function, super(fast, model).loss_function)
        ]
        print(f"{fast.__name__}: fastelbo {losses[0]:.4f}, pythae {losses[1]:.4f}")
        torch.testing.assert_close(*losses)
        gradients = [torch.autograd.grad(loss, arrays, allow_unused=True) for loss in losses]
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs)


if __name__ == "__main__":
    main()
