"""Likelihoods with a differentiable ``log_prob``: classes and arguments are those of fastelbo.

Tensors on the CPU go to the kernels; for others a class says in ``elements`` what an element's
log-density is in PyTorch operations.
"""

import functools
import math

import torch
from torch.nn import functional

import fastelbo
from fastelbo.torch import stirling
from fastelbo.torch._bridge import Operation, kernels_of, run
from fastelbo.torch._tensors import check_reduction, check_tensors, has_kernels, promoted, reduce


class LogProb(Operation):
    """`sign` times log p(x | parameters), of tensors (x, *parameters) and perhaps a mask."""

    def forward(self, arrays, with_gradient, threads):
        likelihood, reduction, masked, sign = self.options
        mask = arrays.pop() if masked else None
        x, *parameters = arrays
        result = kernels_of(likelihood)._log_prob(
            x, tuple(parameters), mask, reduction, threads, None, with_gradient, sign
        )
        value, gradients = result if with_gradient else (result, ())
        return (sign * value,), gradients

    def slots(self, count):
        return range(1, count - self.options[2])

    def shapes(self, tensors):
        likelihood, reduction, *_ = self.options
        x, first, *_ = tensors
        if reduction != "none":
            return [()]
        more = globals()[type(likelihood).__name__].ndim_more
        return [first.shape[: 1 + first.ndim - more - x.ndim]]


class Likelihood:
    """What every likelihood shares."""

    #: Axes that the parameters have and x has not.
    ndim_more = 0
    _x_scale = 1.0
    _missing = None

    def _describe(self, *, x_scale=1.0, missing=None, **arguments):
        """Keep the constructor's arguments as Python numbers, as fastelbo's constructor takes them.

        The likelihood itself is made when it is first used: a constructor that torch.compile
        traces must not do more than this.
        """
        if x_scale != 1.0:
            arguments["x_scale"] = self._x_scale = x_scale
        self._missing = missing
        for name, value in arguments.items():
            if hasattr(value, "tolist"):
                value = value.tolist()
            arguments[name] = _tuples(value)
        self._arguments = arguments
        self.spec = (type(self).__name__, (("missing", missing), *arguments.items()))

    @functools.cached_property
    def kernels(self):
        """fastelbo's likelihood of this name."""
        kind, arguments = self.spec
        return getattr(fastelbo, kind)(**dict(arguments))

    @property
    def parameters(self):
        """Names of the decoder outputs, the arguments of ``log_prob`` after x."""
        return self.kernels.parameters

    def log_prob(self, x, *parameters, mask=None, reduction="mean"):
        """Log-density of x, summed over the event.

        Parameters
        ----------
        x : Tensor, shape (B, ...)
            Data of any real dtype; integers are read as they are.
        *parameters : Tensor
            The decoder outputs named in ``parameters``: the first has the shape of x, or
            (K, B, ...) for K samples of each x; others broadcast to it.
        mask : Tensor of bool, optional
            True where x was observed; broadcasts to x.
        reduction : {"mean", "sum", "none"}
            Over the batch, and over the samples.

        Returns
        -------
        Tensor, shape (), or (B,) or (K, B) for ``reduction="none"``
            In nats, in the dtype of the parameters (float32 for half precision).

        Raises
        ------
        ValueError
            If shapes do not match or, on the CPU, something lies outside the domain.
        """
        return self._signed(x, parameters, mask, reduction, 1.0)

    def _signed(self, x, parameters, mask, reduction, sign):
        """`sign` times the log-density; its gradient is known without a further product."""
        check_reduction(reduction)
        if not parameters:
            raise TypeError(f"{type(self).__name__}.log_prob takes x and decoder outputs")
        first, *others = parameters
        check_tensors(x=x, parameters=first)
        others = [torch.as_tensor(p, dtype=first.dtype, device=first.device) for p in others]
        x, *parameters = promoted(x, first, *others)
        by_row = reduction == "none"
        if not has_kernels(x, *parameters, constants=(x,)) or self.couples_rows(reduction):
            return sign * reduce(self._rows(x, parameters, mask), reduction)
        if by_row and others:
            # A row's gradient must be its own to be scaled: PyTorch adds up what is shared.
            parameters = torch.broadcast_tensors(*parameters)
        extra = () if mask is None else (mask,)
        return run(LogProb(self, reduction, len(extra), sign), x, *parameters, *extra)[0]

    def couples_rows(self, reduction):
        """Whether rows are wanted that depend on other rows: then no row's gradient is its own."""
        return False

    def _rows(self, x, parameters, mask):
        """Log-densities (B,) or (K, B) in PyTorch operations."""
        first = parameters[0]
        batch_axes = 1 + first.ndim - self.ndim_more - x.ndim
        x = x.to(first.dtype) * self._x_scale
        observed = None
        if self._missing == "nan":
            observed = ~x.isnan()
        if mask is not None:
            observed = mask if observed is None else observed & mask
        if observed is None:
            values = self.elements(x, *parameters)
        else:  # elsewhere numbers that lie in every domain, whose gradient is then zero
            observed = observed.expand(x.shape)
            x = torch.where(observed, x, 0.0)
            wide = self._like_parameters(observed)
            parameters = [torch.where(wide, p, 1.0) for p in parameters]
            values = torch.where(observed, self.elements(x, *parameters, observed=observed), 0.0)
        return values.flatten(batch_axes).sum(-1) if values.ndim > batch_axes else values

    def _like_parameters(self, a):
        """An array of the shape of x, with the axes that the parameters have and x has not."""
        return a

    def elements(self, x, *parameters, observed=None):
        """The log-density of every element of x, in PyTorch operations."""
        raise NotImplementedError

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())
        return f"{type(self).__name__}({arguments})"


