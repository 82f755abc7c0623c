"""joint_posterior: facts worked by hand."""

import numpy as np
import pytest

import fastelbo
from fastelbo import joint_posterior, reference
from tests.modalities import METHODS, PRESENT, draw


def test_a_product_by_hand():
    """Precisions 1 + 1 + 1 of the prior: the mean is 3 / 3."""
    experts = {"image": ([[3.0]], [[0.0]]), "text": ([[0.0]], [[0.0]])}
    q = joint_posterior(experts, noise=[[1.0]])
    assert q.mu == 1.0
    assert q.logvar == pytest.approx(-np.log(3))
    assert q.z == pytest.approx(1 + 1 / np.sqrt(3))
    assert joint_posterior(experts, noise=[[0.0]], prior=False).mu == 1.5
    missing = {"image": [False], "text": [False]}
    q = joint_posterior(experts, present=missing, noise=[[0.5]])
    assert (q.mu, q.logvar, q.z) == (0.0, 0.0, 0.5)


def test_a_mixture_by_hand():
    experts = {"image": ([[3.0], [9.0]], [[0.0], [9.0]]), "text": ([[5.0], [7.0]], [[2.0], [0.0]])}
    present = {"image": [True, False]}
    q = joint_posterior(experts, method="moe", present=present, component=[0, 1], noise=[[1], [2]])
    np.testing.assert_array_equal(q.mask, [[True, False], [True, True]])
    np.testing.assert_array_equal(q.mu[..., 0], [[3.0, 0.0], [5.0, 7.0]])
    np.testing.assert_array_equal(q.logvar[..., 0], [[0.0, 0.0], [2.0, 0.0]])
    np.testing.assert_array_equal(q.z, [[4.0], [9.0]])


def test_products_of_subsets_are_those_of_mopoe():
    experts = draw()
    q = joint_posterior(experts, method="mopoe", present=PRESENT, rng=0)
    mu, logvar = (np.stack([pair[i] for pair in experts.values()]) for i in (0, 1))
    seen = np.stack([PRESENT["image"], PRESENT["text"], np.ones(5, bool)])
    for mine, theirs in zip(q[:3], fastelbo.mopoe(mu, logvar, mask=seen), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rng", [0, 2026])
def test_a_key_draws_the_same_as_in_the_reference(method, rng):
    options = {"method": method, "present": PRESENT, "rng": rng}
    got, expected = (module.joint_posterior(draw(), **options) for module in (fastelbo, reference))
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13)
    assert got.mask[got.component, np.arange(5)].all()


def test_components_that_count_are_equally_likely():
    """Of 3 components 2 count for each of 30000 samples: 15000 +- 5 * 87 draws of each."""
    many = {name: (np.zeros((30_000, 1)),) * 2 for name in ("a", "b", "c")}
    present = {"b": np.zeros(30_000, bool)}
    q = joint_posterior(many, method="moe", present=present, rng=1)
    counts = np.bincount(q.component, minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 15_000) < 450


def test_what_is_missing_is_not_read():
    experts = draw()
    for method in METHODS:
        expected = joint_posterior(experts, method=method, present=PRESENT, rng=3)
        spoilt = {
            name: tuple(
                np.where(PRESENT.get(name, np.ones(5, bool))[:, None], a, np.nan) for a in p
            )
            for name, p in experts.items()
        }
        got = joint_posterior(spoilt, method=method, present=PRESENT, rng=3)
        for mine, theirs in zip(got, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


GOOD = {"image": ([[3.0]], [[0.0]]), "text": ([[0.0]], [[0.0]])}


@pytest.mark.parametrize(
    ("experts", "options", "error", "message"),
    [
        ({}, {}, ValueError, "^experts is empty"),
        ([GOOD], {}, TypeError, "^experts must be a dict"),
        ({"image": None}, {}, TypeError, r"^experts\['image'\]: expected a tuple"),
        ({**GOOD, "text": ([[0.0]], None)}, {}, TypeError, r"^experts\['text'\]: logvar must hold"),
        ({**GOOD, "text": ([[0.0], [1.0]],) * 2}, {}, ValueError, r"^experts\['text'\]: mu has sh"),
        (GOOD, {"method": "product"}, ValueError, "^method"),
        (GOOD, {"prior": 1}, TypeError, "^prior"),
        (GOOD, {"present": {"txet": [True]}}, ValueError, "^a name in present .*did you mean 'te"),
        (GOOD, {"present": {"text": [1]}}, TypeError, r"^present\['text'\] must be boolean"),
        (GOOD, {"present": {"text": [True, True]}}, ValueError, r"^present\['text'\] has shape"),
        (GOOD, {"present": [True]}, TypeError, "^present must be a dict"),
        (GOOD, {"method": "moe", "component": [2]}, ValueError, r"^component\[0\] = 2 is none"),
        (GOOD, {"method": "moe", "component": [0.0]}, TypeError, "^component must hold integers"),
        (GOOD, {"method": "moe", "component": [0, 0]}, ValueError, "^component has shape"),
        (GOOD, {"method": "moe", "noise": [[0.0]]}, ValueError, "^noise draws z alone"),
        (GOOD, {"rng": 0, "noise": [[0.0]]}, ValueError, "rng or noise, not both"),
    ],
)
def test_errors_name_what_is_wrong(experts, options, error, message):
    with pytest.raises(error, match=message):
        joint_posterior(experts, **options)


@pytest.mark.parametrize(
    "options", [{"prior": False}, {"method": "moe"}, {"method": "mopoe"}], ids=str
)
def test_a_sample_without_any_modality_is_named(options):
    experts = draw(names=("image", "text"))
    present = {**PRESENT, "text": PRESENT["text"] & (np.arange(5) != 4)}
    with pytest.raises(ValueError, match=r"^present: sample 4 has no modality"):
        joint_posterior(experts, present=present, **options)


def test_backward_refuses_the_posterior_of_another_method():
    experts = {"a": ([[3.0]], [[0.0]]), "b": ([[0.0]], [[0.0]])}
    q = fastelbo.joint_posterior(experts, method="moe", rng=0)
    zero = np.zeros((2, 1, 1))
    with pytest.raises(ValueError, match="mu has shape"):
        fastelbo.joint_posterior_backward([[1.0]], zero, zero, experts, q, method="poe")
    with pytest.raises(TypeError, match="posterior must be a JointPosterior"):
        fastelbo.joint_posterior_backward([[1.0]], zero, zero, experts, tuple(q), method="moe")
