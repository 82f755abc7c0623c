"""The likelihoods that have a name, wherever a likelihood is taken."""

from fastelbo._arguments import check_choice, shown
from fastelbo.bernoulli import Bernoulli, ContinuousBernoulli
from fastelbo.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from fastelbo.discrete import (
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Poisson,
)
from fastelbo.likelihoods import Likelihood
from fastelbo.locations import Gaussian, Laplace, SquaredError
from fastelbo.survival import Weibull

#: All that need no argument.
LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomial,
    "weibull": Weibull,
    "discretized_logistic": DiscretizedLogistic,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
    "categorical": Categorical,
    "gaussian": lambda: Gaussian("optimal"),
    "laplace": Laplace,
    "squared_error": SquaredError,
}


def as_likelihood(chosen):
    """The Likelihood, of a name, itself, or the twin of one of fastelbo.torch."""
    if isinstance(chosen, Likelihood):
        return chosen
    if isinstance(chosen, str):
        check_choice(chosen, "likelihood", tuple(LIKELIHOODS))
        return LIKELIHOODS[chosen]()
    if getattr(chosen, "held", None) is not None:  # by one of fastelbo.torch
        raise TypeError(
            "likelihood holds tensors to differentiate: call the function of fastelbo.torch"
        )
    if isinstance(kernels := getattr(chosen, "kernels", None), Likelihood):
        return kernels
    if isinstance(chosen, type):
        raise TypeError(f"likelihood must be an object, got the class {chosen.__name__}: call it")
    raise TypeError(
        f"likelihood must be one of {tuple(LIKELIHOODS)} or a Likelihood, got {shown(chosen)}"
    )
