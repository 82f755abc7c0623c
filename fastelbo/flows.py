"""Variational flow matching: flows from noise to data, learned by guessing where they end.

x_t = (1 - t) noise + t x is on its way to the endpoint x at time t. A network says what it knows of
the endpoint, q_t(x|x_t), and the flow goes to its mean: dx_t/dt = (E_q[x] - x_t) / (1 - t).
"""

from typing import NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import MOST_WEIGHT, as_number, as_numbers
from fastelbo._named import as_likelihood
from fastelbo.bounds import reduce_rows
from fastelbo.divergences import weigh
from fastelbo.elbo import _SQUARED_ERROR, elbo, elbo_and_grad
from fastelbo.likelihoods import check_reduction, own_shapes


class FlowMatchingGrad(NamedTuple):
    """Gradient of a flow matching objective; a tuple where the network has several outputs."""

    x_recon: np.ndarray | tuple[np.ndarray, ...]


class FlowElboResult(NamedTuple):
    """The parts of an ELBO with a flow: floats, or (B,) arrays for ``reduction="none"``."""

    objective: float | np.ndarray
    reconstruction: float | np.ndarray
    kl: float | np.ndarray
    velocity_error: float | np.ndarray


class FlowElboGrad(NamedTuple):
    """Gradients of an ELBO with a flow; x_recon is a tuple where the decoder has several."""

    velocity: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    x_recon: np.ndarray | tuple[np.ndarray, ...]


def endpoint_velocity(mu, x_t, t, *, out=None):
    """The velocity of a flow that is at x_t and expected to end at mu: (mu - x_t) / (1 - t) [1]_.

    What an ODE solver integrates to draw samples, and what a learned velocity is compared with.
    It grows without bound as t goes to 1, unless mu goes to x_t: stop shortly before 1, and take mu
    itself for the last step.

    Parameters
    ----------
    mu : array_like, shape (B, ...)
        The mean of q_t(x|x_t): of a Gaussian endpoint its mean, of classes the probabilities that
        ``Categorical().mean(logits)`` gives, for x_t on its way to a one-hot vector.
    x_t : array_like, in the shape of mu
        Where the flow is.
    t : array_like, shape () or (B,)
        The time of each row, in [0, 1).
    out : ndarray, optional
        Where to write the velocity: C-contiguous, and no input.

    Returns
    -------
    ndarray
        In the shape of mu.

    Raises
    ------
    ValueError, TypeError
        If a shape or dtype does not fit, or t lies outside [0, 1).

    References
    ----------
    .. [1] Eijkelboom, Bartosh, Naesseth, Welling, van de Meent. Variational flow matching for graph
       generation. NeurIPS 2024.

    See Also
    --------
    flow_matching : what to train q_t by.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.endpoint_velocity([[2.0, 0.0]], [[1.0, 1.0]], 0.5)
    array([[ 2., -2.]])
    """
    given = (mu, x_t, t)
    mu, x_t, remaining = _checked_flow(mu, x_t, t)
    single = _arrays.computes_in_float32((mu, x_t))
    out = _arrays.checked_out(out, mu.shape, single, given, "out")
    return _velocity(mu, x_t, remaining, out)


def flow_matching(x, t, x_recon, *, likelihood=None, mask=None, reduction="mean", num_threads=None):
    """Variational flow matching: the log-density of endpoints x under what is known of them [1]_.

    E[log q_t(x|x_t)], to ascend, over pairs of a time t and a point x_t = (1 - t) noise + t x, from
    both of which the network makes `x_recon`: with ``Gaussian("learned")`` for endpoints of an
    uncertainty of its own, with ``Categorical()`` the cross-entropy of classes. Without a
    likelihood it is ordinary flow matching [2]_: -||v - v_theta||^2 = -||x - x_recon||^2 /
    (1 - t)^2, which is that of Gaussian endpoints whose variance is (1 - t)^2 / 2, without the
    constant.

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Endpoints: data, or labels for ``Categorical()``.
    t : array_like, shape (), (B,) or (T, B)
        The time of each row, in [0, 1).
    x_recon : array_like, in the shape of x, or (T, B, ...)
        What the network makes of (x_t, t): the endpoint's mean, or logits, as the likelihood reads
        it; a tuple of arrays for a likelihood of several parameters. T times of every endpoint may
        lie on a leading axis.
    likelihood : Likelihood or str, optional
        log q_t(x | x_recon); None is flow matching as above.
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over rows and times: the mean is (1/T) sum_t of that over the batch.
    num_threads : int, optional

    Returns
    -------
    float, or ndarray of shape (B,) or (T, B) for ``reduction="none"``
        In nats, but for None.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, or t lies outside [0, 1), where the weight of the
        last moment has no limit.

    References
    ----------
    .. [1] Eijkelboom, Bartosh, Naesseth, Welling, van de Meent. Variational flow matching for graph
       generation. NeurIPS 2024.
    .. [2] Lipman, Chen, Ben-Hamu, Nickel, Le. Flow matching for generative modeling. ICLR 2023.

    See Also
    --------
    endpoint_velocity : the velocity to sample with.
    flow_elbo : an ELBO and a flow together.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.flow_matching([[1.0, 0.0]], [0.5], [[0.5, 0.0]])
    -1.0
    >>> logits = [[0.0, 0.0]]
    >>> round(fastelbo.flow_matching([1], 0.5, logits, likelihood=fastelbo.Categorical()), 6)
    -0.693147
    """
    return _matching(x, t, x_recon, likelihood, mask, reduction, num_threads)


