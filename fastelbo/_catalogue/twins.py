"""What cases are in ``fastelbo.torch`` and ``fastelbo.jax``, which differentiate by themselves."""

from fastelbo._catalogue._row import flatten


def with_gradient(row):
    """(case of the value, case of its gradient) of what has both."""
    by_name = {case.name: case for case in row.cases}
    for case in row.cases:
        gradient = by_name.get(f"{case.name}_and_grad")
        if gradient is not None:
            yield case, gradient


def twins(row):
    """The same of what is in fastelbo.torch, too."""
    return () if row.untwinned else (pair for pair in with_gradient(row) if pair[0].twinned)


def tensors_of(gradient, arrays, dtype=None):
    """The arrays as tensors, by name; those that have a gradient require it."""
    import torch

    dtype = dtype and getattr(torch, dtype)
    return {
        name: torch.tensor(a, dtype=dtype).requires_grad_(name in gradient.outs)
        for name, a in arrays.items()
    }


def objective(case, values, options=None):
    """The number whose gradients `_and_grad` gives, of flat values."""
    weights = (options or {}).get("weights", case.objective)
    weighted = zip(weights, values, strict=False)
    first, *others = (
        w * _summed(value) if w != 1 else _summed(value) for w, value in weighted if w
    )
    return sum(others, first)


def _summed(value):
    return value.sum() if value.ndim else value


def value_and_grad(case, gradient, arrays, options, dtype=None, lay=lambda tensor: tensor):
    """(flat values, gradients in the order of `outs`), as float64 arrays.

    `lay` makes of each tensor the one that is handed over, a view of other strides, say.
    """
    import torch

    import fastelbo.torch

    tensors = tensors_of(gradient, arrays, dtype)
    given = {name: value for name, value in options.items() if name != "weights"}
    values = flatten(case.call(fastelbo.torch, *map(lay, tensors.values()), **given))
    leaves = [tensors[name] for name in gradient.outs]
    gradients = torch.autograd.grad(
        objective(case, values, options), leaves, materialize_grads=True
    )
    return (
        tuple(value.detach().double().numpy() for value in values),
        tuple(gradient.double().numpy() for gradient in gradients),
    )


def jax_twins(row):
    """Pairs like those of `twins`, of what is in ``fastelbo.jax``, too."""
    from fastelbo._catalogue import ROWS

    without = [f"[{other.name}]" for other in ROWS.values() if other.not_in_jax]
    for case, gradient in () if row.not_in_jax else twins(row):
        if not any(label in case.name for label in without):
            yield case, gradient


def jax_value_and_grad(case, gradient, arrays, options, transform=lambda function: function):
    """Like `value_and_grad`, by ``jax.jit`` of what `transform` makes of the objective.

    At the second call, which goes the shortest way that there is.
    """
    import jax

    import fastelbo.jax

    given = {name: value for name, value in options.items() if name != "weights"}
    if case.draws_noise:
        given["rng"] = jax.random.key(7)

    def loss(free, fixed):
        named = {**fixed, **free}
        arguments = [named[name] for name in arrays]
        values = flatten(case.call(fastelbo.jax, *arguments, **given))
        return objective(case, values, options), values

    free = {name: arrays[name] for name in gradient.outs}
    fixed = {name: a for name, a in arrays.items() if name not in free}
    compiled = jax.jit(transform(jax.value_and_grad(loss, has_aux=True)))
    jax.block_until_ready(compiled(free, fixed))
    (_, values), gradients = compiled(free, fixed)
    return tuple(values), tuple([gradients[name] for name in gradient.outs])
