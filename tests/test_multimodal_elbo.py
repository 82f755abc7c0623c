"""multimodal_elbo and multimodal_elbo_and_grad: facts worked by hand."""

import numpy as np
import pytest

import fastelbo
from fastelbo import multimodal_elbo, multimodal_elbo_and_grad, reference
from tests.conftest import numerical_gradient
from tests.modalities import PRESENT

NAMES = ("image", "text", "sound")


def draw(module=fastelbo):
    """Modalities of three kinds, and a Gaussian posterior."""
    rng = np.random.default_rng(0)
    image, image_recon, sound, mean, log_scale = rng.normal(size=(5, 5, 2, 3))
    labels, logits = rng.integers(4, size=5), rng.normal(size=(5, 4))
    mu, logvar = rng.normal(size=(2, 5, 3))
    modalities = {
        "image": (np.abs(image) % 1, module.Bernoulli(), image_recon),
        "text": (labels, module.Categorical(), logits),
        "sound": (sound, module.Gaussian("learned"), mean, log_scale),
    }
    return modalities, mu, logvar


def test_by_hand():
    """-4, log(1/2) twice as heavy, and half of the KL 1/2."""
    modalities = {
        "image": ([[1.0, 2.0]], "squared_error", [[1.0, 0.0]]),
        "label": ([1], fastelbo.Categorical(), [[0.0, 0.0]]),
    }
    result, grad = multimodal_elbo_and_grad(
        modalities, [[1.0]], [[0.0]], weights={"label": 2.0}, beta=0.5
    )
    assert result.reconstruction == {"image": -4.0, "label": pytest.approx(-np.log(2))}
    assert result.kl == 0.5
    assert result.elbo == pytest.approx(-4 - 2 * np.log(2) - 0.25)
    np.testing.assert_array_equal(grad.x_recon["image"], [[0.0, 4.0]])
    np.testing.assert_array_equal(grad.x_recon["label"], [[-1.0, 1.0]])
    assert (grad.mu, grad.logvar) == (-0.5, 0.0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_one_modality_is_the_elbo(reduction):
    modalities, mu, logvar = draw()
    x, likelihood, x_recon = modalities["image"]
    got = multimodal_elbo({"image": modalities["image"]}, mu, logvar, beta=2, reduction=reduction)
    expected = fastelbo.elbo(
        x, mu, logvar, x_recon, likelihood=likelihood, beta=2.0, reduction=reduction
    )
    np.testing.assert_allclose(got.elbo, expected.elbo, rtol=1e-14)
    np.testing.assert_allclose(got.kl, expected.kl, rtol=1e-14)


def test_a_mixture_counts_the_mean_of_its_kls():
    """KLs 1/2 and 2 of one sample; the other has the second component alone."""
    modalities = {"a": ([[0.0], [0.0]], "squared_error", [[0.0], [0.0]])}
    mu, logvar = [[[1.0], [np.nan]], [[2.0], [2.0]]], np.zeros((2, 2, 1))
    mask = [[True, False], [True, True]]
    result, grad = multimodal_elbo_and_grad(modalities, mu, logvar, mask, reduction="none")
    np.testing.assert_array_equal(result.kl, [1.25, 2.0])
    np.testing.assert_array_equal(grad.mu[..., 0], [[-0.5, 0.0], [-1.0, -2.0]])


def test_that_is_more_than_the_kl_of_the_mixture():
    """By convexity: of a mixture whose KL is estimated by 200000 draws."""
    rng = np.random.default_rng(0)
    mu, logvar = np.array([[[-1.0]], [[2.0]]]), np.array([[[0.0]], [[-1.0]]])
    modalities = {"a": ([[0.0]], "squared_error", [[0.0]])}
    bound = multimodal_elbo(modalities, mu, logvar).kl
    which = rng.integers(2, size=200_000)
    z = mu[which, 0] + np.exp(0.5 * logvar[which, 0]) * rng.normal(size=(200_000, 1))
    log_q = fastelbo.mixture_of_experts(z[:, None], mu, logvar, reduction="none")[:, 0]
    log_p = -0.5 * (z[:, 0] ** 2 + np.log(2 * np.pi))
    estimate, error = np.mean(log_q - log_p), np.std(log_q - log_p) / np.sqrt(len(z))
    assert estimate + 5 * error < bound


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_what_is_missing_counts_nothing(reduction):
    """Whole samples, and single elements; whatever is there."""
    modalities, mu, logvar = draw()
    theirs = draw(reference)[0]
    seen = np.random.default_rng(5).uniform(size=(5, 2, 3)) < 0.7
    present = {**PRESENT, "sound": seen}
    options = {"present": present, "weights": {"text": 0.5}, "reduction": reduction}
    got = multimodal_elbo_and_grad(modalities, mu, logvar, **options)
    expected = reference.multimodal_elbo_and_grad(theirs, mu, logvar, **options)
    np.testing.assert_allclose(got[0].elbo, expected[0][0], rtol=1e-13)
    for name in modalities:
        mine, specified = got[1].x_recon[name], expected[1][2][name]
        np.testing.assert_allclose(mine, specified, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(got[0].reconstruction[name], expected[0][1][name], rtol=1e-13)
    x, *rest = modalities["image"]
    modalities["image"] = (np.where(PRESENT["image"][:, None, None], x, np.nan), *rest)
    x, *rest = modalities["sound"]
    modalities["sound"] = (np.where(seen, x, np.nan), *rest)
    again = multimodal_elbo_and_grad(modalities, mu, logvar, **options)
    np.testing.assert_array_equal(again[0].elbo, got[0].elbo)
    np.testing.assert_array_equal(again[1].x_recon["image"][~PRESENT["image"]], 0)
    for gradient in again[1].x_recon["sound"]:
        np.testing.assert_array_equal(gradient[~seen], 0)


def test_a_sample_that_has_nothing_counts_with_its_kl():
    nothing = {name: np.zeros(5, bool) for name in NAMES}
    modalities, mu, logvar = draw()
    result = multimodal_elbo(modalities, mu, logvar, present=nothing, reduction="none")
    np.testing.assert_array_equal(result.elbo, -result.kl)


@pytest.mark.parametrize("which", ["mu", "logvar", "image", "text", "sound"])
def test_gradients_are_central_differences(which):
    modalities, *latent = draw()
    latent = dict(zip(("mu", "logvar"), latent, strict=True))
    options = {"present": PRESENT, "weights": {"text": 0.5}, "beta": 1.5}
    _, grad = multimodal_elbo_and_grad(modalities, **latent, **options)
    if which in latent:
        got, start = getattr(grad, which), latent[which]
    else:
        got, start = grad.x_recon[which], modalities[which][-1]
        got = got[-1] if isinstance(got, tuple) else got

    def value(moved):
        if which in latent:
            return multimodal_elbo(modalities, **{**latent, which: moved}, **options).elbo
        changed = {**modalities, which: (*modalities[which][:-1], moved)}
        return multimodal_elbo(changed, **latent, **options).elbo

    np.testing.assert_allclose(got, numerical_gradient(value, start), rtol=1e-7, atol=1e-10)


def test_a_whole_step_is_differentiated():
    """From the experts through z, two linear decoders and the bound, and back."""
    rng = np.random.default_rng(1)
    experts = {name: tuple(rng.normal(size=(2, 5, 3))) for name in ("image", "text")}
    data = {name: rng.normal(size=(5, 4)) for name in experts}
    decoders = {name: rng.normal(size=(3, 4)) for name in experts}
    noise = rng.normal(size=(5, 3))
    for method, component in (("poe", 0), ("moe", 1), ("mopoe", 2)):
        options = {"method": method}
        component = np.full(5, component)

        def bound(experts, options=options, component=component):
            q = fastelbo.joint_posterior(experts, component=component, noise=noise, **options)
            modalities = {
                name: (x, "squared_error", q.z @ decoders[name]) for name, x in data.items()
            }
            return q, multimodal_elbo_and_grad(modalities, *q[:3])

        q, (_, grad) = bound(experts)
        grad_z = sum(grad.x_recon[name] @ decoders[name].T for name in data)
        got = fastelbo.joint_posterior_backward(grad_z, grad.mu, grad.logvar, experts, q, **options)
        mu, logvar = experts["image"]
        expected = numerical_gradient(
            lambda moved, logvar=logvar, bound=bound: (
                bound({**experts, "image": (moved, logvar)})[1][0].elbo
            ),
            mu,
        )
        np.testing.assert_allclose(got["image"].mu, expected, rtol=1e-7, atol=1e-8)


def test_out():
    modalities, mu, logvar = draw()
    _, expected = multimodal_elbo_and_grad(modalities, mu, logvar)
    sound = tuple(np.empty((5, 2, 3)) for _ in range(2))
    out = np.empty_like(mu), None, {"image": np.empty((5, 2, 3)), "sound": sound}
    _, grad = multimodal_elbo_and_grad(modalities, mu, logvar, out=out)
    assert grad.mu is out[0]
    assert grad.x_recon["image"] is out[2]["image"]
    assert all(mine is given for mine, given in zip(grad.x_recon["sound"], sound, strict=True))
    np.testing.assert_array_equal(grad.logvar, expected.logvar)
    np.testing.assert_array_equal(sound[1], expected.x_recon["sound"][1])
    x, other = modalities["image"][0], np.empty((5, 2, 3))
    for wrong in ({"image": x}, {"image": other, "sound": (other, None)}):
        with pytest.raises(ValueError, match="overlaps"):
            multimodal_elbo_and_grad(modalities, mu, logvar, out=(None, None, wrong))
    for wrong in ((None, None), (None, None, None)):
        with pytest.raises(TypeError, match="like MultimodalGrad"):
            multimodal_elbo_and_grad(modalities, mu, logvar, out=wrong)
    with pytest.raises(ValueError, match=r"^a name in out"):
        multimodal_elbo_and_grad(modalities, mu, logvar, out=(None, None, {"smell": None}))


GOOD = ([[1.0, 2.0]], "squared_error", [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("modalities", "options", "error", "message"),
    [
        ({}, {}, ValueError, "^modalities is empty"),
        ([GOOD], {}, TypeError, "^modalities must be a dict"),
        ({1: GOOD}, {}, TypeError, "^modalities must have names"),
        ({"a": GOOD[:2]}, {}, TypeError, r"^modalities\['a'\]: expected a tuple"),
        ({"a": (None, *GOOD[1:])}, {}, ValueError, r"^modalities\['a'\]: x is None.* no data"),
        ({"a": ([[]], *GOOD[1:])}, {}, ValueError, r"^modalities\['a'\]: x_recon has shape"),
        ({"a": (GOOD[0], "gauss", GOOD[2])}, {}, ValueError, r"^modalities\['a'\]: likelihood"),
        ({"a": (*GOOD, GOOD[2])}, {}, TypeError, r"^modalities\['a'\]: SquaredError takes 1"),
        (
            {"a": tuple(GOOD[i] * 2 if i != 1 else GOOD[1] for i in range(3))},
            {},
            ValueError,
            "like",
        ),
        (
            {"a": GOOD},
            {"weights": {"a": -1.0}},
            ValueError,
            r"^weights\['a'\] must be finite and n",
        ),
        ({"a": GOOD}, {"weights": {"b": 1.0}}, ValueError, "^a name in weights"),
        ({"a": GOOD}, {"beta": -1.0}, ValueError, "^beta"),
        ({"a": GOOD}, {"present": {"b": [True]}}, ValueError, "^a name in present"),
        ({"a": GOOD}, {"present": {"a": [1]}}, TypeError, r"^present\['a'\] must be boolean"),
        ({"a": GOOD}, {"present": {"a": [True] * 3}}, ValueError, r"^modalities\['a'\]: mask has"),
        ({"a": GOOD}, {"mask": [[False]]}, ValueError, "^mask leaves no component for sample 0"),
        ({"a": GOOD}, {"mask": [[True], [True]]}, ValueError, r"^mask has shape \(2, 1\)"),
        ({"a": GOOD}, {"reduction": "all"}, ValueError, "^reduction"),
    ],
)
def test_errors_name_what_is_wrong(modalities, options, error, message):
    for function in (multimodal_elbo, multimodal_elbo_and_grad):
        with pytest.raises(error, match=message):
            function(modalities, [[1.0]], [[0.0]], **options)


def test_data_outside_the_domain_name_the_modality():
    modalities = {"a": GOOD, "b": ([[0.5, 2.0]], fastelbo.Bernoulli(), [[0.0, 0.0]])}
    out = np.full((1, 1), 77.0), None, {"a": np.full((1, 2), 77.0)}
    with pytest.raises(ValueError, match=r"^modalities\['b'\]: x\[0, 1\] = 2 lies outside"):
        multimodal_elbo_and_grad(modalities, [[1.0]], [[0.0]], out=out)


def test_torch_says_the_same():
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    modalities, mu, logvar = draw()
    tensors = {
        name: (torch.tensor(x), likelihood, *map(torch.tensor, outputs))
        for name, (x, likelihood, *outputs) in modalities.items()
    }
    present = {name: torch.tensor(seen) for name, seen in PRESENT.items()}
    options = {"weights": {"text": 0.5}, "beta": 1.5}
    expected = multimodal_elbo(modalities, mu, logvar, present=PRESENT, **options)
    mu, logvar = torch.tensor(mu, requires_grad=True), torch.tensor(logvar)
    got = ft.multimodal_elbo(tensors, mu, logvar, present=present, **options)
    assert got.elbo.item() == pytest.approx(expected.elbo, rel=1e-13)
    for name, value in expected.reconstruction.items():
        assert got.reconstruction[name].item() == pytest.approx(value, rel=1e-13)
    mixture = torch.stack([mu, mu + 1]), torch.stack([logvar, logvar - 1])  # no mask
    alone = [ft.kl_standard_normal(m, v) for m, v in ((mu, logvar), (mu + 1, logvar - 1))]
    torch.testing.assert_close(ft.multimodal_elbo(tensors, *mixture).kl, sum(alone) / 2)
    for wrong, message in (
        ({"weights": {"text": -1.0}}, r"^weights\['text'\]"),
        ({"present": {"smell": present["text"]}}, "^a name in present"),
        ({"mask": torch.zeros(1, 5, dtype=torch.bool)}, "^mask leaves no component"),
    ):
        with pytest.raises(ValueError, match=message):
            ft.multimodal_elbo(tensors, mu, logvar, **wrong)
    with pytest.raises(ValueError, match=r"^modalities\['a'\]: x is None"):
        ft.multimodal_elbo({"a": (None, "bernoulli", mu)}, mu, logvar)


@pytest.mark.parametrize("function", [multimodal_elbo, multimodal_elbo_and_grad])
def test_an_infinite_kl_comes_without_a_warning(function):
    modalities = {"a": (np.zeros((2, 1)), "bernoulli", np.zeros((2, 1)))}
    mu, logvar = np.full((2, 2, 1), np.inf), np.zeros((2, 2, 1))
    mask = [[True, True], [False, True]]
    value = function(modalities, mu, logvar, mask=mask)
    assert (value[0] if function is multimodal_elbo_and_grad else value).kl == np.inf
