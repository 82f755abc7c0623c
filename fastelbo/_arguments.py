"""What arguments may be that are no arrays: one checker a kind, which names the argument.

A wrong type is a TypeError, a value out of range a ValueError; each says what came and what was
expected.
"""

import difflib
import math
import sys
from numbers import Real
from operator import index

import numpy as np

from fastelbo import _arrays


def shown(value):
    """A value in an error: itself, or what it is where that would be long."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an int of {value.bit_length()} bits"
    try:
        text = repr(value)
    except ValueError:  # an int in it has more digits than Python writes
        return type(value).__name__
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def check_choice(value, name, choices):
    """Complain unless value is one of some words, or None where that is among them."""
    if (isinstance(value, str) or value is None) and value in choices:
        return
    wanted = " or ".join(f'"{word}"' if isinstance(word, str) else str(word) for word in choices)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}")
    close = difflib.get_close_matches(value, [word for word in choices if word], 1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"{name} must be {wanted}, got {value!r}{meant}")


def as_number(value, name, least=None):
    """A Python float; finite and at least so much where that is said.

    Of nothing that has a gradient, which would be lost.
    """
    if type(value) is not float:
        if getattr(value, "requires_grad", False):
            raise TypeError(f"{name} cannot be differentiated: give a number, or detach it")
        number = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
        if isinstance(number, bool | np.bool_) or not isinstance(number, Real):
            raise TypeError(f"{name} must be a number, got {shown(value)}")
        try:
            value = float(number)
        except OverflowError:
            raise ValueError(f"{name} is larger than a float64 can be") from None
    if least is not None and not least <= value < math.inf:
        kind = "not negative" if least == 0 else f"at least {least}"
        raise ValueError(f"{name} must be finite and {kind}, got {value}")
    return value


def positive_number(value, name):
    """A positive finite Python float."""
    number = as_number(value, name)
    if not 0 < number < math.inf:  # not isfinite, which torch.compile cannot trace
        raise ValueError(f"{name} must be positive and finite, got {number}")
    return number


def as_numbers(value, name):
    """A float64 array of numbers, of its own; booleans are none."""
    array = np.array(_arrays.as_floats(value, name), np.float64)
    if np.asarray(value).dtype == np.bool_:
        raise TypeError(f"{name} must be numbers, got {shown(value)}")
    return array


def as_whole(value, name, least, *, optional=False):
    """A Python int of at least so much that could count something; None if that is an option."""
    if type(value) is int and least <= value <= sys.maxsize:
        return value
    if optional and value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        count = index(value)
    except TypeError:
        kind = "an int or None" if optional else "an int"
        raise TypeError(f"{name} must be {kind}, got {shown(value)}") from None
    if not least <= count <= sys.maxsize:
        bound = f"least {least}" if count < least else f"most {sys.maxsize}"
        raise ValueError(f"{name} must be at {bound}, got {shown(count)}")
    return count


def as_flag(value, name):
    """A bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


#: Larger weights, and smaller ones than its inverse, are multiplied by after a pass: float32 holds
#: little more.
MOST_WEIGHT = 1e30


def share_of(weight):
    """The power of two by which a weight above 1 becomes about 1, so that nothing is rounded."""
    return math.ldexp(1.0, -max(0, math.frexp(weight)[1] - 1))


def weighed(weight, value):
    """weight * value, of which a weight of 0 leaves nothing, even of infinity; NaN stays."""
    if weight == 0:
        finite = np.where(np.isinf(value), 0.0, value)
        value = finite if finite.ndim else float(finite)
    return weight * value
