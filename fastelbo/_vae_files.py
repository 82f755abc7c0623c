"""The files of ``fastelbo.VAE``: JSON and arrays in an .npz, and no pickle.

An object of fastelbo is written as the name of its class and the arguments of its constructor,
which it keeps under their names.
"""

import inspect
import math
import sys
from numbers import Integral

import numpy as np

from fastelbo._files import read_arrays, write_arrays
from fastelbo._network import restored
from fastelbo._vae_settings import as_prior, positive_outputs
from fastelbo.divergences import FreeBits
from fastelbo.likelihoods import Likelihood
from fastelbo.priors import MixtureOfGaussians, StandardNormal, VampPrior

#: Of what is not a number, a string or an array, but can be an argument.
_OWN = (FreeBits, Likelihood, MixtureOfGaussians, StandardNormal, VampPrior)

KIND, VERSION = "fastelbo.VAE", 2


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
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"save knows no {kind.__name__}, only fastelbo's own classes")
    arrays[name] = array
    return {"array": name}


def _value_of(description, arrays):
    """What `_described` described."""
    if not isinstance(description, dict):
        return description
    if "array" in description:
        return arrays[description["array"]][()]
    arguments = description["arguments"].items()
    return _own_class(description["class"])(
        **{name: _value_of(argument, arrays) for name, argument in arguments}
    )


def save(model, path):
    """Write a fitted VAE."""
    parameters = model.get_params()
    parameters["dtype"] = model._model.dtype.name
    if not isinstance(model.random_state, Integral):
        parameters["random_state"] = None
    del parameters["hidden"]
    if model._model.given_prior is not None:  # the caller may have changed the one it is a copy of
        parameters["prior"] = model._model.given_prior
    arrays = dict(model._model.arrays())
    header = {
        "parameters": {name: _described(value, name, arrays) for name, value in parameters.items()},
        "hidden": model._model.hidden,
        "features": model.n_features_in_,
        "scored_by": _described(model.likelihood_, "scored_by", arrays),
        "steps": model._model.adam.steps,
        "history": model.history_,
        "generator": model._generator.bit_generator.state,
        "score_key": model._score_key,
    }
    write_arrays(path, KIND, VERSION, header, arrays)


def load(kind, path):
    """The VAE, of this class, that `save` wrote."""
    header, arrays = read_arrays(path, KIND, VERSION)
    try:
        parameters = {
            name: _value_of(description, arrays)
            for name, description in header["parameters"].items()
        }
        model = kind(hidden=tuple(header["hidden"]), **parameters)
        model.likelihood_ = _value_of(header["scored_by"], arrays)
        shape = (
            header["features"],
            model.hidden,
            model.latent_dim,
            len(model.likelihood_.parameters),
            model.dtype,
            as_prior(model.prior, model.latent_dim),
            model.prior_components,
            positive_outputs(model.likelihood_),
            model.likelihood_._of_counts,
        )
        model._model = restored(shape, header["steps"], arrays)
        model._generator = np.random.default_rng()
        model._generator.bit_generator.state = header["generator"]
        model._score_key = header["score_key"]
        model.history_ = header["history"]
        model.n_features_in_ = header["features"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be loaded: its parts do not fit ({error})") from None
    return model
