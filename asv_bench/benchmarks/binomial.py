from . import common


class Binomial(common._Likelihood):
    baseline = "binomial"


class BinomialAndGrad(Binomial):
    baseline = "binomial_and_grad"
