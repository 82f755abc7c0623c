"""Whatever decodes, as one function: z (N, L) -> (outputs, the way back from their gradients)."""

import sys

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import shown


def is_vae(model):
    """Whether it is a VAE, of a module that is imported only with the first of them."""
    module = sys.modules.get("fastelbo.vae")
    return module is not None and isinstance(model, module.VAE)


def is_model(decoder):
    """The same of any model here, VAE or SemiSupervisedVAE."""
    module = sys.modules.get("fastelbo._trained")
    return module is not None and isinstance(decoder, module.TrainedModel)


def as_decoder(decoder, x):
    """``decode(z, rows) -> (outputs, pullback)`` of a model, a module of PyTorch, an object or a
    function; `rows` are the numbers of the x that z belongs to, once a sample.

    Outputs are a tuple of arrays of N rows, and ``pullback(*gradients)`` is the gradient of z; both
    have been checked.
    """
    if is_model(decoder):
        return decoder._decoder_of(x)
    decode = _checked(_decode(decoder))
    return lambda z, rows: decode(z)


def _decode(decoder):
    """``decode(z) -> (outputs, pullback)``, unchecked."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(decoder, torch.nn.Module):
        return _of_module(torch, decoder)
    if isinstance(decoder, type) or not (callable(decoder) or hasattr(decoder, "forward")):
        raise TypeError(
            "decoder must be a fitted VAE or SemiSupervisedVAE, a torch.nn.Module, an object with "
            f"forward and backward, or a function z -> (outputs, pullback), got {shown(decoder)}"
        )
    if hasattr(decoder, "backward"):
        forward = getattr(decoder, "forward", decoder)
        return lambda z: (forward(z), decoder.backward)
    return decoder


def _of_module(torch, module):
    """A module's outputs, and autograd's way back to z; parameters' gradients stay as they are."""
    some = next(module.parameters(), torch.empty(0))

    def decode(z):
        with torch.enable_grad():
            leaf = torch.tensor(z, device=some.device, dtype=some.dtype, requires_grad=True)
            outputs = module(leaf)
        outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)

        def pullback(*gradients):
            pairs = [
                (output, torch.as_tensor(gradient, device=output.device, dtype=output.dtype))
                for output, gradient in zip(outputs, gradients, strict=True)
                if output.requires_grad
            ]
            if not pairs:
                raise ValueError("decoder: its output does not depend on z, as autograd sees it")
            (by_z,) = torch.autograd.grad([o for o, _ in pairs], leaf, [g for _, g in pairs])
            return by_z.cpu().numpy()

        return tuple(output.detach().cpu().numpy() for output in outputs), pullback

    return decode


def _checked(decode):
    """The same, complaining about what does not fit or is not a number."""

    def checked(z):
        given = decode(z)
        if not (isinstance(given, tuple) and len(given) == 2 and callable(given[1])):
            raise TypeError(
                "decoder must return (outputs, pullback), or have a backward that gives the "
                f"gradient of z; it returned {shown(given)}"
            )
        outputs, pullback = given
        outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)
        outputs = tuple(_numbers(output, "decoder: its output") for output in outputs)
        for output in outputs:
            if output.ndim < 2 or len(output) != len(z):
                wanted = f"{len(z)} rows, one for each of z"
                raise _arrays.shape_error("decoder: its output", output.shape, wanted)

        def pull(*gradients):
            given = all(np.isfinite(gradient).all() for gradient in gradients)
            read = _numbers if given else _arrays.as_floats  # NaN of overflow is not the decoder's
            by_z = read(pullback(*gradients), "decoder: its gradient of z")
            if by_z.shape != z.shape:
                wanted = f"that of z, {z.shape}"
                raise _arrays.shape_error("decoder: its gradient of z", by_z.shape, wanted)
            return by_z

        return outputs, pull

    return checked


def _numbers(array, name):
    array = _arrays.as_floats(array, name)
    if np.isnan(array).any():
        raise ValueError(f"{name} has NaN at {tuple(map(int, np.argwhere(np.isnan(array))[0]))}")
    return array