def _tuples(value):
    return tuple([_tuples(v) for v in value]) if isinstance(value, list | tuple) else value


def _like(value, tensor):
    """A fixed argument as a tensor that goes with another one."""
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)


class SquaredError(Likelihood):
    """-||x - x_recon||^2; see :class:`fastelbo.SquaredError`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import SquaredError
    >>> x, x_recon = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    >>> SquaredError().log_prob(x, x_recon)
    tensor(-4.)
    """

    def __init__(self, *, x_scale=1.0, missing=None):
        self._describe(x_scale=x_scale, missing=missing)

    def elements(self, x, x_recon, *, observed=None):
        return -((x - x_recon) ** 2)


class Gaussian(Likelihood):
    """Normal density by its mean; see :class:`fastelbo.Gaussian`.

    ``scale`` is a number, one for each feature, ``"learned"`` or ``"optimal"``.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Gaussian
    >>> zero = torch.zeros(1, 1)
    >>> Gaussian(scale=2.0).log_prob(zero, zero)
    tensor(-1.6121)
    """

    def __init__(self, scale=1.0, *, x_scale=1.0, missing=None):
        self._describe(scale=scale, x_scale=x_scale, missing=missing)
        self.scale = self._arguments["scale"]

    def couples_rows(self, reduction):
        return self.scale == "optimal" and reduction == "none"

    def elements(self, x, x_recon, log_scale=None, *, observed=None):
        error = x - x_recon
        if self.scale == "optimal":
            squares = error**2 if observed is None else torch.where(observed, error**2, 0.0)
            size = squares.numel() if observed is None else observed.expand_as(squares).sum()
            log_scale = 0.5 * torch.log(squares.sum() / size)
        elif self.scale != "learned":
            log_scale = _like(self.scale, x_recon).log()
        return -0.5 * (error * torch.exp(-log_scale)) ** 2 - log_scale - stirling.HALF_LOG_2PI


class Laplace(Likelihood):
    """Laplace density by its median; see :class:`fastelbo.Laplace`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Laplace
    >>> zero = torch.zeros(1, 1)
    >>> Laplace(scale=0.5).log_prob(zero + 1, zero)
    tensor(-2.)
    """

    def __init__(self, scale=1.0, *, x_scale=1.0, missing=None):
        self._describe(scale=scale, x_scale=x_scale, missing=missing)
        self.scale = self._arguments["scale"]

    def elements(self, x, x_recon, log_scale=None, *, observed=None):
        if self.scale != "learned":
            log_scale = _like(self.scale, x_recon).log()
        return -torch.abs(x - x_recon) * torch.exp(-log_scale) - log_scale - math.log(2)


