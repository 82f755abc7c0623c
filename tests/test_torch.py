"""fastelbo.torch in eager mode: values and gradients of every case."""

from dataclasses import replace

import numpy as np
import pytest

import fastelbo
from fastelbo._catalogue import CASES as CATALOGUE
from fastelbo._catalogue import TOLERANCE
from fastelbo._catalogue._compare import errors_at_limits
from fastelbo._catalogue.twins import value_and_grad
from tests.conftest import assert_close, together
from tests.torch_cases import CASE_BY_NAME, CASES, FEW, LIKELIHOODS, each, flat, torch, weighted

ft = pytest.importorskip("fastelbo.torch")


def gradients(case, tensors, **options):
    inputs = [t for t in tensors.values() if t.requires_grad]
    return torch.autograd.grad(weighted(case.call(ft, *tensors.values(), **options)), inputs)


@each(CASES)
@together(dtype=[torch.float32, torch.float64])
def test_values_are_those_of_fastelbo(case, reduction, dtype):
    tensors = case.draw(dtype)
    options = case.options(reduction)
    got = flat(case.call(ft, *tensors.values(), **options))
    arrays = [t.detach().numpy() for t in tensors.values()]
    expected = flat(case.call(fastelbo, *arrays, **options))
    scales = case.of.scales(arrays, **{**case.options_of_it, **options})
    for mine, theirs, scale in zip(got, expected, scales, strict=True):
        assert mine.dtype == dtype
        assert_close(mine.detach().numpy(), theirs, arrays[0].dtype, scale)


def gradcheck(case, reduction, tensors, fast_mode=False):
    """Against differences: of every element by every other, or of random sums of them."""
    return torch.autograd.gradcheck(
        lambda *t: tuple(flat(case.call(ft, *t, **case.options(reduction)))),
        tuple(tensors.values()),
        fast_mode=fast_mode,
    )


@each(CASES, in_turn=True)
def test_gradcheck(case, reduction):
    assert gradcheck(case, reduction, case.draw(**FEW))


@each(CASES)
def test_gradients_of_every_reduction(case, reduction):
    """What reductions differ in is a factor, which no sum of elements hides."""
    assert gradcheck(case, reduction, case.draw(), fast_mode=True)


@each([case for case in CASES if not case.draws_noise])
def test_composites_agree_with_kernels(case, reduction, composite):
    composite(False)
    tensors, options = case.draw(), case.options(reduction)
    values, slopes = (
        case.call(ft, *tensors.values(), **options),
        gradients(case, tensors, **options),
    )
    composite()
    others = case.call(ft, *tensors.values(), **options)
    torch.testing.assert_close(flat(values), flat(others), rtol=1e-10, atol=1e-12)
    other_slopes = gradients(case, tensors, **options)
    torch.testing.assert_close(slopes, other_slopes, rtol=1e-8, atol=1e-10)


def with_missing(row, x):
    """The likelihood with missing="nan", and x with NaN."""
    x = x.clone()
    x[0, 0] = x[2, 3] = float("nan")
    return replace(row, options={**row.options, "missing": "nan"}), x


