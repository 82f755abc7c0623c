"""The files of ``fastelbo.CountVAE``: as those of ``fastelbo.VAE``, and the labels of batches."""

import numpy as np

from fastelbo._count_network import LIKELIHOODS, CountAutoencoder, CountVisible
from fastelbo._vae_files import density, read_model, write_density

KIND, VERSION = "fastelbo.CountVAE", 1


def save(model, path):
    """Write a fitted model."""
    labels = model.batches_
    more = {"batches": None if labels is None else labels.tolist()}
    write_density(path, KIND, VERSION, model, {}, more)


def load(cls, path):
    """The model, of this class, that `save` wrote."""

    def loaded(header, arrays):
        return density(cls, CountAutoencoder, header, arrays, (), ("batches",), _visible)

    return read_model(path, KIND, VERSION, loaded)


def _visible(likelihood, features, header, network):
    known = {make().parameters for make in LIKELIHOODS.values()}
    if likelihood.parameters not in known:
        raise ValueError(f"likelihood: {likelihood!r} is not of counts by their means")
    labels = header["batches"]
    if labels is not None:
        labels = np.array(labels)
        if not (labels.ndim == 1 and labels.size and labels.dtype.kind in "iU"):
            raise ValueError("batches: no list of integers or strings")
        if not np.array_equal(np.unique(labels), labels):
            raise ValueError("batches: not in order, each once")
    return CountVisible(likelihood, features, labels)
