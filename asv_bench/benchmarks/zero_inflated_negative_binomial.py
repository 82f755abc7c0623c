from . import common


class ZeroInflatedNegativeBinomial(common._Likelihood):
    baseline = "zero_inflated_negative_binomial"
    sizes = common.COUNT_SIZES


class ZeroInflatedNegativeBinomialAndGrad(ZeroInflatedNegativeBinomial):
    baseline = "zero_inflated_negative_binomial_and_grad"