def flow_matching_and_grad(
    x, t, x_recon, *, likelihood=None, mask=None, reduction="mean", out=None, num_threads=None
):
    """:func:`flow_matching` and its gradient, to ascend.

    Parameters
    ----------
    x, t, x_recon, likelihood, mask, reduction, num_threads
        As in :func:`flow_matching`.
    out : tuple (x_recon,), optional
        Where to write the gradient: C-contiguous arrays that overlap no input, one for each output
        of the network, or None for a new one.

    Returns
    -------
    value : float or ndarray
    gradients : FlowMatchingGrad
        ``x_recon``, a tuple if x_recon was one; with ``reduction="none"``, of the sum.

    Raises
    ------
    ValueError, TypeError
        As :func:`flow_matching`.

    Examples
    --------
    >>> import fastelbo
    >>> value, grad = fastelbo.flow_matching_and_grad([[1.0, 0.0]], [0.5], [[0.5, 0.0]])
    >>> grad.x_recon
    array([[4., 0.]])
    """
    value, gradients = _matching(x, t, x_recon, likelihood, mask, reduction, num_threads, out, True)
    return value, FlowMatchingGrad(gradients if type(x_recon) is tuple else gradients[0])


def _matching(
    x, t, x_recon, likelihood, mask, reduction, num_threads, out=None, with_gradient=False
):
    """The value; with the gradient, (value, a tuple of gradients)."""
    check_reduction(reduction)
    outputs = x_recon if type(x_recon) is tuple else (x_recon,)
    weighted = likelihood is None
    likelihood = _SQUARED_ERROR if weighted else as_likelihood(likelihood)
    if len(outputs) != len(likelihood.parameters):
        likelihood._miscounted(outputs)
    axes = 1 + likelihood._sample_axes(x, outputs)
    first = _arrays.as_floats(outputs[0], likelihood.parameters[0])
    remaining = _remaining_time(t, first.shape[:axes])
    asked = "none" if weighted else reduction
    options = {"mask": mask, "reduction": asked, "num_threads": num_threads}
    if not with_gradient:
        value = likelihood.log_prob(x, *outputs, **options)
        return _weighted(value, remaining, reduction) if weighted else value
    _arrays.keep_apart(out, likelihood.parameters, (t,))
    if weighted:  # gradients are multiplied below: no half precision
        outputs = (first,)
    value, gradients = likelihood.log_prob_and_grad(x, *outputs, out=out, **options)
    if weighted:
        share = 1 / value.size if reduction == "mean" else 1.0
        gradients[0][...] *= _beside(share / remaining**2, gradients[0])
        value = _weighted(value, remaining, reduction)
    return value, gradients


