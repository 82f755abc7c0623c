"""Arguments that are no arrays: whatever takes one of a kind refuses what is none, by its name."""

import inspect
import re

import numpy as np
import pytest

import fastelbo
from fastelbo._catalogue import CASES, VARIANTS


class Sparse:
    """As a matrix of SciPy's to those who look only for its method."""

    def toarray(self):
        raise NotImplementedError


class Wanting:
    """As a tensor that requires a gradient."""

    requires_grad = True


class Says:
    """A prior that returns whatever it is given to return."""

    def __init__(self, result):
        self.result = result

    def log_prob(self, z):
        return self.result

    log_prob_and_grad = log_prob


#: More than a float64 can be, and more digits than Python writes.
HUGE = (10**400, -(10**400), 10**5000)
WORDS = ("odd", 3, np.zeros(3), ["mean"], b"mean", [10**5000])
NO_NUMBERS = ("4", True, [1.0], np.zeros(3), 1j, None, object(), *HUGE)
WEIGHTS = (*NO_NUMBERS, -1, np.nan, np.inf)
FLAGS = ("yes", 1, np.zeros(2), None)
NO_PRIORS = ("vamp", fastelbo.VampPrior, 3, np.zeros(2))
SAID = tuple(map(Says, ("a", None, np.zeros((7, 7)), 1j, (np.zeros(2), "a"))))

#: What is wrong as an argument of that name, whoever takes it.
WRONG = {
    "reduction": (*WORDS, None),
    "method": (*WORDS, None),
    "mss": (*WORDS, None),
    "kernel": (*WORDS, None),
    "estimator": (*WORDS, None),
    "baseline": (*WORDS, None),
    "missing": WORDS,
    "granularity": (*WORDS, None),
    "below": (*WORDS, None),
    "beta": WEIGHTS,
    "gamma": WEIGHTS,
    "alpha": NO_NUMBERS,
    "n": NO_NUMBERS,
    "free_bits": WEIGHTS,
    "threshold": WEIGHTS,
    "x_scale": (*WEIGHTS, 0),
    "bins": (*WEIGHTS, 1, 2.5),
    "dataset_size": (0, 1.5, "9", True, None, 1, *HUGE),
    "samples": (0, 1.5, "9", True, 1 << 62, 1 << 70, *HUGE),
    "num_threads": (0, 1.5, "9", True, *HUGE),
    "rng": ("a", True, -1, 1.5, 1 << 64, np.random.RandomState(0), *HUGE),
    "noise": ("a", 3, np.zeros((97, 89)), Sparse(), Wanting()),
    "mask": ("a", 1, 1.0, [[True], [True, False]], np.ones(7), np.ones((97, 89), bool), Sparse()),
    "likelihood": ("bernouli", fastelbo.Bernoulli, 3, None),
    "prior": NO_PRIORS,
    "validate": FLAGS,
    "normalize": FLAGS,
    "log_input": FLAGS,
}
NOT_TAKEN = ("unexpected keyword argument", "multiple values for")


def refuses(name, call, argument, value):
    """Whether a call takes the argument; fails unless it refuses the value and says whose it is."""
    try:
        call(**{argument: value})
    except (TypeError, ValueError) as error:
        if any(words in str(error) for words in NOT_TAKEN):
            return False
        said = str(error)
    else:
        said = "accepted"
    if argument not in said:
        pytest.fail(f"{name} with {argument} = {value!r}: {said}")
    return True


def takers(argument):
    """(name, call) of what takes it: cases of the catalogue, by what they say, and classes."""
    for name, case in CASES.items():
        arrays = case.draw(0)
        if argument in arrays or f"[{argument}]" in name:
            continue  # what the case itself gives
        drawn = argument == "prior" and name.startswith("elbo") and "noise" not in arrays
        options = {"rng": 0} if drawn else {}

        def call(case=case, arrays=arrays, options=options, **argument):
            return case.public(*arrays.values(), **options, **argument)

        yield name, call
    for name, variant in VARIANTS.items():
        likelihood = variant.make(fastelbo)
        kind = type(likelihood)
        own = {p: getattr(likelihood, p) for p in inspect.signature(kind).parameters}
        if argument in own:
            yield name, lambda kind=kind, own=own, **argument: kind(**{**own, **argument})
    for kind in (fastelbo.FreeBits, fastelbo.StreamingBound):
        if argument in inspect.signature(kind).parameters:
            own = {"threshold": 0.5} if kind is fastelbo.FreeBits else {}
            yield kind.__name__, lambda kind=kind, own=own, **argument: kind(**{**own, **argument})


