"""The files of ``fastelbo.VAE``: JSON and arrays in an .npz, and no pickle.

What does not depend on the networks serves other models, too (``_count_files.py``,
``_class_files.py``). An object of fastelbo is written as the name of its class and the arguments of
its constructor, which it keeps under their names.
"""

import inspect
import math
import sys
from numbers import Integral

import numpy as np

from fastelbo._arguments import as_whole
from fastelbo._files import DAMAGE, name_of, read_arrays, write_arrays
from fastelbo._network import Autoencoder, check_activation, restored
from fastelbo._vae_settings import (
    as_dtype,
    prior_of_network,
    trained_likelihood,
    widths,
)
from fastelbo._vae_training import HISTORY, VALIDATION
from fastelbo._visible import Visible
from fastelbo.divergences import FreeBits
from fastelbo.likelihoods import Likelihood
from fastelbo.posterior import noise_key
from fastelbo.priors import MixtureOfGaussians, StandardNormal, VampPrior
from fastelbo.schedules import BetaSchedule, LearningRateSchedule

#: Of what is not a number, a string or an array, but can be an argument.
_OWN = (
    *(BetaSchedule, FreeBits, LearningRateSchedule, Likelihood),
    *(MixtureOfGaussians, StandardNormal, VampPrior),
)

KIND, VERSION = "fastelbo.VAE", 5
#: What every model has in its header, and what of its network.
HEADER = (
    *("kind", "version", "parameters", "network", "scored_by"),
    *("steps", "history", "generator", "feature_names"),
)
NETWORK = ("features", "hidden", "latent_dim", "dtype", "activation")


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
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
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
        raise TypeError(
            f"save knows no {kind.__name__} as {name}, only fastelbo's own classes: give one of "
            "those by set_params before"
        )
    arrays[name] = array
    return {"array": name}


def _value_of(description, arrays):
    """What `_described` described; arrays are taken out of `arrays`."""
    if isinstance(description, list):
        return tuple(_value_of(item, arrays) for item in description)
    if not isinstance(description, dict):
        return description
    if "slice" in description:
        return slice(*description["slice"])
    if "array" in description:
        return arrays.pop(description["array"])[()]
    arguments = description["arguments"].items()
    return _own_class(description["class"])(
        **{name: _value_of(argument, arrays) for name, argument in arguments}
    )


def save(model, path):
    """Write a fitted VAE."""
    network = model._model
    for name, given in network.given.items():
        if given is not None:
            raise TypeError(
                f"save knows no networks of one's own such as the {name}, {type(given).__name__}: "
                f"pickle the model, or keep the arrays of {name}_.parameters() yourself"
            )
    write_density(path, KIND, VERSION, model, {"fill": network.visible.fill}, {})


def write_density(path, kind, version, model, own, more):
    """Write a fitted model of an `Autoencoder`, `own` and `more` as for `write_model`."""
    network = model._model
    own["prior"] = network.given_prior or network.prior_kind
    own["prior_components"] = network.components
    write_model(path, kind, version, model, own, {"score_key": model._score_key, **more})


def write_model(path, kind, version, model, own, more):
    """Write a fitted model; `own` is of its network and `more` of its header beyond what all have.

    Parameters may have been set anew, for the next fit: the network is what was trained.
    """
    model._check_parameters()
    parameters = model.get_params(deep=False)
    told = {"callbacks": None, "dtype": as_dtype(model.dtype).name}
    if not isinstance(model.random_state, Integral):
        told["random_state"] = None
    parameters |= {name: value for name, value in told.items() if name in parameters}
    network = model._model
    arrays = dict(network.arrays())
    parts = {
        "parameters": parameters,
        "network": {
            "features": network.visible.features,
            "hidden": network.hidden,
            "latent_dim": network.latent_dim,
            "dtype": network.dtype.name,
            "activation": network.activation,
            **own,
        },
        "scored_by": {"likelihood": model.likelihood_},
    }
    header = {
        part: {name: _described(value, f"{part}.{name}", arrays) for name, value in values.items()}
        for part, values in parts.items()
    }
    header |= {
        "steps": network.adam.steps,
        "history": {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in model.history_.items()
        },
        "generator": model._generator.bit_generator.state,
        "feature_names": list(getattr(model, "feature_names_in_", ())),
        **more,
    }
    write_arrays(path, kind, version, header, arrays)


def load(cls, path):
    """The VAE, of this class, that `save` wrote."""

    def loaded(header, arrays):
        return density(cls, Autoencoder, header, arrays, ("fill",), (), _visible)

    return read_model(path, KIND, VERSION, loaded)


