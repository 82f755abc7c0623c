from . import common


class Poisson(common._Likelihood):
    baseline = "poisson"


class PoissonAndGrad(Poisson):
    baseline = "poisson_and_grad"