@pytest.mark.parametrize("row", LIKELIHOODS, ids=lambda row: row.label)
@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_missing_data_have_no_gradient(row, forced, composite):
    case = CASE_BY_NAME[row.label]
    x, *parameters = case.draw().values()
    mask = torch.ones(x.shape, dtype=torch.bool)
    mask[0, 0] = mask[2, 3] = False
    expected = row.make(fastelbo).log_prob_and_grad(
        x.numpy(), *[p.detach().numpy() for p in parameters], mask=mask.numpy()
    )
    missing, holes = with_missing(row, x)
    if forced:
        composite()
    for value in (
        row.make(ft).log_prob(x, *parameters, mask=mask),
        missing.make(ft).log_prob(holes, *parameters),
    ):
        assert value.item() == pytest.approx(expected[0], rel=1e-10)
        slopes = torch.autograd.grad(value, parameters)
        for mine, theirs in zip(slopes, expected[1], strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("row", LIKELIHOODS, ids=lambda row: row.label)
@pytest.mark.parametrize("samples", [0, 2])
def test_elements_have_gradients_of_their_own(row, samples, composite):
    """Those of any weights, from kernel and composite; masked ones have none."""
    case = CASE_BY_NAME[row.label]
    x, *parameters = case.draw().values()
    if samples and row.arguments == ("optimal",):
        return
    parameters = [
        torch.stack([p] * samples).detach().requires_grad_() if samples and "B" in axes else p
        for p, axes in zip(parameters, row.parameters.values(), strict=True)
    ]
    mask = torch.ones(x.shape, dtype=torch.bool)
    mask[0, 0] = mask[2, 3] = False
    options = {"mask": mask, "reduction": "elementwise"}
    expected = row.make(fastelbo).log_prob(
        x.numpy(), *[p.detach().numpy() for p in parameters], **{**options, "mask": mask.numpy()}
    )
    found = []
    for _ in range(2):
        values = row.make(ft).log_prob(x, *parameters, **options)
        np.testing.assert_allclose(values.detach(), expected, rtol=1e-9, atol=1e-12)
        found.append(torch.autograd.grad(weighted(values), parameters))
        composite()
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


@each(CASES, ("mean",))
def test_partial_requires_grad(case, reduction):
    """Gradients by one input alone are those found with the others."""
    tensors, options = case.draw(), case.options(reduction)
    wanted = [name for name, t in tensors.items() if t.requires_grad]
    everything = dict(zip(wanted, gradients(case, tensors, **options), strict=True))
    for name in wanted:
        alone = {k: t.detach().requires_grad_(k == name) for k, t in tensors.items()}
        torch.testing.assert_close(gradients(case, alone, **options)[0], everything[name])


BY_DATA = [c for c in CASES if {*c.constants} - {"mask"} and not {"x", "y"} & {*c.of.draws}]


@each(BY_DATA, ("mean",))
def test_gradient_by_data_takes_the_composite(case, reduction):
    """What kernels hold constant has its gradient all the same."""
    tensors = case.draw(requires_grad=False)
    for name in case.constants:
        tensors[name].requires_grad_(tensors[name].is_floating_point())
    assert gradcheck(case, reduction, tensors)


@each(CASES, ("none",))
def test_non_contiguous_tensors(case, reduction):
    tensors, options = case.draw(), case.options(reduction)
    expected = gradients(case, tensors, **options)
    strided = {}
    for name, t in tensors.items():
        room = torch.full((*t.shape[:-1], 2 * t.shape[-1]), 77.0, dtype=t.dtype)
        room[..., ::2] = t.detach()
        strided[name] = room[..., ::2].requires_grad_(t.requires_grad)
        assert not strided[name].is_contiguous()
    torch.testing.assert_close(gradients(case, strided, **options), expected)
    transposed = {
        name: t.detach().mT.contiguous().mT.requires_grad_(t.requires_grad) if t.ndim > 1 else t
        for name, t in tensors.items()
    }
    torch.testing.assert_close(gradients(case, transposed, **options), expected)


def test_tensors_of_which_memory_holds_the_negative():
    x, logits = torch.rand(2, 3, 4)
    conjugate = torch.complex(x, -logits).conj().requires_grad_()
    assert conjugate.imag.is_neg()
    value = ft.Bernoulli().log_prob(x, conjugate.imag)
    assert value == ft.Bernoulli().log_prob(x, logits)
    (slope,) = torch.autograd.grad(value, conjugate)
    logits.requires_grad_()
    torch.testing.assert_close(
        slope.imag, *torch.autograd.grad(ft.Bernoulli().log_prob(x, logits), logits)
    )


@each(CASES, ("mean", "none"))
def test_retain_graph_and_no_grad(case, reduction):
    tensors, options = case.draw(), case.options(reduction)
    inputs = [t for t in tensors.values() if t.requires_grad]
    result = weighted(case.call(ft, *tensors.values(), **options))
    first = torch.autograd.grad(result, inputs, retain_graph=True)
    kept = [g.clone() for g in first]
    tripled = torch.autograd.grad(3.0 * result, inputs, retain_graph=True)
    torch.testing.assert_close(tripled, tuple(3.0 * g for g in kept))
    torch.testing.assert_close(torch.autograd.grad(result, inputs), tuple(kept))
    with torch.no_grad():
        for value in flat(case.call(ft, *tensors.values(), **options)):
            assert not value.requires_grad


@each(
    [CASE_BY_NAME[n] for n in ("kl_normal", "reparameterize", "Bernoulli")]
    + [CASE_BY_NAME[n] for n in ("elbo[Bernoulli]", "iwae[Bernoulli]")],
    ("mean",),
)
def test_double_backward_is_an_error(case, reduction):
    tensors = case.draw()
    inputs = [t for t in tensors.values() if t.requires_grad]
    result = weighted(case.call(ft, *tensors.values(), **case.options(reduction)))
    with pytest.raises(RuntimeError, match="differentiate twice"):
        torch.autograd.grad(result, inputs, create_graph=True)


@each([case for case in CASES if not case.draws_noise], in_turn=True)
def test_meta_tensors_have_shapes(case, reduction):
    """The path of every other device."""
    tensors, options = case.draw(), case.options(reduction)
    expected = flat(case.call(ft, *tensors.values(), **options))
    got = flat(case.call(ft, *[t.detach().to("meta") for t in tensors.values()], **options))
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.is_meta
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype


def test_noise_of_meta_tensors_has_shapes():
    mu = torch.zeros(4, 3, device="meta")
    for z in (ft.reparameterize(mu, mu, samples=2), ft.gumbel_softmax(mu, samples=2)):
        assert z.is_meta
        assert z.shape == (2, 4, 3)


def test_inputs_are_borrowed_and_never_written():
    case = CASE_BY_NAME["elbo[Bernoulli]"]
    tensors = case.draw()
    before = {name: t.detach().clone() for name, t in tensors.items()}
    gradients(case, tensors)
    for name, t in tensors.items():
        assert torch.equal(t.detach(), before[name])


def composite_beside_reference(case, values, dtype, options):
    """Flat results and scales: of a composite, and of the specification in float64."""
    gradient = CATALOGUE[f"{case.of.name}_and_grad"]
    arrays = gradient.at(values, dtype)
    desired = flat(gradient.reference(*arrays.values(), **options))
    got, slopes = value_and_grad(case.of, gradient, arrays, options)
    return (*got, *slopes), tuple(desired), tuple(gradient.scales(arrays.values(), **options))


@each([case for case in CASES if case.of.extremes and not case.of.fixed], ("none",))
@together(dtype=["float32", "float64"])
def test_composites_are_right_at_the_extremes(case, reduction, dtype, composite):
    """As right as the kernels, in value and gradient."""
    composite()
    options = {**case.options_of_it, **case.options(reduction)}
    got, desired, scales = composite_beside_reference(case, "extremes", dtype, options)
    assert_close(got, desired, dtype, scales)


#: Composites that are not what the kernels are where parameters are denormal numbers, where a
#: probability by logits is one to the last digit, or where mu^2 and logvar of a KL are infinite.
ROUGH = {
    "BetaBinomial",
    "NegativeBinomial-elements",
    "ZeroInflatedNegativeBinomial-elements",
    "kl_bernoulli",
    "kl_standard_normal",
}


@each([c for c in CASES if c.of.limits and not c.of.fixed and c.of.name not in ROUGH], ("none",))
@together(dtype=["float32", "float64"])
def test_composites_are_right_at_the_limits(case, reduction, dtype, composite):
    """The limit, not NaN; what is no number of the dtype is infinite."""
    composite()
    options = {**case.options_of_it, **case.options(reduction)}
    found = composite_beside_reference(case, "limits", dtype, options)
    for mine, desired, scale in zip(*found, strict=True):
        mine = np.asarray(mine.detach() if torch.is_tensor(mine) else mine)
        wrong = errors_at_limits(mine, desired, dtype, scale) > TOLERANCE[np.dtype(dtype)]
        assert not wrong.any(), (mine[wrong], np.asarray(desired)[wrong])
