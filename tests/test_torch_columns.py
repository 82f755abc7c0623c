"""fastelbo.torch.ColumnLikelihood: tensors that blocks hold, kernels against the composite."""

import numpy as np
import pytest

import fastelbo

torch = pytest.importorskip("torch")
ft = pytest.importorskip("fastelbo.torch")


def table(seed=0):
    rng = np.random.default_rng(seed)
    real, codes = rng.normal(size=(6, 2)), rng.integers(0, 3, (6, 1))
    return torch.tensor(np.column_stack([real[:, :1], codes, rng.random((6, 2)), real[:, 1:]]))


def blocks(scale):
    return [(ft.Gaussian(scale), [4, 0]), (ft.Categorical(3), 1), (ft.Bernoulli(), slice(2, 4))]


def test_a_scale_that_a_block_holds_is_learned():
    scale = torch.nn.Parameter(torch.tensor([0.5, 2.0], dtype=torch.float64))
    held, x = ft.ColumnLikelihood(blocks(scale)), table()
    assert held.n_outputs == 7
    outputs = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    for reduction in ("mean", "none", "elementwise"):
        value = held.log_prob(x, outputs, reduction=reduction)
        fixed = ft.ColumnLikelihood(blocks((0.5, 2.0)))
        torch.testing.assert_close(value, fixed.log_prob(x, outputs, reduction=reduction))
    by_scale, by_outputs = torch.autograd.grad(held.log_prob(x, outputs), [scale, outputs])
    normal = torch.distributions.Normal(outputs[:, :2], scale).log_prob(x[:, [4, 0]])
    expected = torch.autograd.grad(normal.sum(1).mean(), [scale, outputs])
    torch.testing.assert_close(by_scale, expected[0])
    torch.testing.assert_close(by_outputs[:, :2], expected[1][:, :2])
    loss = ft.ElboLoss(held)
    assert [name for name, _ in loss.named_parameters()] == ["likelihood_parameters.0.scale"]


@pytest.mark.parametrize("reduction", ["mean", "none", "elementwise"])
def test_the_composite_is_what_kernels_give(reduction):
    likelihood, x = ft.ColumnLikelihood(blocks("learned"), missing="nan"), table()
    x[0, 0] = x[2, 3] = torch.nan
    mask = torch.rand(6, 5) > 0.2
    outputs = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    value = likelihood.log_prob(x, outputs, mask=mask, reduction=reduction)
    rows = likelihood._rows(x, (outputs,), mask, reduction)
    torch.testing.assert_close(value, rows.mean() if reduction == "mean" else rows)
    weights = torch.randn_like(value)
    mine, theirs = (
        torch.autograd.grad((weights * v).sum(), outputs)[0]
        for v in (value, rows.mean() if reduction == "mean" else rows)
    )
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("columns", [[0, 2], np.array([0, 2]), torch.tensor([0, 2])])
def test_is_the_twin_of_fastelbo(columns):
    own = fastelbo.ColumnLikelihood([(fastelbo.Gaussian(), [0, 2]), ("bernoulli", 1)])
    x, outputs = torch.rand(3, 3), torch.randn(3, 3)
    zero = torch.zeros(3, 1)
    value = ft.elbo(x, zero, zero, outputs, likelihood=own).reconstruction
    assert value.item() == pytest.approx(own.log_prob(x.numpy(), outputs.numpy()), rel=1e-6)
    twin = ft.ColumnLikelihood([(fastelbo.Gaussian(), columns), ("bernoulli", 1)])
    torch.testing.assert_close(twin.log_prob(x, outputs), value)
    parts = twin.split(outputs)
    assert [tuple(part.shape for part in p) for p in parts] == [((3, 2),), ((3, 1),)]
    with pytest.raises(ValueError, match=r"outputs has shape \(3, 2\), expected \(3, 3\)"):
        ft.ColumnLikelihood(own.blocks).log_prob(x, outputs[:, 1:])