class StudentT(Likelihood):
    """Student's t density by its location; see :class:`fastelbo.StudentT`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import StudentT
    >>> zero = torch.zeros(1, 1)
    >>> StudentT(1.0).log_prob(zero, zero)
    tensor(-1.1447)
    """

    def __init__(self, df, scale=1.0, *, x_scale=1.0, missing=None):
        self._describe(df=df, scale=scale, x_scale=x_scale, missing=missing)
        self.df, self.scale = self._arguments["df"], self._arguments["scale"]

    def elements(self, x, x_recon, *learned, observed=None):
        learned = list(learned)
        log_scale = learned.pop(0) if self.scale == "learned" else _like(self.scale, x_recon).log()
        df = learned.pop(0).exp() if self.df == "learned" else _like(self.df, x_recon)
        scaled = (x - x_recon) * torch.exp(-log_scale)
        return stirling.student_t(scaled, df) - log_scale


class Bernoulli(Likelihood):
    """Bernoulli by logits, x in [0, 1]; see :class:`fastelbo.Bernoulli`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Bernoulli
    >>> x, logits = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    >>> Bernoulli().log_prob(x, logits)
    tensor(-1.3863)
    """

    def __init__(self, *, x_scale=1.0, validate=True, missing=None):
        self._describe(x_scale=x_scale, validate=validate, missing=missing)

    def elements(self, x, logits, *, observed=None):
        return -functional.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        )


class ContinuousBernoulli(Bernoulli):
    """Continuous Bernoulli by logits; see :class:`fastelbo.ContinuousBernoulli`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import ContinuousBernoulli
    >>> x, logits = torch.tensor([[0.25]]), torch.ones(1, 1)
    >>> ContinuousBernoulli().log_prob(x, logits)
    tensor(-0.2913)
    """

    def elements(self, x, logits, *, observed=None):
        t = logits.abs()
        near = t < 0.05
        inside = torch.where(near, 1.0, t)
        log_ratio = torch.where(
            near,
            -t / 2 + t**2 / 24 - t**4 / 2880 + t**6 / 181440,
            torch.log(-torch.expm1(-inside) / inside),
        )
        return (x - (logits > 0).to(x.dtype)) * logits - log_ratio


class Poisson(Likelihood):
    """Poisson by the logarithm of the rate, or the rate; see :class:`fastelbo.Poisson`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Poisson
    >>> x, log_rate = torch.tensor([[1]]), torch.zeros(1, 1)
    >>> Poisson().log_prob(x, log_rate)
    tensor(-1.)
    """

    def __init__(self, *, log_input=True, validate=True, missing=None):
        self._describe(log_input=log_input, validate=validate, missing=missing)
        self.log_input = log_input

    def elements(self, x, rate, *, observed=None):
        return (stirling.poisson if self.log_input else stirling.poisson_of_rate)(x, rate)


class Binomial(Likelihood):
    """Binomial by logits; see :class:`fastelbo.Binomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Binomial
    >>> x, logits = torch.tensor([[1]]), torch.zeros(1, 1)
    >>> Binomial(2).log_prob(x, logits)
    tensor(-0.6931)
    """

    def __init__(self, total_count, *, validate=True, missing=None):
        self._describe(total_count=total_count, validate=validate, missing=missing)
        self.total_count = self._arguments["total_count"]

    def elements(self, x, logits, *, observed=None):
        return stirling.binomial(x, logits, _like(self.total_count, logits))


class BetaBinomial(Binomial):
    """Beta-binomial by alpha and beta; see :class:`fastelbo.BetaBinomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import BetaBinomial
    >>> x, one = torch.tensor([[1]]), torch.ones(1, 1)
    >>> BetaBinomial(4).log_prob(x, one, one)
    tensor(-1.6094)
    """

    def elements(self, x, alpha, beta, *, observed=None):
        return stirling.beta_binomial(x, alpha, beta, _like(self.total_count, alpha))


class DiscretizedLogistic(Likelihood):
    """The mass of a logistic in pixels' bins; see :class:`fastelbo.DiscretizedLogistic`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import DiscretizedLogistic
    >>> x, zero = torch.tensor([[1]], dtype=torch.uint8), torch.zeros(1, 1)
    >>> DiscretizedLogistic(bins=2).log_prob(x, zero, zero)
    tensor(-0.6931)
    """

    def __init__(self, scale="learned", *, bins=256, validate=True, missing=None):
        self._describe(scale=scale, bins=bins, validate=validate, missing=missing)
        self.scale, self.bins = self._arguments["scale"], bins

    def elements(self, x, x_recon, log_scale=None, *, observed=None):
        if self.scale != "learned":
            log_scale = _like(self.scale, x_recon).log()
        return _log_mass(x, x_recon, log_scale, self.bins - 1)