#: Numbers of these names are arrays to some, which say so themselves; None has a meaning to others.
OWN = {
    "BetaBinomial": ("alpha", "beta"),
    **dict.fromkeys(
        ("amortization_gap", "flow_matching", "generalization_gap", "refine_posterior"),
        ("likelihood",),
    ),
}


@pytest.mark.parametrize("argument", WRONG)
def test_what_takes_it_refuses_what_is_none(argument):
    found = set()
    for name, call in takers(argument):
        if argument in OWN.get(re.match(r"\w+?(?=_and_grad|\W|$)", name)[0], ()):
            continue
        for value in WRONG[argument]:
            if not refuses(name, call, argument, value):
                break
            found.add(name)
    assert found


#: Calls of what takes arrays of settings, by (its name, the argument).
SETTINGS = {
    ("Gaussian", "scale"): fastelbo.Gaussian,
    ("Laplace", "scale"): fastelbo.Laplace,
    ("StudentT", "df"): fastelbo.StudentT,
    ("StudentT", "scale"): lambda scale: fastelbo.StudentT(1.0, scale),
    ("DiscretizedLogistic", "scale"): fastelbo.DiscretizedLogistic,
    ("Binomial", "total_count"): fastelbo.Binomial,
    ("BetaBinomial", "total_count"): fastelbo.BetaBinomial,
    ("NegativeBinomial", "theta"): fastelbo.NegativeBinomial,
    ("ZeroInflatedNegativeBinomial", "theta"): fastelbo.ZeroInflatedNegativeBinomial,
    ("Weibull", "scale"): fastelbo.Weibull,
    ("Weibull", "concentration"): lambda concentration: fastelbo.Weibull(None, concentration),
    ("mmd", "bandwidth"): lambda bandwidth: fastelbo.mmd(
        [[1.0]] * 2, [[1.0]] * 2, bandwidth=bandwidth
    ),
}


@pytest.mark.parametrize("huge", HUGE, ids=["above", "below", "far above"])
def test_no_array_holds_ints_of_any_size(huge):
    refused = "must hold real numbers|holds a number larger than a float64 can be"
    for name, case in CASES.items():
        arrays = case.draw(0)
        # A case's decoder is no argument of fastelbo's.
        own = {"mask", "weights"} if name.endswith(("_gap", "_posterior")) else {"mask"}
        for which in arrays.keys() - own if name != "elbo_from_buffers" else ():
            spoilt = arrays[which].astype(object)
            spoilt.flat[0] = huge
            with pytest.raises((TypeError, ValueError), match=refused):
                case.public(*{**arrays, which: spoilt.tolist()}.values())
    for (_, argument), call in SETTINGS.items():
        for value in (huge, [huge, 1.0]):
            with pytest.raises((TypeError, ValueError), match=argument):
                call(value)


@pytest.mark.parametrize("huge", HUGE, ids=["above", "below", "far above"])
def test_numbers_in_the_place_of_arrays_have_a_size(huge):
    counts = fastelbo.NegativeBinomial()
    for argument, call in (
        ("prior_logits", lambda: fastelbo.kl_bernoulli([[0.0]], huge)),
        ("theta", lambda: counts.log_prob([[1]], [[1.0]], huge)),
        (
            "theta",
            lambda: fastelbo.elbo([[1]], [[0.0]], [[0.0]], ([[1.0]], huge), likelihood=counts),
        ),
    ):
        with pytest.raises(ValueError, match=f"^{argument} is larger than a float64 can be"):
            call()


