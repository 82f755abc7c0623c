from . import common


class Laplace(common._Likelihood):
    baseline = "laplace"


class LaplaceAndGrad(Laplace):
    baseline = "laplace_and_grad"
