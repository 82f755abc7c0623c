# The pass over decoder outputs for likelihoods over counts and pixels.

cimport fastelbo._kernels.terms.discrete as terms

include "elementwise.pxi"

# Each term by the name that a class of `discrete.py` calls it by.
TERMS = {
    "Poisson": entry(<const terms.PoissonTerm*>NULL),
    "PoissonLog": entry(<const terms.PoissonLogTerm*>NULL),
    "Binomial": entry(<const terms.BinomialTerm*>NULL),
    "BetaBinomial": entry(<const terms.BetaBinomialTerm*>NULL),
    "DiscretizedLogistic": entry(<const terms.DiscretizedLogisticTerm*>NULL),
    "DiscretizedLogisticLogScale": entry(<const terms.DiscretizedLogisticLogScaleTerm*>NULL),
}
