"""fastelbo.torch beside plain PyTorch: the loss alone, forward and backward, and whole steps.

Everything in float32 and in this process, the contenders in turns. The share of the loss in a step
is what it takes alone over what the step takes. One more table tells the least that PyTorch itself
takes for a loss, whoever computes it.
"""

import statistics
from functools import partial

import torch

import fastelbo.torch
from fastelbo._catalogue import CASES
from fastelbo._catalogue.sizes import GENES, STANDARD
from fastelbo._catalogue.twins import tensors_of
from fastelbo._cli import _common, contenders
from fastelbo._cli._torch_vae import TorchVAE, negative_elbo
from fastelbo._cli.measure import THEIRS, error_of_largest, size_of

HIDDEN = (400,)
EAGER, COMPILED = "PyTorch eager", "torch.compile"
OURS, OURS_COMPILED = "fastelbo.torch", "fastelbo.torch, torch.compile"


#: The cases whose losses are measured, with the extents of their arrays.
LOSSES = (
    ("elbo", STANDARD),
    ("elbo-Bernoulli", STANDARD),
    ("NegativeBinomial", GENES),
)


class Loss:
    """Minus a case's value, as it is usually written and by fastelbo.torch, and its tensors."""

    def __init__(self, name, extents):
        self.case = CASES[name]
        self.gradient = CASES[f"{name}_and_grad"]
        self.arrays = self.case.draw(2026, "float32", **extents)
        self.title = f"{name}, {size_of(self.case, extents)}"
        call = contenders.call_of(self.case, fastelbo.torch, self.tensors()[0])
        #: Of tensors: that of the module, as it is minimised.
        self.ours = partial(minus, call.func, **call.keywords)
        if call.func is fastelbo.torch.elbo:
            self.ours = fastelbo.torch.ElboLoss(**call.keywords)

    def plain(self, *tensors):
        return minus(self.case.peers["torch"], torch, *tensors)

    def tensors(self, dtype=None):
        """(all, those that are differentiated by)."""
        tensors = tensors_of(self.gradient, self.arrays, dtype)
        return tuple(tensors.values()), [tensors[name] for name in self.gradient.outs]


def minus(function, *tensors, **options):
    result = function(*tensors, **options)
    return -(result[0] if isinstance(result, tuple) else result)


# How they are measured --------------------------------------------------------------------------


def measure(threads, quick, rounds, burst):
    """Tables of rows, as dicts, and who is left out."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        losses = [Loss(*loss) for loss in LOSSES]
        tables = [
            {"title": loss.title, "rows": measure_loss(loss, quick, rounds, burst)}
            for loss in _common.progress(losses, "torch")
        ]
        floor = measure_floor(losses[0], threads, quick, rounds, burst)
        tables.append({"title": "what the first loss cannot avoid", "rows": floor})
        rows = measure_steps(losses[1], tables[1]["rows"], quick, rounds, burst)
        batch, features, latent = STANDARD.values()
        title = "-".join(map(str, (features, *HIDDEN, latent)))
        tables.append({"title": f"a training step of a VAE, {title}, batch {batch}", "rows": rows})
    finally:
        torch.set_num_threads(before)
    return {"tables": tables, "absent": {COMPILED: "left out by --quick"} if quick else {}}


def measure_loss(loss, quick, rounds, burst):
    """Times of one loss, its value and its gradients; one that is wrong is not timed."""
    losses = {EAGER: loss.plain, OURS: loss.ours}
    if not quick:
        losses[COMPILED] = contenders.compiled(torch, loss.plain)
        losses[OURS_COMPILED] = contenders.compiled(torch, loss.ours, fullgraph=True)
    desired = value_and_grad(loss.plain, *loss.tensors("float64"))
    rows, calls = {}, {}
    for label, function in losses.items():
        call = partial(value_and_grad, function, *loss.tensors())
        error = error_of_largest(_arrays(call()), _arrays(desired))
        rows[label] = {"label": label, "disagrees": not error <= THEIRS["float32"]}
        if not rows[label]["disagrees"]:
            calls[label] = call
    _time(calls, rows, rounds, burst)
    return list(rows.values())


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


torch.library.define("fastelbo_bench::nothing", "(Tensor[] leaves) -> Tensor[]")


@torch.library.impl("fastelbo_bench::nothing", "CPU")
@torch.library.register_fake("fastelbo_bench::nothing")
def _(leaves):
    return [leaves[0].new_empty(()), *map(torch.empty_like, leaves)]


class NothingInGraph(torch.autograd.Function):
    """The same by an operator, as torch.compile takes it, with gradients that are scaled."""

    @staticmethod
    def forward(ctx, *leaves):
        value, *gradients = torch.ops.fastelbo_bench.nothing(leaves)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx, upstream):
        return tuple([upstream * gradient for gradient in ctx.saved_tensors])


def measure_floor(loss, threads, quick, rounds, burst):
    """Times of what PyTorch takes for a graph of one node, alone and after the kernels have run."""
    tensors, leaves = loss.tensors()
    kernels = contenders.Fastelbo(threads, "float32").bind(loss.gradient, loss.arrays)
    one = torch.ones((), requires_grad=True)

    def kernels_and(node):
        kernels()
        return node()

    def node():
        return torch.autograd.grad(one * 1.0, one)

    def function(apply=Nothing.apply):
        return torch.autograd.grad(apply(*leaves), leaves)

    calls = {
        EAGER: partial(value_and_grad, loss.plain, tensors, leaves),
        "one scalar product, its gradient": node,
        "the same after elbo_and_grad": partial(kernels_and, node),
        "an autograd.Function of nothing": function,
        "that after elbo_and_grad": partial(kernels_and, function),
    }
    if not quick:
        in_graph = contenders.compiled(torch, lambda *leaves: NothingInGraph.apply(*leaves))
        calls["an operator of nothing, torch.compile"] = partial(function, in_graph)
    rows = {label: {"label": label, "disagrees": False} for label in calls}
    _time(calls, rows, rounds, burst)
    return list(rows.values())


def measure_steps(loss, alone, quick, rounds, burst):
    """Times of whole training steps; `alone` are those of their loss."""
    bernoulli = fastelbo.torch.ElboLoss(fastelbo.torch.Bernoulli())

    def ours(logits, x, mu, logvar):
        return bernoulli(x, mu, logvar, logits)

    steps = {EAGER: (negative_elbo, False), OURS: (ours, False)}
    if not quick:
        steps |= {COMPILED: (negative_elbo, True), OURS_COMPILED: (ours, True)}
    x = torch.from_numpy(loss.arrays["x"])
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
    model = TorchVAE(x.shape[1], HIDDEN, STANDARD["L"])
    optimizer = torch.optim.Adam(model.parameters())

    def loss_of(x):
        logits, mu, logvar = model(x)
        return loss(logits, x, mu, logvar)

    if compiled:
        loss_of = contenders.compiled(torch, loss_of)

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
