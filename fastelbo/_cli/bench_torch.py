"""fastelbo.torch beside plain PyTorch: the loss alone, forward and backward, and whole steps.

Everything in float32 and in this process, the contenders in turns. The share of the loss in a step
is what it takes alone over what the step takes. One more table tells the least that PyTorch itself
takes for a loss, whoever computes it.
"""

import statistics
from functools import partial

import numpy as np
import torch

import fastelbo.torch
from fastelbo._cli import _common
from fastelbo._cli._torch_vae import TorchVAE, kl_to_standard_normal, negative_elbo
from fastelbo._cli.bench import THEIRS, worst_error

BATCH, FEATURES, LATENT = 128, 784, 20
HIDDEN = (400,)
GENES = 5000
EAGER, COMPILED = "PyTorch eager", "torch.compile"
OURS, OURS_COMPILED = "fastelbo.torch", "fastelbo.torch, torch.compile"


# The losses --------------------------------------------------------------------------------------


def squared_error(x_recon, x, mu, logvar):
    return (torch.sum((x - x_recon) ** 2) + kl_to_standard_normal(mu, logvar)) / len(x)


def negative_binomial(mean, theta, x):
    """As in scvi-tools, up to the name of things."""
    eps = 1e-8
    log_both = torch.log(theta + mean + eps)
    log_prob = (
        theta * (torch.log(theta + eps) - log_both)
        + x * (torch.log(mean + eps) - log_both)
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )
    return -log_prob.sum(dim=-1).mean()


_SQUARED_ERROR = fastelbo.torch.ElboLoss()
_BERNOULLI = fastelbo.torch.ElboLoss(fastelbo.torch.Bernoulli())


def our_squared_error(x_recon, x, mu, logvar):
    return _SQUARED_ERROR(x, mu, logvar, x_recon)


def our_negative_elbo(logits, x, mu, logvar):
    return _BERNOULLI(x, mu, logvar, logits)


def our_negative_binomial(mean, theta, x):
    return fastelbo.torch.negative_binomial_loss(x, mean, theta)


def vae_tensors():
    """(decoder output, x, mu, logvar)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, FEATURES, generator=generator)
    output, mu, logvar = (
        scale * torch.randn(BATCH, n, generator=generator)
        for n, scale in ((FEATURES, 1.0), (LATENT, 1.0), (LATENT, 0.5))
    )
    return output, x, mu, logvar


def count_tensors():
    """(mean, theta, x) of genes that differ by orders of magnitude; most counts are 0."""
    rng = np.random.default_rng(0)
    mean = np.exp(rng.normal(-2.0, 1.5, GENES) + rng.normal(0.0, 0.3, (BATCH, 1)))
    theta = np.exp(rng.normal(0.0, 1.0, GENES))
    x = rng.poisson(mean * rng.gamma(theta, 1 / theta, (BATCH, GENES)))
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (mean, theta, x))


#: Title, what is written usually, ours, the tensors, and which of them are differentiated by.
LOSSES = (
    (
        f"squared error + KL, ({BATCH}, {FEATURES}, {LATENT})",
        squared_error,
        our_squared_error,
        vae_tensors,
        (0, 2, 3),
    ),
    (
        f"Bernoulli + KL, ({BATCH}, {FEATURES}, {LATENT})",
        negative_elbo,
        our_negative_elbo,
        vae_tensors,
        (0, 2, 3),
    ),
    (
        f"negative binomial, ({BATCH}, {GENES})",
        negative_binomial,
        our_negative_binomial,
        count_tensors,
        (0, 1),
    ),
)


# How they are measured --------------------------------------------------------------------------


def measure(threads, quick, rounds, burst):
    """Tables of rows, as dicts, and who is left out."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tables = [
            {"title": title, "rows": measure_loss(plain, ours, tensors(), by, quick, rounds, burst)}
            for title, plain, ours, tensors, by in _common.progress(LOSSES, "torch")
        ]
        floor = measure_floor(threads, rounds, burst)
        tables.append({"title": "what the first loss cannot avoid", "rows": floor})
        title = "-".join(map(str, (FEATURES, *HIDDEN, LATENT)))
        rows = measure_steps(tables[1]["rows"], quick, rounds, burst)
        tables.append({"title": f"a training step of a VAE, {title}, batch {BATCH}", "rows": rows})
    finally:
        torch.set_num_threads(before)
    return {"tables": tables, "absent": {COMPILED: "left out by --quick"} if quick else {}}


