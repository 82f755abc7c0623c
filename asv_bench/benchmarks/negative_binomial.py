from . import common


class NegativeBinomial(common._Likelihood):
    baseline = "negative_binomial"
    sizes = common.COUNT_SIZES


class NegativeBinomialAndGrad(NegativeBinomial):
    baseline = "negative_binomial_and_grad"
