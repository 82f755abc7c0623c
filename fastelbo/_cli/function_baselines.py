"""Public functions that `bench` compares as they are, in PyTorch: part of `baselines`."""

import math

from fastelbo._cli.aggregate_baselines import LOG_2PI


def torch_plain_functions(torch):
    """What a PyTorch user writes, each (*arrays) -> (what is differentiated, ...)."""

    def kl_normal(mu, logvar, mu_p, logvar_p):
        ratio = logvar - logvar_p
        distance = (mu - mu_p) ** 2 * torch.exp(-logvar_p)
        return (0.5 * (torch.exp(ratio) + distance - 1 - ratio).sum(1).mean(),)

    def kl_full_normal(mu, tril, mu_p, tril_p):
        tril, tril_p = torch.tril(tril), torch.tril(tril_p)
        ratio = torch.linalg.solve_triangular(tril_p, tril, upper=False)
        scaled = torch.linalg.solve_triangular(tril_p, (mu - mu_p)[..., None], upper=False)
        q, p = (torch.diagonal(a, dim1=1, dim2=2).log().sum(1) for a in (tril, tril_p))
        squares = (ratio**2).sum((1, 2)) + (scaled**2).sum((1, 2))
        return ((0.5 * (squares - mu.shape[1]) + p - q).mean(),)

    def log_weights(x, z, mu, logvar, x_recon):
        log_ratio = 0.5 * ((z - mu) ** 2 * torch.exp(-logvar) + logvar - z**2).sum(2)
        return (log_ratio - ((x - x_recon) ** 2).sum(2),)

    def importance_bound(log_w):
        return (torch.logsumexp(log_w, 0).mean() - math.log(len(log_w)),)

    def iwae(x, z, mu, logvar, x_recon):
        return importance_bound(*log_weights(x, z, mu, logvar, x_recon))

    def cubo(log_w):
        return (0.5 * importance_bound(2 * log_w)[0],)

    def effective_sample_size(log_w):
        return (1 / (torch.softmax(log_w, 0) ** 2).sum(0),)

    def normalized_weights(log_w):
        return (torch.softmax(log_w, 0),)

    def product_of_experts(mu, logvar):
        precision = torch.exp(-logvar)
        total = precision.sum(0) + 1
        return (mu * precision).sum(0) / total, -torch.log(total)

    def mixture_of_experts(z, mu, logvar):
        log_p = -0.5 * ((z - mu) ** 2 * torch.exp(-logvar) + logvar + LOG_2PI).sum(2)
        return (torch.logsumexp(log_p, 0).mean() - math.log(len(mu)),)

    def aggregate_posterior_log_density(z, mu, logvar):
        log_q = -0.5 * (LOG_2PI + logvar + (z[:, None] - mu) ** 2 * torch.exp(-logvar))
        constant = math.log(len(mu))
        return torch.logsumexp(log_q.sum(2), 1) - constant, torch.logsumexp(log_q, 1) - constant

    functions = (
        kl_normal,
        kl_full_normal,
        log_weights,
        iwae,
        importance_bound,
        cubo,
        effective_sample_size,
        normalized_weights,
        product_of_experts,
        mixture_of_experts,
        aggregate_posterior_log_density,
    )
    return {function.__name__: function for function in functions}
