"""What the catalogue's cases are in ``fastelbo.torch``, whose gradients are autograd's."""

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
    return () if row.untwinned else with_gradient(row)


def tensors_of(gradient, arrays, dtype=None):
    """The arrays as tensors, by name; those that have a gradient require it."""
    import torch

    dtype = dtype and getattr(torch, dtype)
    return {
        name: torch.tensor(a, dtype=dtype).requires_grad_(name in gradient.outs)
        for name, a in arrays.items()
    }


def objective(case, values, options):
    """The number whose gradients `_and_grad` gives, of flat values."""
    weights = options.get("weights", case.objective)
    return sum(w * value.sum() for w, value in zip(weights, values, strict=False))


def value_and_grad(case, gradient, arrays, options, dtype=None):
    """(flat values, gradients in the order of `outs`), as float64 arrays."""
    import torch

    import fastelbo.torch

    tensors = tensors_of(gradient, arrays, dtype)
    given = {name: value for name, value in options.items() if name != "weights"}
    values = flatten(case.call(fastelbo.torch, *tensors.values(), **given))
    leaves = [tensors[name] for name in gradient.outs]
    gradients = torch.autograd.grad(
        objective(case, values, options), leaves, materialize_grads=True
    )
    return (
        tuple(value.detach().double().numpy() for value in values),
        tuple(gradient.double().numpy() for gradient in gradients),
    )