def flow_elbo(
    x,
    x_t,
    t,
    velocity,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    weight=1.0,
    beta=1.0,
    mask=None,
    reduction="mean",
    num_threads=None,
):
    """An ELBO of every moment of a flow, and the velocity that is learned beside it, in one number.

    (1/T) sum_t [ELBO_t - weight ||v_t - v_theta||^2], to ascend: the posterior N(mu_t, e^logvar_t)
    says where in the latent space the flow ends, x_recon is what the decoder makes of a draw from
    it, and v_t = (mu_t - x_t) / (1 - t) is the velocity towards its mean [1]_, which a network's
    own, v_theta, is to follow: a sampler needs neither encoder nor posterior then. (As a loss to
    descend, it is minus this: -ELBO_t + weight ||v_t - v_theta||^2.)

    Parameters
    ----------
    x : array_like, shape (B, ...)
        Data. Several times of one x are several rows.
    x_t : array_like, shape (B, L)
        Where in the latent space the flow is.
    t : array_like, shape () or (B,)
        The time of each row, in [0, 1).
    velocity : array_like, shape (B, L)
        v_theta.
    mu, logvar : array_like, shape (B, L)
        Parameters of the posterior of the flow's end.
    x_recon : array_like, in the shape of x
        What the decoder gives; a tuple of arrays for a likelihood of several parameters.
    likelihood : Likelihood or str, optional
        log p(x | x_recon).
    weight : float, optional
        The lambda of the velocities, not negative.
    beta : float, optional
        Weight of the KL to N(0, I).
    mask : array_like of bool, optional
        True where x was observed; broadcasts to x.
    reduction : {"mean", "sum", "none"}
        Over the rows.
    num_threads : int, optional

    Returns
    -------
    FlowElboResult
        ``objective`` = reconstruction - beta kl - weight velocity_error, and those three.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or option does not fit, a weight is negative, t lies outside [0, 1), or x
        outside the likelihood's domain. The message names the argument.

    References
    ----------
    .. [1] Eijkelboom, Bartosh, Naesseth, Welling, van de Meent. Variational flow matching for graph
       generation. NeurIPS 2024.

    See Also
    --------
    flow_matching : the flow alone.

    Examples
    --------
    >>> import fastelbo
    >>> x = x_recon = [[0.0]]
    >>> fastelbo.flow_elbo(x, [[0.0]], 0.5, [[1.0]], [[1.0]], [[0.0]], x_recon, weight=2.0)
    FlowElboResult(objective=-2.5, reconstruction=0.0, kl=0.5, velocity_error=1.0)
    """
    return _flow_elbo(
        (x, x_t, t, velocity, mu, logvar, x_recon),
        (likelihood, weight, beta, mask, reduction, num_threads),
    )


def flow_elbo_and_grad(
    x,
    x_t,
    t,
    velocity,
    mu,
    logvar,
    x_recon,
    *,
    likelihood=_SQUARED_ERROR,
    weight=1.0,
    beta=1.0,
    mask=None,
    reduction="mean",
    out=None,
    num_threads=None,
):
    """:func:`flow_elbo` and its gradients, to ascend.

    That of mu includes what v_t passes on; what reaches it through z and the decoder is added by
    :func:`~fastelbo.reparameterize_backward`.

    Parameters
    ----------
    x, x_t, t, velocity, mu, logvar, x_recon, likelihood, weight, beta
        As in :func:`flow_elbo`.
    mask, reduction, num_threads
        As in :func:`flow_elbo`.
    out : tuple (velocity, mu, logvar, x_recon), optional
        Where to write the gradients: C-contiguous arrays that overlap no input, or None for a new
        one.

    Returns
    -------
    result : FlowElboResult
    gradients : FlowElboGrad
        ``velocity``, ``mu``, ``logvar`` and ``x_recon`` (a tuple if x_recon was one); with
        ``reduction="none"``, of the sum over the rows.

    Raises
    ------
    ValueError, TypeError
        As :func:`flow_elbo`.

    Examples
    --------
    >>> import fastelbo
    >>> x = x_recon = [[0.0]]
    >>> result, grad = fastelbo.flow_elbo_and_grad(
    ...     x, [[0.0]], 0.5, [[1.0]], [[1.0]], [[0.0]], x_recon
    ... )
    >>> grad.velocity, grad.mu
    (array([[2.]]), array([[-5.]]))
    """
    return _flow_elbo(
        (x, x_t, t, velocity, mu, logvar, x_recon),
        (likelihood, weight, beta, mask, reduction, num_threads),
        out,
        True,
    )


