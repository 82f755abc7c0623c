"""What the arguments of ``fastelbo.VAE`` may be, and what data fit them."""

import numpy as np

from fastelbo._arguments import as_whole
from fastelbo._named import as_likelihood
from fastelbo._network import PRIORS
from fastelbo.likelihoods import digits, is_word
from fastelbo.locations import Gaussian
from fastelbo.priors import MixtureOfGaussians, StandardNormal


def widths(hidden):
    """Widths of hidden layers, of one int or a sequence of them, as a tuple."""
    if isinstance(hidden, np.ndarray):
        hidden = hidden.tolist()
    if not isinstance(hidden, tuple | list | range):
        hidden = (hidden,)
    return tuple(as_whole(width, "hidden", 1) for width in hidden)


def as_dtype(dtype):
    """The dtype that is computed in."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if dtype is None or found not in (np.float32, np.float64):
        raise ValueError(f'dtype must be "float32" or "float64", got {dtype!r}')
    return found


def trained_likelihood(chosen):
    """The Likelihood that is trained, of a name or itself."""
    chosen = as_likelihood(chosen)
    if chosen._layout.more_axes:
        raise ValueError(
            f"likelihood {chosen!r} needs decoder outputs with an axis of classes or components, "
            "which a dense decoder to the shape of X does not have: choose one of the others"
        )
    if chosen.x_scale != 1:
        raise ValueError("likelihood has an x_scale, which only it would see: scale X instead")
    return chosen


def positive_outputs(likelihood):
    """The numbers of the decoder outputs that must be positive."""
    names = enumerate(likelihood.parameters)
    return tuple(i for i, name in names if name in likelihood._positive)


def check_same_outputs(likelihood, before):
    """Complain unless a network made for the likelihood `before` serves this one."""
    if (likelihood.parameters, likelihood._of_counts) != (before.parameters, before._of_counts):
        raise ValueError(
            f"likelihood {likelihood!r} takes another network than {before!r}, with which training "
            "began: use fit"
        )


def is_optimal(likelihood):
    """Whether the scale is found anew in each minibatch."""
    return isinstance(likelihood, Gaussian) and is_word(likelihood.scale, "optimal")


def as_prior(chosen, latent_dim):
    """What a network takes for its prior: the name of one, or the one given."""
    if chosen is None or isinstance(chosen, StandardNormal):
        return "standard"
    if isinstance(chosen, str) and chosen in PRIORS:
        return chosen
    if not isinstance(chosen, MixtureOfGaussians):
        raise ValueError(
            f"prior must be one of {PRIORS}, a StandardNormal, MixtureOfGaussians or VampPrior, or "
            f"None, got {chosen!r}"
        )
    if chosen.mu.shape[1] != latent_dim:
        raise ValueError(
            f"prior has {chosen.mu.shape[1]} latent dimensions, but latent_dim is {latent_dim}"
        )
    return chosen


def check_domain(X, likelihood):
    """Complain about the first value of X that the likelihood has no density for."""
    if likelihood._own:
        likelihood._own_parameters(X.shape, 1, X.dtype)  # complains if they do not fit the features
    outside = likelihood._is_outside(X)
    if likelihood.validate and outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"X[{row}, {column}] = {digits(X[row, column])} lies outside the domain of "
            f"{type(likelihood).__name__}, {likelihood._domain}: scale X, or choose another "
            "likelihood"
        )
