"""What the arguments of ``fastelbo.VAE`` may be, and what data fit them."""

import copy
from contextlib import suppress

import numpy as np

from fastelbo import _threads
from fastelbo._arguments import as_number, as_whole, positive_number
from fastelbo._named import LIKELIHOODS, as_likelihood
from fastelbo._network import PRIORS
from fastelbo.bernoulli import Bernoulli
from fastelbo.discrete import Categorical
from fastelbo.likelihoods import digits
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
    """The Likelihood that is trained: of a name, or a copy, which `set_params` does not reach."""
    chosen = copy.copy(as_likelihood(chosen))
    if chosen._layout.more_axes:
        way = "choose one of the others"
        if isinstance(chosen, Categorical):
            way = "ColumnLikelihood([(Categorical(5), slice(None))]) takes codes of five classes"
        raise ValueError(
            f"likelihood {chosen!r} needs decoder outputs with an axis of classes or components, "
            f"which a dense decoder to the shape of X does not have: {way}"
        )
    for part in chosen._members():
        if "probs" in part.parameters:
            raise ValueError(
                f"likelihood {part!r} needs probabilities, but the decoder of VAE gives any "
                "numbers: use Bernoulli(), which reads them as logits"
            )
        if part.x_scale != 1:
            raise ValueError("likelihood has an x_scale, which only it would see: scale X instead")
    return chosen


def as_beta(beta):
    """The weight of the KL as a function of the step: that of a schedule, or a number."""
    return _of_step(beta, "beta", lambda value, name: as_number(value, name, 0))


def as_learning_rate(learning_rate):
    """The learning rate as a function of the step; that of a schedule may come down to 0."""
    return _of_step(learning_rate, "learning_rate", positive_number)


def _of_step(value, name, checked):
    if isinstance(value, type):
        raise TypeError(f"{name} must be a number or a function, got the class {value.__name__}")
    if callable(value):
        return lambda step: as_number(value(step), f"{name}({step})", 0)
    constant = checked(value, name)
    return lambda step: constant


def check_optimizer(model):
    """Complain about the parameters of a model that say how it climbs."""
    as_whole(model.batch_size, "batch_size", 1)
    as_learning_rate(model.learning_rate)
    as_number(model.weight_decay, "weight_decay", 0)
    if model.max_grad_norm is not None:
        positive_number(model.max_grad_norm, "max_grad_norm")
    as_beta(model.beta)
    _threads.check(model.num_threads)


def check_same_network(visible, before):
    """Complain unless a network made for the visible side `before` serves this one."""
    if (visible.fill is None) != (before.fill is None):
        raise ValueError("missing has changed since training began, which takes another network")
    if not visible.same(before):
        raise ValueError(
            f"likelihood {visible.likelihood!r} takes another network than {before.likelihood!r}, "
            "with which training began: begin anew by fit, with warm_start=False"
        )


def prior_of_network(chosen, latent_dim):
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


def check_domain(X, likelihood, name="X", numbers=None):
    """Complain about the first value of X that the likelihood has no density for.

    `numbers` are those of its rows, where they are some of all.
    """
    for block in likelihood._blocks(X.shape[1]):
        part, some = block.likelihood, X[:, block.columns]
        if any(p.ndim == X.ndim and len(p) > 1 for p in part._own):
            raise ValueError(
                f"likelihood has {part._by_sample or part._own_name} for each sample, but VAE "
                "draws minibatches of its own: give one a feature, or train with "
                "log_prob_and_grad of each batch"
            )
        if part._own:  # complains if they do not fit the features
            part._own_parameters(some.shape, 1, X.dtype)
        outside = part._is_outside(some) & ~np.isnan(some)
        if part.validate and outside.any():
            way_out = "fit with a likelihood that takes such data: " + ", ".join(_taking(some))
            if part._domain == Bernoulli._domain:
                way_out = (
                    f"scale {name} by MinMaxScaler(clip=True), data to come, too, or {way_out}"
                )
            raise ValueError(
                f"{_first(X, block, outside, name, numbers)} lies outside the domain of "
                f"{type(part).__name__}, {part._domain}: {way_out}"
            )
    check_seen(X, likelihood, name, numbers)


def check_seen(X, likelihood, name="X", numbers=None):
    """Complain about the first value of X that the encoder cannot see, whatever its density."""
    for block in likelihood._blocks(X.shape[1]):
        if block.likelihood._of_counts and (unseen := X[:, block.columns] <= -1).any():
            raise ValueError(
                f"{_first(X, block, unseen, name, numbers)} has no log(1 + {name}), which is what "
                "the encoder sees of counts"
            )


def _first(X, block, wrong, name, numbers):
    row, at = np.argwhere(wrong)[0]
    column, number = block.numbers[at], row if numbers is None else numbers[row]
    return f"{name}[{number}, {column}] = {digits(X[row, column])}"


def trained_names():
    """The likelihoods that are trained and have a name."""
    names = []
    for name in LIKELIHOODS:
        with suppress(ValueError):
            trained_likelihood(name)
            names.append(name)
    return names


def _taking(X):
    """The names of those whose domain X is in, as arguments."""
    names = [name for name in trained_names() if not LIKELIHOODS[name]()._is_outside(X).any()]
    return [f'likelihood="{name}"' for name in names]
