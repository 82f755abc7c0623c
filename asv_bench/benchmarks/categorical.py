from . import common


class Categorical(common._Likelihood):
    baseline = "categorical"


class CategoricalAndGrad(Categorical):
    baseline = "categorical_and_grad"
