from . import common


class BetaBinomial(common._Likelihood):
    baseline = "beta_binomial"


class BetaBinomialAndGrad(BetaBinomial):
    baseline = "beta_binomial_and_grad"
