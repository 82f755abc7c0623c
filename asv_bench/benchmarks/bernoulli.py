import fastelbo

from . import common


class Bernoulli(common._Suite):
    baseline = "bernoulli"
    arrays = staticmethod(common.data)
    likelihood = fastelbo.Bernoulli()

    def call(self, *arrays, num_threads):
        return self.likelihood.log_prob(*arrays, num_threads=num_threads)


class BernoulliAndGrad(Bernoulli):
    baseline = "bernoulli_and_grad"

    def call(self, *arrays, num_threads):
        return self.likelihood.log_prob_and_grad(*arrays, num_threads=num_threads)
