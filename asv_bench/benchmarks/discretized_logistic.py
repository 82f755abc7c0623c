from . import common


class DiscretizedLogistic(common._Likelihood):
    baseline = "discretized_logistic"


class DiscretizedLogisticAndGrad(DiscretizedLogistic):
    baseline = "discretized_logistic_and_grad"
