# The pass over decoder outputs for likelihoods over real numbers.

cimport fastelbo._kernels.terms.likelihoods as terms

include "elementwise.pxi"

# Each term by the name that a class has as its `_term`.
TERMS = {
    "SquaredError": entry(<const terms.SquaredErrorTerm*>NULL),
    "Gaussian": entry(<const terms.GaussianTerm*>NULL),
    "GaussianLogScale": entry(<const terms.GaussianLogScaleTerm*>NULL),
    "Bernoulli": entry(<const terms.BernoulliTerm*>NULL),
    "BernoulliProbs": entry(<const terms.BernoulliProbsTerm*>NULL),
    "BernoulliClamped": entry(<const terms.BernoulliClampedTerm*>NULL),
    "ContinuousBernoulli": entry(<const terms.ContinuousBernoulliTerm*>NULL),
    "Laplace": entry(<const terms.LaplaceTerm*>NULL),
    "LaplaceLogScale": entry(<const terms.LaplaceLogScaleTerm*>NULL),
    "StudentT": entry(<const terms.StudentTTerm*>NULL),
    "StudentTLogScale": entry(<const terms.StudentTLogScaleTerm*>NULL),
    "StudentTLogDf": entry(<const terms.StudentTLogDfTerm*>NULL),
    "StudentTLearned": entry(<const terms.StudentTLearnedTerm*>NULL),
    "Weibull": entry(<const terms.WeibullTerm*>NULL),
    "WeibullScale": entry(<const terms.WeibullScaleTerm*>NULL),
    "WeibullConcentration": entry(<const terms.WeibullConcentrationTerm*>NULL),
}
