from . import common


class ContinuousBernoulli(common._Likelihood):
    baseline = "continuous_bernoulli"


class ContinuousBernoulliAndGrad(ContinuousBernoulli):
    baseline = "continuous_bernoulli_and_grad"
