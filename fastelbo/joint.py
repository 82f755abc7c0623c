"""One posterior of several modalities, q(z|x_1..M), of experts that go by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_flag, check_choice, shown
from fastelbo._modalities import by_name, names_of, naming
from fastelbo.divergences import GaussianGrad
from fastelbo.experts import mopoe, mopoe_backward, product_of_experts, product_of_experts_backward
from fastelbo.likelihoods import is_word
from fastelbo.posterior import noise_key, reparameterize, reparameterize_backward

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from fastelbo._typing import FloatArray, Rng, Threads

METHODS = ("poe", "moe", "mopoe")


class JointPosterior(NamedTuple):
    """A mixture of S Gaussians for each sample, and a draw z of one of them."""

    mu: FloatArray
    logvar: FloatArray
    mask: NDArray[np.bool_]
    component: NDArray[np.intp]
    z: FloatArray


def joint_posterior(
    experts: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    method: Literal["poe", "moe", "mopoe"] = "poe",
    present: Mapping[str, ArrayLike] | None = None,
    prior: bool | Literal["full"] = True,
    component: ArrayLike | None = None,
    rng: Rng = None,
    noise: ArrayLike | None = None,
    num_threads: Threads = None,
) -> JointPosterior:
    """The posterior q(z|x_1..M) of several modalities, made of q(z|x_m), and a draw of it.

    Parameters
    ----------
    experts : dict of str to (mu, logvar), (B, L) each
        What each modality's encoder gives.
    method : {"poe", "moe", "mopoe"}
        ``"poe"``, the product of the experts [1]_: one Gaussian. ``"moe"``, their mixture [2]_.
        ``"mopoe"``, the mixture of the products of all subsets [3]_. Of a mixture each sample draws
        one component, those that count being equally likely: an unbiased estimate, at the cost of
        a single pass through the decoders.
    present : dict of str to array_like of bool, shape (B,), optional
        True where a sample has the modality; one that is not named is always there. What is missing
        is never read.
    prior : bool or "full", optional
        N(0, I) is one more factor of each product. With ``"poe"``, a sample without any modality
        has the prior then. ``"full"``, for ``"mopoe"``: of the product of all, as in
        :func:`mopoe`.
    component : array_like of int, shape (B,), optional
        The component of each sample, instead of a draw.
    rng : int, numpy.random.Generator, optional
        For the component and for z.
    noise : array_like, shape (B, L), optional
        eps itself; then `component` must be given, too, unless there is but one.
    num_threads : int, optional

    Returns
    -------
    JointPosterior
        ``mu`` and ``logvar`` (S, B, L), and ``mask`` (S, B), which of them count for a sample
        (others are N(0, I)): the components that :func:`multimodal_elbo` takes. ``component`` (B,),
        and ``z`` (B, L), for the decoders.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, a modality has no data or no such name, or a
        sample has none of them and no prior to go by.

    References
    ----------
    .. [1] Wu, Goodman. Multimodal generative models for scalable weakly-supervised learning.
       NeurIPS 2018.
    .. [2] Shi, Siddharth, Paige, Torr. Variational mixture-of-experts autoencoders for multi-modal
       deep generative models. NeurIPS 2019.
    .. [3] Sutter, Daunhawer, Vogt. Generalized multimodal ELBO. ICLR 2021.

    See Also
    --------
    product_of_experts, mopoe : what it is made of.
    mixture_of_experts : the log density of the mixture.

    Examples
    --------
    >>> import fastelbo
    >>> experts = {"image": ([[3.0]], [[0.0]]), "text": ([[0.0]], [[0.0]])}
    >>> q = fastelbo.joint_posterior(experts, noise=[[0.0]])
    >>> q.mu.ravel(), q.z
    (array([1.]), array([[1.]]))
    >>> alone = fastelbo.joint_posterior(experts, present={"text": [False]}, noise=[[0.0]])
    >>> alone.z
    array([[1.5]])
    """
    mu, logvar, seen = stacked(experts, method, present, prior)
    if method == "poe":
        product = product_of_experts(mu, logvar, mask=seen, prior=prior, num_threads=num_threads)
        mu, logvar = (a[None] for a in product)
        mask = np.ones(mu.shape[:2], bool)
    elif method == "mopoe":
        mu, logvar, mask = mopoe(mu, logvar, mask=seen, prior=prior, num_threads=num_threads)
    else:
        mask = seen
        mu[~mask] = logvar[~mask] = 0
    if noise is None:
        rng = noise_key(rng)
    component = chosen(component, mask, rng)
    rows = np.arange(mu.shape[1])
    own = mu[component, rows], logvar[component, rows]
    z = reparameterize(*own, rng=rng, noise=noise, num_threads=num_threads)
    return JointPosterior(mu, logvar, mask, component, z)


def joint_posterior_backward(
    grad_z: ArrayLike,
    grad_mu: ArrayLike,
    grad_logvar: ArrayLike,
    experts: Mapping[str, tuple[ArrayLike, ArrayLike]],
    posterior: JointPosterior,
    *,
    method: Literal["poe", "moe", "mopoe"] = "poe",
    present: Mapping[str, ArrayLike] | None = None,
    prior: bool | Literal["full"] = True,
    num_threads: Threads = None,
) -> dict[str, GaussianGrad]:
    """Gradients of the experts from those of z and of the components: the way back.

    Parameters
    ----------
    grad_z : array_like, shape (B, L)
        What the decoders' backward makes of the gradients of x_recon, summed over them.
    grad_mu, grad_logvar : array_like, shape (S, B, L)
        Those of :func:`multimodal_elbo_and_grad`.
    experts : dict of str to (mu, logvar)
        As given to :func:`joint_posterior`.
    posterior : JointPosterior
        What that returned.
    method, present, prior, num_threads
        As there.

    Returns
    -------
    dict of str to GaussianGrad
        ``mu`` and ``logvar`` (B, L) by modality; zero where that is missing.

    Raises
    ------
    ValueError, TypeError
        As :func:`joint_posterior`, or if the posterior is not of these experts by this method.

    Examples
    --------
    >>> import fastelbo
    >>> experts = {"image": ([[3.0]], [[0.0]]), "text": ([[0.0]], [[0.0]])}
    >>> q = fastelbo.joint_posterior(experts, noise=[[0.0]])
    >>> zero = [[[0.0]]]
    >>> grad = fastelbo.joint_posterior_backward([[3.0]], zero, zero, experts, q)
    >>> grad["image"].mu, grad["image"].logvar
    (array([[1.]]), array([[-2.]]))
    """
    mu, logvar, seen = stacked(experts, method, present, prior)
    if not isinstance(posterior, JointPosterior):
        raise TypeError(f"posterior must be a JointPosterior, got {type(posterior).__name__}")
    count = {"poe": 1, "moe": len(mu), "mopoe": 2 ** len(mu) - 1}[method]
    components, rows = posterior.mu, np.arange(mu.shape[1])
    if components.shape != (count, *mu.shape[1:]):
        wanted = f"{(count, *mu.shape[1:])} of these experts by method={method!r}"
        raise _arrays.shape_error("posterior.mu", components.shape, wanted)
    at = posterior.component, rows
    through_z = reparameterize_backward(
        grad_z, components[at], posterior.logvar[at], posterior.z, num_threads=num_threads
    )
    flows = []
    for name, grad, more in zip(
        ("grad_mu", "grad_logvar"), (grad_mu, grad_logvar), through_z, strict=True
    ):
        grad = _arrays.as_floats(grad, name)
        if grad.shape != components.shape:
            raise _arrays.shape_error(name, grad.shape, f"{components.shape} like the components")
        grad = np.array(grad, components.dtype)
        grad[at] += more
        flows.append(grad)
    options = {"mask": seen, "prior": prior, "num_threads": num_threads}
    if method == "poe":
        flows = product_of_experts_backward(*(f[0] for f in flows), mu, logvar, **options)
    elif method == "mopoe":
        flows = mopoe_backward(*flows, mu, logvar, **options)
    else:
        flows = [np.where(seen[..., None], flow, 0) for flow in flows]
    return {name: GaussianGrad(*(f[m] for f in flows)) for m, name in enumerate(experts)}


def stacked(experts, method, present, prior):
    """(mu, logvar), (M, B, L) each, and (M, B): who has seen something; all checked."""
    check_choice(method, "method", METHODS)
    if not (method == "mopoe" and is_word(prior, "full")):
        prior = as_flag(prior, "prior")
    names = names_of(experts, "experts")
    present = by_name(present, "present", names)
    arrays, first = [], None
    for name in names:
        with naming(f"experts[{name!r}]"):
            pair = experts[name]
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"expected a tuple (mu, logvar), got {shown(pair)}")
            pair = _arrays.gaussians(*pair)
            first = pair[0].shape if first is None else first
            if pair[0].shape != first:
                raise _arrays.shape_error("mu", pair[0].shape, f"{first} like that of {names[0]!r}")
            arrays.append(pair)
    seen = np.ones((len(names), first[0]), bool)
    for m, name in enumerate(names):
        if name in present:
            flags = _arrays.as_flags(present[name], f"present[{name!r}]")
            if flags.shape != first[:1]:
                raise _arrays.shape_error(f"present[{name!r}]", flags.shape, f"{first[:1]}")
            seen[m] = flags
    if not (method == "poe" and prior) and not seen.any(axis=0).all():
        raise ValueError(
            f"present: sample {np.argmin(seen.any(axis=0))} has no modality, and only "
            'method="poe" with prior=True has a posterior for it'
        )
    mu, logvar = (np.stack(several) for several in zip(*arrays, strict=True))
    return mu, logvar, seen


def chosen(component, mask, key):
    """The component of each sample, (B,)."""
    count, batch = mask.shape
    if component is not None:
        given = _arrays.as_any_array(component, "component")
        if given.dtype.kind not in "iu":
            raise TypeError(f"component must hold integers, got dtype {given.dtype}")
        if given.shape != (batch,):
            raise _arrays.shape_error("component", given.shape, f"({batch},)")
        wrong = (given < 0) | (given >= count)
        wrong |= ~mask[np.where(wrong, 0, given), np.arange(batch)]
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(f"component[{at}] = {given[at]} is none that counts for sample {at}")
        return given.astype(np.intp)
    if count == 1:
        return np.zeros(batch, np.intp)
    if key is None:
        raise ValueError("noise draws z alone: give component, too, or rng instead of noise")
    number = mask.sum(axis=0)
    which = np.random.default_rng(key).integers(number)
    return (mask.cumsum(axis=0) > which).argmax(axis=0)
