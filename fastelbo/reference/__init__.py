"""The specification: every public function again, in plain float64 NumPy, written to be read.

Names, arguments and the order of results are those of the public functions. Inputs are converted
to float64 and results are float64; where the public functions return a named tuple, these return
a plain one with the same fields in the same order. Options that change no number (``num_threads``,
``out``) are absent, and ``rng`` is an int key. Inputs are trusted: checks are the business of the
public functions. Only NumPy is imported. A module here for each there.

``mu`` and ``logvar`` are (B, L), ``x`` and ``x_recon`` (B, ...); K samples add a leading axis to
``noise``, ``z`` and, in the likelihoods, ``x_recon``. Values are in nats, and gradients are those
of the value returned, the ELBO itself and not its negative. With ``reduction="none"`` a gradient
is that of the sum of the values.
"""

from fastelbo.reference._common import (
    LOG_2PI,
    as_float64,
    exp_minus_one_minus,
    quiet,
    reduce_rows,
    row_weight,
)
from fastelbo.reference._gamma import (
    digamma_rise,
    divergence,
    half_rise,
    log1p_minus,
    log_factorial_rest,
    log_minus_digamma,
    stirling_error,
)
from fastelbo.reference.aggregate import (
    aggregate_posterior_log_density,
    beta_tcvae_elbo,
    beta_tcvae_elbo_and_grad,
    importance_weights,
    log_normals,
    log_sum,
    total_correlation,
    total_correlation_and_grad,
)
from fastelbo.reference.amortization import (
    amortization_gap,
    generalization_gap,
    refine_posterior,
)
from fastelbo.reference.bounds import (
    cubo,
    cubo_and_grad,
    effective_sample_size,
    importance_bound,
    importance_bound_and_grad,
    log_mean_exp,
    normalized_weights,
    reinforce,
    reinforce_and_grad,
    vimco,
    vimco_and_grad,
    without_largest,
)
from fastelbo.reference.columns import ColumnLikelihood
from fastelbo.reference.counts import (
    NegativeBinomial,
    ZeroInflatedNegativeBinomial,
)
from fastelbo.reference.discrepancies import mmd, mmd_and_grad
from fastelbo.reference.discrete import (
    BetaBinomial,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Poisson,
    discretized_logistic,
    log_sigmoid,
    log_sum_exp,
    sigmoid,
)
from fastelbo.reference.discrete_divergences import (
    kl_bernoulli,
    kl_bernoulli_and_grad,
    kl_categorical,
    kl_categorical_and_grad,
)
from fastelbo.reference.disentanglement import (
    dci_from_importance,
    mutual_information_gap,
    sap,
)
from fastelbo.reference.divergences import (
    FreeBits,
    kl_full_normal,
    kl_full_normal_and_grad,
    kl_normal,
    kl_normal_and_grad,
    kl_standard_normal,
    kl_standard_normal_and_grad,
    with_free_bits,
)
from fastelbo.reference.elbo import elbo, elbo_and_grad, elbo_from_buffers
from fastelbo.reference.experts import (
    mixture_of_experts,
    mixture_of_experts_and_grad,
    mopoe,
    mopoe_backward,
    product_of_experts,
    product_of_experts_backward,
)
from fastelbo.reference.flows import (
    endpoint_velocity,
    flow_elbo,
    flow_elbo_and_grad,
    flow_matching,
    flow_matching_and_grad,
)
from fastelbo.reference.importance import (
    iwae,
    iwae_and_grad,
    log_weights,
)
from fastelbo.reference.joint import joint_posterior, joint_posterior_backward
from fastelbo.reference.latent_ode import (
    latent_ode_elbo,
    latent_ode_elbo_and_grad,
    union_of_times,
)
from fastelbo.reference.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    Likelihood,
    SquaredError,
    StudentT,
    is_no_count,
    is_word,
    sum_to,
)
from fastelbo.reference.metrics import active_units
from fastelbo.reference.mixtures import mixture_log_prob, mixture_log_prob_and_grad
from fastelbo.reference.multimodal import multimodal_elbo, multimodal_elbo_and_grad
from fastelbo.reference.noise import (
    noise_of,
    philox4x32,
    standard_normal,
    uniforms_float32,
    uniforms_float64,
)
from fastelbo.reference.posterior import (
    posterior_log_prob,
    posterior_log_prob_and_grad,
    reparameterize,
    reparameterize_backward,
    reparameterize_kl,
)
from fastelbo.reference.priors import MixtureOfGaussians, StandardNormal, VampPrior
from fastelbo.reference.relaxations import gumbel_softmax, gumbel_softmax_backward
from fastelbo.reference.remedies import (
    capacity,
    capacity_and_grad,
    delta_posterior,
    delta_posterior_backward,
    delta_roots,
)
from fastelbo.reference.semi_supervised import m2_elbo, m2_elbo_and_grad
from fastelbo.reference.streaming import StreamingBound
from fastelbo.reference.survival import Weibull
