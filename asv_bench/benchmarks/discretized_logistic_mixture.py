from . import common


class DiscretizedLogisticMixture(common._Likelihood):
    baseline = "discretized_logistic_mixture"


class DiscretizedLogisticMixtureAndGrad(DiscretizedLogisticMixture):
    baseline = "discretized_logistic_mixture_and_grad"