def read_model(path, kind, version, loaded):
    """What `loaded` makes of the header and arrays of a file; whatever is wrong is its damage."""
    header, arrays = read_arrays(path, kind, version)
    try:
        return loaded(header, arrays)
    except DAMAGE as error:
        problem = f"its parts do not fit ({str(error) or type(error).__name__})"
        raise ValueError(f"{name_of(path)} cannot be loaded: {problem}") from None


def begun(cls, header, arrays, own, more, history, visible_of):
    """(a model, its network as arguments of one, steps), of what was in a file.

    Every field that all have is checked before a network is made; `own` and `more` are the names
    of what not all have, and `history` those of the figures. ``visible_of(likelihood, features,
    header, network)`` makes the visible side, and takes what is of it alone out of `network`.
    """
    check_names(header, (*HEADER, *more), "header")
    parameters, network, scored_by = (
        {name: _value_of(description, arrays) for name, description in header[part].items()}
        for part in ("parameters", "network", "scored_by")
    )
    check_names(parameters, cls().get_params(deep=False), "parameters")
    check_names(network, (*NETWORK, *own), "network")
    model = cls(**parameters)
    model._check_parameters()
    likelihood = trained_likelihood(scored_by["likelihood"])
    del network["features"]
    features = as_whole(header["network"]["features"], "features", 1)
    for block in likelihood._blocks(features):  # complains if they do not fit
        block.likelihood._own_parameters((1, block.count), 1, np.float64)
    check_activation(network["activation"])
    network |= {
        "visible": visible_of(likelihood, features, header, network),
        "hidden": widths(network["hidden"]),
        "latent_dim": as_whole(network["latent_dim"], "latent_dim", 1),
        "dtype": as_dtype(network["dtype"]),
    }
    model.likelihood_ = likelihood
    model.history_ = _checked_history(header["history"], history)
    model._generator = np.random.default_rng()
    model._generator.bit_generator.state = header["generator"]
    model.n_features_in_ = features
    if names := header["feature_names"]:
        model.feature_names_in_ = _checked_names(names, features)
    return model, network, as_whole(header["steps"], "steps", 0)


def density(cls, kind, header, arrays, own, more, visible_of):
    """The same model of an `Autoencoder` of that kind, of what was in its file.

    ``visible_of(likelihood, features, header, network)`` makes its visible side.
    """
    own, more = (*own, "prior", "prior_components"), (*more, "score_key")
    validated = "val_elbo" in header["history"]
    history = HISTORY + VALIDATION if validated else HISTORY
    model, network, steps = begun(cls, header, arrays, own, more, history, visible_of)
    model._score_key = noise_key(as_whole(header["score_key"], "score_key", 0))
    network["components"] = as_whole(network.pop("prior_components"), "prior_components", 1)
    network["prior"] = prior_of_network(network["prior"], network["latent_dim"])
    model._model = restored(kind, network, steps, arrays)
    check_names(arrays, model._model.arrays(), "arrays")
    return model


def _visible(likelihood, features, header, network):
    """What networks see, a number standing for what is missing of each column of numbers."""
    fill, dtype = network.pop("fill"), network["dtype"]
    visible = Visible(likelihood, features, fill)
    if fill is not None and not (
        isinstance(fill, np.ndarray)
        and (fill.shape, fill.dtype) == ((visible.numbers,), dtype)
        and np.isfinite(fill).all()
    ):
        raise ValueError(f"fill: no {visible.numbers} finite numbers")
    return visible


def check_names(found, wanted, what):
    if set(found) != set(wanted):
        odd = sorted(set(found) ^ set(wanted))
        raise ValueError(f"{what}: {', '.join(odd)} unknown or missing")


def _checked_names(names, features):
    """A name for each feature."""
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("feature_names: they are no strings")
    if len(names) != features:
        raise ValueError(f"feature_names: {len(names)} of {features} features")
    return np.array(names, object)


def _checked_history(history, names):
    """Lists of as many finite numbers each; of rows held out there may be none."""
    check_names(history, names, "history")
    if len({len(values) for values in history.values()}) != 1:
        raise ValueError("history: lists of different lengths")
    for name, values in history.items():
        numbers = [math.nan if v is None and name in VALIDATION else v for v in values]
        if not all(type(v) in (int, float) and not math.isinf(v) for v in numbers):
            raise ValueError(f"history: {name} is no list of finite numbers")
        history[name] = numbers
    return history
