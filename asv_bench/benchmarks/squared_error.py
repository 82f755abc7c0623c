import fastelbo

from . import common


class SquaredError(common._Suite):
    baseline = "squared_error"
    arrays = staticmethod(common.data)
    likelihood = fastelbo.SquaredError()

    def call(self, *arrays, num_threads):
        return self.likelihood.log_prob(*arrays, num_threads=num_threads)


class SquaredErrorAndGrad(SquaredError):
    baseline = "squared_error_and_grad"

    def call(self, *arrays, num_threads):
        return self.likelihood.log_prob_and_grad(*arrays, num_threads=num_threads)