def measure_loss(plain, ours, tensors, by, quick, rounds, burst):
    """Rows of one loss, its value and its gradients; a row that is wrong is not timed."""
    losses = {EAGER: plain, OURS: ours}
    if not quick:
        losses[COMPILED] = torch.compile(plain, dynamic=False)
        losses[OURS_COMPILED] = torch.compile(ours, fullgraph=True, dynamic=False)
    desired = value_and_grad(plain, *leaves_of([t.double() for t in tensors], by))
    rows, calls = {}, {}
    for label, loss in losses.items():
        call = partial(value_and_grad, loss, *leaves_of(tensors, by))
        error = worst_error(_arrays(call()), _arrays(desired))
        rows[label] = {"label": label, "disagrees": not error <= THEIRS["float32"]}
        if not rows[label]["disagrees"]:
            calls[label] = call
    _time(calls, rows, rounds, burst)
    return list(rows.values())


def leaves_of(tensors, by):
    """Copies, and those of them that are differentiated by."""
    tensors = [t.clone() for t in tensors]
    return tensors, [tensors[i].requires_grad_() for i in by]


def value_and_grad(loss, tensors, leaves):
    value = loss(*tensors)
    return value, *torch.autograd.grad(value, leaves)


def _arrays(tensors):
    return [t.detach().double().numpy() for t in tensors]


class Nothing(torch.autograd.Function):
    """Three gradients that cost nothing."""

    @staticmethod
    def forward(ctx, *leaves):
        ctx.save_for_backward(*leaves)
        return torch.zeros(())

    @staticmethod
    def backward(ctx, upstream):
        return ctx.saved_tensors


def measure_floor(threads, rounds, burst):
    """Rows of what PyTorch takes for a graph of one node, alone and after the kernels have run."""
    tensors, leaves = leaves_of(vae_tensors(), (0, 2, 3))
    output, x, mu, logvar = (t.detach().numpy() for t in tensors)
    one = torch.ones((), requires_grad=True)

    def kernels_and(node):
        fastelbo.elbo_and_grad(x, mu, logvar, output, num_threads=threads)
        return node()

    def node():
        return torch.autograd.grad(one * 1.0, one)

    def function():
        return torch.autograd.grad(Nothing.apply(*leaves), leaves)

    calls = {
        EAGER: partial(value_and_grad, squared_error, tensors, leaves),
        "one scalar product, its gradient": node,
        "the same after elbo_and_grad": partial(kernels_and, node),
        "an autograd.Function of nothing": function,
        "that after elbo_and_grad": partial(kernels_and, function),
    }
    rows = {label: {"label": label, "disagrees": False} for label in calls}
    _time(calls, rows, rounds, burst)
    return list(rows.values())


def measure_steps(alone, quick, rounds, burst):
    """Rows of whole training steps; `alone` are the rows of their loss."""
    steps = {EAGER: (negative_elbo, False), OURS: (our_negative_elbo, False)}
    if not quick:
        steps |= {COMPILED: (negative_elbo, True), OURS_COMPILED: (our_negative_elbo, True)}
    x = vae_tensors()[1]
    rows = {label: {"label": label, "disagrees": False} for label in steps}
    calls = {label: training_step(x, *how) for label, how in steps.items()}
    _time(calls, rows, rounds, 5 * burst)
    for row in alone:
        if "minimum" in row:
            rows[row["label"]]["share"] = row["minimum"] / rows[row["label"]]["minimum"]
    return list(rows.values())


def training_step(x, loss, compiled):
    """A function that trains the classic VAE by one minibatch."""
    torch.manual_seed(0)
    model = TorchVAE(FEATURES, HIDDEN, LATENT)
    optimizer = torch.optim.Adam(model.parameters())

    def loss_of(x):
        logits, mu, logvar = model(x)
        return loss(logits, x, mu, logvar)

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=False)

    def step():
        optimizer.zero_grad()
        loss_of(x).backward()
        optimizer.step()

    return step


def _time(calls, rows, rounds, burst):
    """Enter times, and how many times faster than the eager one a row is, into the rows."""
    for key, seconds in _common.take_turns(calls, rounds, burst).items():
        rows[key]["minimum"] = min(seconds)
        rows[key]["median"] = statistics.median(seconds)
    eager = next(row for row in rows.values() if row["label"] == EAGER)
    for row in rows.values():
        if "minimum" in row and "minimum" in eager:
            row["speedup"] = eager["minimum"] / row["minimum"]