@pytest.mark.parametrize("huge", HUGE[::2], ids=["above", "far above"])
def test_nothing_is_counted_beyond_what_memory_has(huge):
    counts = ("latent_dim", "batch_size", "epochs", "hidden", "prior_components", "refine_steps")
    takers = [(fastelbo.VAE, name) for name in counts]
    for kind, argument in (*takers, (fastelbo.SemiSupervisedVAE, "labelled_repeats")):
        with pytest.raises(ValueError, match=f"{argument} must be at most"):
            kind(**{argument: huge}).fit(np.eye(3), [0, 1, -1])
    with pytest.raises(ValueError, match=r"steps must be at most \d+, got an int of"):
        fastelbo.BetaSchedule(steps=huge)
    with pytest.raises(ValueError, match="step is larger than"):
        fastelbo.BetaSchedule(steps=3)(huge)
    for values in ([[huge]], [[huge, 1.0]]):
        with pytest.raises(ValueError, match="X holds a number larger than a float64 can be"):
            fastelbo.VAE().fit(values)


@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_no_tensor_goes_with_ints_of_any_size(forced, composite):
    torch = pytest.importorskip("torch")
    ft = pytest.importorskip("fastelbo.torch")
    if forced:
        composite()
    x = torch.ones(2, 3)
    for kind in (ft.NegativeBinomial(), ft.Gaussian("learned")):
        with pytest.raises(ValueError, match="larger than a float64 can be"):
            kind.log_prob(x, x, 10**400)
    with pytest.raises(ValueError, match="larger than a float64 can be"):
        ft.elbo(x, x, x, (x, 10**400), likelihood=ft.Gaussian("learned"))
    with pytest.raises(TypeError, match="mu must be a tensor or an array"):
        ft.MixtureOfGaussians([[10**400, 1.0]], x)


@pytest.mark.parametrize("boolean", [True, np.True_, [True], np.array([True])], ids=repr)
@pytest.mark.parametrize("taker", SETTINGS, ids=" ".join)
def test_booleans_are_no_numbers(taker, boolean):
    with pytest.raises(TypeError, match=f"^{taker[1]} must be numbers"):
        SETTINGS[taker](boolean)


def test_what_settings_were_made_of_stays():
    """Set afterwards they would change nothing, or not be checked, without a word."""
    likelihoods = [variant.make(fastelbo) for variant in VARIANTS.values()]
    schedules = [fastelbo.BetaSchedule(steps=2), fastelbo.LearningRateSchedule(0.1, steps=3)]
    for made in (*likelihoods, fastelbo.FreeBits(0.1), *schedules):
        names = [name for name in made.get_params(deep=False) if hasattr(made, name)]
        assert names
        for name in names:
            with pytest.raises(AttributeError, match=name):
                setattr(made, name, getattr(made, name))
        made.set_params(**{name: getattr(made, name) for name in names})


def test_every_likelihood_with_settings_is_among_them():
    """An argument that is annotated as numbers is an array of settings."""
    kinds = {type(variant.make(fastelbo)) for variant in VARIANTS.values()}
    found = {
        (kind.__name__, name)
        for kind in kinds
        for name, parameter in inspect.signature(kind).parameters.items()
        if "Numbers" in str(parameter.annotation) or "ArrayLike" in str(parameter.annotation)
    }
    assert found - {("Weibull", "observed")} == SETTINGS.keys() - {("mmd", "bandwidth")}


@pytest.mark.parametrize("taker", [t for t in SETTINGS if t[0] != "mmd"], ids=" ".join)
@pytest.mark.parametrize("forced", [False, True], ids=["kernels", "composite"])
def test_tensors_of_booleans_are_no_numbers(taker, forced, composite):
    torch = pytest.importorskip("torch")
    kind = getattr(pytest.importorskip("fastelbo.torch"), taker[0])
    if forced:
        composite()
    required = {"df": 1.0} if taker == ("StudentT", "scale") else {}
    likelihood = kind(**required, **{taker[1]: torch.tensor([True])})
    outputs = [torch.ones(2, 1)] * len(kind(**required, **{taker[1]: 1.0}).parameters)
    with pytest.raises(TypeError, match=f"^{taker[1]} must be numbers"):
        likelihood.log_prob(torch.ones(2, 1), *outputs)