def _flow_elbo(arrays, settings, out=None, with_gradient=False):
    """The result; with the gradients, (the result, those)."""
    x, x_t, t, velocity, mu, logvar, x_recon = arrays
    likelihood, weight, beta, mask, reduction, num_threads = settings
    check_reduction(reduction)
    weight = as_number(weight, "weight", 0)
    mu, x_t, remaining = _checked_flow(mu, x_t, t, 2)
    velocity = _arrays.as_floats(velocity, "velocity")
    if velocity.shape != mu.shape:
        raise _arrays.shape_error("velocity", velocity.shape, f"that of mu, {mu.shape}")
    likelihood = as_likelihood(likelihood)
    outputs = x_recon if type(x_recon) is tuple else (x_recon,)
    if len(outputs) != len(likelihood.parameters):
        likelihood._miscounted(outputs)
    problem = _arrays.problem(x, outputs, likelihood.parameters, mu, logvar, likelihood._layout)
    single = problem[5] and _arrays.computes_in_float32((x_t, velocity))
    mu = _arrays.in_dtype(mu, single)
    target = _velocity(mu, x_t, remaining, _arrays.empty_like(mu, single))
    options = {"reduction": reduction, "num_threads": num_threads}
    of_elbo = {"likelihood": likelihood, "beta": beta, "mask": mask, **options}
    if not with_gradient:
        error = _SQUARED_ERROR.log_prob(target, velocity, **options)
        parts = elbo(x, mu, logvar, x_recon, **of_elbo)
        return _flow_result(parts, error, weight)
    names = ("velocity", "mu", "logvar", *likelihood.parameters)
    shapes = [mu.shape] * 3 + own_shapes(outputs, problem[1])
    if out is not None:
        if not isinstance(out, tuple) or len(out) != 4:
            raise TypeError(
                "out must be None or a tuple (velocity, mu, logvar, x_recon) like FlowElboGrad"
            )
        out = (*out[:3], *(out[3] if isinstance(out[3], tuple) else (out[3],)))
    given = (*arrays[:-1], *outputs, mask)
    out = _arrays.checked_outs(out, shapes, single, given, names)
    parts, grad = elbo_and_grad(x, mu, logvar, x_recon, out=(*out[1:3], tuple(out[3:])), **of_elbo)
    within = weight if 1 / MOST_WEIGHT <= weight <= MOST_WEIGHT else 1.0
    error, _ = _SQUARED_ERROR._log_prob(
        target, (velocity,), None, reduction, num_threads, out[:1], True, within
    )
    if within != weight:
        weigh(out[:1], weight, 1.0)
    np.subtract(grad.mu, np.divide(out[0], _beside(remaining, out[0]), out=target), out=out[1])
    return _flow_result(parts, error, weight), FlowElboGrad(out[0], *grad)


def _flow_result(parts, error, weight):
    """The result of an ElboResult and minus the squared error of velocities."""
    return FlowElboResult(parts.elbo + weight * error, parts.reconstruction, parts.kl, 0.0 - error)


def _checked_flow(mu, x_t, t, axes=None):
    """(mu, x_t, 1 - t): float arrays of one shape, of so many axes, and (B,)."""
    mu, x_t = _arrays.as_floats(mu, "mu"), _arrays.as_floats(x_t, "x_t")
    if mu.ndim == 0 or mu.ndim != (axes or mu.ndim):
        wanted = "(batch, ...)" if axes is None else "(batch, latent dimensions)"
        raise _arrays.shape_error("mu", mu.shape, wanted)
    if len(mu) == 0:
        raise _arrays.empty_error("mu", mu.shape, "batch")
    if x_t.shape != mu.shape:
        raise _arrays.shape_error("x_t", x_t.shape, f"that of mu, {mu.shape}")
    return mu, x_t, _remaining_time(t, mu.shape[:1])


def _remaining_time(t, batch):
    """1 - t in float64, one for each row of a batch of this shape."""
    t = as_numbers(t, "t")
    if t.shape not in ((), batch, batch[1:]):
        wanted = " or ".join(map(str, dict.fromkeys(((), batch, batch[1:]))))
        raise _arrays.shape_error("t", t.shape, wanted)
    wrong = ~((t >= 0) & (t < 1))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        place = f"[{', '.join(map(str, at))}]" if at else ""
        raise ValueError(
            f"t{place} = {t[at]} lies outside [0, 1): the velocity to the endpoint has no limit at "
            "t = 1, so stop before, at 1 - 1e-3, say"
        )
    return np.broadcast_to(1 - t, batch)


def _velocity(mu, x_t, remaining, out):
    """(mu - x_t) / remaining, in the dtype of out."""
    np.subtract(mu, x_t, out=out, dtype=out.dtype)
    return np.divide(out, _beside(remaining, out), out=out)


def _beside(rows, array):
    """A number a row, as it broadcasts to an array, in the dtype of that."""
    return rows.astype(array.dtype).reshape(rows.shape + (1,) * (array.ndim - rows.ndim))


def _weighted(rows, remaining, reduction):
    return reduce_rows(rows / remaining**2, reduction)
