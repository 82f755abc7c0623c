"""Dicts by modality: the checks of their names, and errors that give them."""

from collections.abc import Mapping
from contextlib import contextmanager

from fastelbo._arguments import check_choice, shown


def names_of(modalities, argument):
    """The names of a dict, which has some."""
    if not isinstance(modalities, Mapping):
        raise TypeError(f"{argument} must be a dict by modality, got {shown(modalities)}")
    if not modalities:
        raise ValueError(f"{argument} is empty: there is no modality")
    for name in modalities:
        if not isinstance(name, str):
            raise TypeError(f"{argument} must have names as keys, got {shown(name)}")
    return tuple(modalities)


def by_name(values, argument, names):
    """A dict some of whose modalities there are; None is an empty one."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TypeError(f"{argument} must be a dict by modality, got {shown(values)}")
    for name in values:
        check_choice(name, f"a name in {argument}", tuple(names))
    return values


@contextmanager
def naming(place):
    """Errors within name the place, too."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from None
