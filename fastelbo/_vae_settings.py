"""What the arguments of ``fastelbo.VAE`` may be, and what data fit them."""

import numpy as np

from fastelbo.likelihoods import Bernoulli, Gaussian, Likelihood, SquaredError, is_word

#: Likelihoods that have a name.
LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "gaussian": lambda: Gaussian("optimal"),
    "squared_error": SquaredError,
}


def as_likelihood(chosen):
    """The Likelihood that is trained, of a name or itself."""
    if isinstance(chosen, str) and chosen in LIKELIHOODS:
        return LIKELIHOODS[chosen]()
    if not isinstance(chosen, Likelihood):
        raise ValueError(
            f"likelihood must be one of {tuple(LIKELIHOODS)} or a Likelihood, got {chosen!r}"
        )
    if chosen._more_axes:
        raise ValueError(
            f"likelihood {chosen!r} needs decoder outputs with an axis of classes or components, "
            "which a dense decoder to the shape of X does not have: choose one of the others"
        )
    if chosen.x_scale != 1:
        raise ValueError("likelihood has an x_scale, which only it would see: scale X instead")
    return chosen


def is_optimal(likelihood):
    """Whether the scale is found anew in each minibatch."""
    return isinstance(likelihood, Gaussian) and is_word(likelihood.scale, "optimal")


def check_domain(X, likelihood):
    """Complain about the first value of X that the likelihood has no density for."""
    outside = likelihood._is_outside(X)
    if likelihood.validate and outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"X[{row}, {column}] = {X[row, column]:g} lies outside the domain of "
            f"{type(likelihood).__name__}, {likelihood._domain}: scale X, or choose another "
            "likelihood"
        )
