"""The files of ``fastelbo.SemiSupervisedVAE``: as those of ``fastelbo.VAE``, and the classes."""

import numpy as np

from fastelbo._class_network import ClassAutoencoder
from fastelbo._network import restored
from fastelbo._vae_files import begun, check_names, read_model, write_model
from fastelbo._visible import Visible
from fastelbo.semi_supervised_vae import HISTORY

KIND, VERSION = "fastelbo.SemiSupervisedVAE", 1


def save(model, path):
    """Write a fitted model."""
    classes = model.classes_.tolist()  # Python's numbers or strings, in which JSON is as exact
    if not all(isinstance(label, bool | int | float | str) for label in classes):
        raise TypeError(f"save knows no labels of dtype {model.classes_.dtype}: numbers or strings")
    more = {"classes": classes, "labels": model.classes_.dtype.str}
    write_model(path, KIND, VERSION, model, {}, more)


def load(cls, path):
    """The model, of this class, that `save` wrote."""
    return read_model(path, KIND, VERSION, lambda *parts: _loaded(cls, *parts))


def _loaded(cls, header, arrays):
    def visible_of(likelihood, features, *_):
        return Visible(likelihood, features)

    more = ("classes", "labels")
    model, network, steps = begun(cls, header, arrays, (), more, HISTORY, visible_of)
    if model.likelihood_._couples_rows():
        raise ValueError('likelihood: its scale is "optimal"')
    labels = header["classes"]
    model.classes_ = np.array(labels, np.dtype(str(header["labels"])))
    if model.classes_.tolist() != labels or not 2 <= len(set(labels)) == len(labels):
        raise ValueError("classes: no list of different labels of one kind")
    network["classes"] = len(labels)
    model._model = restored(ClassAutoencoder, network, steps, arrays)
    check_names(arrays, model._model.arrays(), "arrays")
    return model
