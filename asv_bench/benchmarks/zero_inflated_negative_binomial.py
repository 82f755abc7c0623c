from . import common


class ZeroInflatedNegativeBinomial(common._Likelihood):
    baseline = "zero_inflated_negative_binomial"


class ZeroInflatedNegativeBinomialAndGrad(ZeroInflatedNegativeBinomial):
    baseline = "zero_inflated_negative_binomial_and_grad"