def _log_mass(x, mean, log_scale, top):
    """log of sigmoid(hi) - sigmoid(lo) = sigmoid(hi) sigmoid(-lo) (1 - e^(lo - hi))."""
    inverse = torch.exp(-log_scale)
    centre = (2 * x - top) / top - mean
    hi, lo = (centre + 1 / top) * inverse, (centre - 1 / top) * inverse
    first, last = x == 0, x == top
    log_width = torch.where(first | last, 0.0, torch.log(-torch.expm1(-2 / top * inverse)))
    upper = torch.where(last, 0.0, functional.logsigmoid(hi))
    return upper + torch.where(first, 0.0, functional.logsigmoid(-lo)) + log_width


class DiscretizedLogisticMixture(Likelihood):
    """A mixture of them; see :class:`fastelbo.DiscretizedLogisticMixture`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import DiscretizedLogisticMixture
    >>> x, zero = torch.tensor([[1]], dtype=torch.uint8), torch.zeros(1, 3, 1)
    >>> DiscretizedLogisticMixture(bins=2).log_prob(x, zero, zero, zero)
    tensor(-0.6931)
    """

    ndim_more = 1

    def __init__(self, *, bins=256, validate=True, missing=None):
        self._describe(bins=bins, validate=validate, missing=missing)
        self.bins = bins

    def _like_parameters(self, a):
        return a.unsqueeze(1)

    def elements(self, x, logits, means, log_scales, *, observed=None):
        at = -x.ndim
        masses = _log_mass(x.unsqueeze(1), means, log_scales, self.bins - 1)
        return torch.logsumexp(torch.log_softmax(logits, at) + masses, at)


class Categorical(Likelihood):
    """Categorical by logits; see :class:`fastelbo.Categorical`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import Categorical
    >>> x, logits = torch.tensor([[1]]), torch.zeros(1, 1, 4)
    >>> Categorical().log_prob(x, logits)
    tensor(-1.3863)
    """

    ndim_more = 1

    def __init__(self, *, validate=True, missing=None):
        self._describe(validate=validate, missing=missing)

    def _like_parameters(self, a):
        return a.unsqueeze(-1)

    def elements(self, x, logits, *, observed=None):
        labels = x.long().expand(logits.shape[:-1]).unsqueeze(-1)
        return torch.log_softmax(logits, -1).gather(-1, labels).squeeze(-1)


class NegativeBinomial(Likelihood):
    """Negative binomial by mean and theta; see :class:`fastelbo.NegativeBinomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import NegativeBinomial
    >>> x, mean = torch.tensor([[2]]), torch.ones(1, 1)
    >>> NegativeBinomial(theta=1.0).log_prob(x, mean)
    tensor(-2.0794)
    """

    def __init__(self, theta=None, *, validate=True, missing=None):
        self._describe(theta=theta, validate=validate, missing=missing)
        self.theta = self._arguments["theta"]

    def elements(self, x, mean, *rest, observed=None):
        theta, rest = (rest[0], rest[1:]) if self.theta is None else (_like(self.theta, mean), rest)
        return self._inflated(x, stirling.negative_binomial(x, mean, theta), *rest)

    def _inflated(self, x, values):
        return values


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """With an excess of zeros; see :class:`fastelbo.ZeroInflatedNegativeBinomial`.

    Examples
    --------
    >>> import torch
    >>> from fastelbo.torch import ZeroInflatedNegativeBinomial
    >>> x, one = torch.tensor([[0]]), torch.ones(1, 1)
    >>> ZeroInflatedNegativeBinomial().log_prob(x, one, one, one - 1)
    tensor(-0.2877)
    """

    def _inflated(self, x, values, zero_logits):
        log_rest = functional.logsigmoid(-zero_logits)
        some = values + log_rest
        near = values > -1
        likely = torch.log1p(log_rest.exp() * torch.expm1(torch.where(near, values, 0.0)))
        unlikely = torch.logaddexp(functional.logsigmoid(zero_logits), some)
        return torch.where(x == 0, torch.where(near, likely, unlikely), some)
