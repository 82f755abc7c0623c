"""The files of ``fastelbo.VAE``: JSON and arrays in an .npz, and no pickle.

An object of fastelbo is written as the name of its class and the arguments of its constructor,
which it keeps under their names.
"""

import inspect
import math
import sys
from numbers import Integral

import numpy as np

from fastelbo._arguments import as_whole
from fastelbo._files import DAMAGE, name_of, read_arrays, write_arrays
from fastelbo._network import restored
from fastelbo._vae_settings import as_dtype, as_prior, positive_outputs, trained_likelihood, widths
from fastelbo.divergences import FreeBits
from fastelbo.likelihoods import Likelihood
from fastelbo.posterior import noise_key
from fastelbo.priors import MixtureOfGaussians, StandardNormal, VampPrior

#: Of what is not a number, a string or an array, but can be an argument.
_OWN = (FreeBits, Likelihood, MixtureOfGaussians, StandardNormal, VampPrior)

KIND, VERSION = "fastelbo.VAE", 3
HEADER = (
    *("kind", "version", "parameters", "network", "scored_by"),
    *("steps", "history", "generator", "score_key"),
)
HISTORY = ("elbo", "reconstruction", "kl")
NETWORK = ("features", "hidden", "latent_dim", "dtype", "prior", "prior_components")


def _own_class(name):
    """The public class of that name, if it is one that a parameter may be of; else KeyError."""
    kind = getattr(sys.modules["fastelbo"], name, None)
    if not (isinstance(kind, type) and issubclass(kind, _OWN)):
        raise KeyError(name)
    return kind


def _described(value, name, arrays):
    """What JSON can hold of a value; what it cannot comes into `arrays`, under `name` and more."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    kind = type(value)
    if issubclass(kind, _OWN) and kind.__module__.startswith("fastelbo."):
        arguments = {
            argument: _described(getattr(value, argument), f"{name}.{argument}", arrays)
            for argument in inspect.signature(kind).parameters
        }
        return {"class": kind.__name__, "arguments": arguments}
    if isinstance(value, list | tuple):
        return [_described(item, f"{name}.{i}", arrays) for i, item in enumerate(value)]
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"save knows no {kind.__name__} as {name}, only fastelbo's own classes")
    arrays[name] = array
    return {"array": name}


def _value_of(description, arrays):
    """What `_described` described; arrays are taken out of `arrays`."""
    if isinstance(description, list):
        return tuple(_value_of(item, arrays) for item in description)
    if not isinstance(description, dict):
        return description
    if "array" in description:
        return arrays.pop(description["array"])[()]
    arguments = description["arguments"].items()
    return _own_class(description["class"])(
        **{name: _value_of(argument, arrays) for name, argument in arguments}
    )


def save(model, path):
    """Write a fitted VAE."""
    model._check_parameters()
    parameters = model.get_params()
    if not isinstance(model.random_state, Integral):
        parameters["random_state"] = None
    network = model._model
    arrays = dict(network.arrays())
    parts = {
        "parameters": parameters,
        # Parameters may have been set anew, for the next fit: this is what was trained.
        "network": {
            "features": network.features,
            "hidden": network.hidden,
            "latent_dim": network.latent_dim,
            "dtype": network.dtype.name,
            "prior": network.given_prior or network.prior_kind,
            "prior_components": network.components,
        },
        "scored_by": {"likelihood": model.likelihood_},
    }
    header = {
        part: {name: _described(value, f"{part}.{name}", arrays) for name, value in values.items()}
        for part, values in parts.items()
    }
    header |= {
        "steps": network.adam.steps,
        "history": model.history_,
        "generator": model._generator.bit_generator.state,
        "score_key": model._score_key,
    }
    write_arrays(path, KIND, VERSION, header, arrays)


def load(kind, path):
    """The VAE, of this class, that `save` wrote."""
    header, arrays = read_arrays(path, KIND, VERSION)
    try:
        return _loaded(kind, header, arrays)
    except DAMAGE as error:
        problem = f"its parts do not fit ({str(error) or type(error).__name__})"
        raise ValueError(f"{name_of(path)} cannot be loaded: {problem}") from None


def _loaded(kind, header, arrays):
    """The same, of what was in the file; every field is checked before the network is made."""
    _check_names(header, HEADER, "header")
    parameters, network, scored_by = (
        {name: _value_of(description, arrays) for name, description in header[part].items()}
        for part in ("parameters", "network", "scored_by")
    )
    _check_names(parameters, kind._defaults(), "parameters")
    _check_names(network, NETWORK, "network")
    model = kind(**parameters)
    model._check_parameters()
    likelihood = trained_likelihood(scored_by["likelihood"])
    latent_dim = as_whole(network["latent_dim"], "latent_dim", 1)
    features = as_whole(header["network"]["features"], "features", 1)
    likelihood._own_parameters((1, features), 1, np.float64)  # complains if they do not fit
    restoring = (
        features,
        widths(network["hidden"]),
        latent_dim,
        len(likelihood.parameters),
        as_dtype(network["dtype"]),
        as_prior(network["prior"], latent_dim),
        as_whole(network["prior_components"], "prior_components", 1),
        positive_outputs(likelihood),
        likelihood._of_counts,
    )
    model.likelihood_ = likelihood
    model.history_ = _checked_history(header["history"])
    model._generator = np.random.default_rng()
    model._generator.bit_generator.state = header["generator"]
    model._score_key = noise_key(as_whole(header["score_key"], "score_key", 0))
    model.n_features_in_ = features
    steps = as_whole(header["steps"], "steps", 0)
    model._model = restored(restoring, steps, arrays)
    _check_names(arrays, model._model.arrays(), "arrays")
    return model


def _check_names(found, wanted, what):
    if set(found) != set(wanted):
        odd = sorted(set(found) ^ set(wanted))
        raise ValueError(f"{what}: {', '.join(odd)} unknown or missing")


def _checked_history(history):
    """Lists of as many finite numbers each."""
    _check_names(history, HISTORY, "history")
    if len({len(values) for values in history.values()}) != 1:
        raise ValueError("history: lists of different lengths")
    for name, values in history.items():
        if not all(type(value) is float and math.isfinite(value) for value in values):
            raise ValueError(f"history: {name} is no list of finite numbers")
    return {name: history[name] for name in HISTORY}
