import fastelbo

from . import common


class Iwae(common._Suite):
    baseline = "iwae_bernoulli"
    arrays = staticmethod(common.samples)
    likelihood = fastelbo.Bernoulli()

    def call(self, *arrays, num_threads):
        return fastelbo.iwae(*arrays, likelihood=self.likelihood, num_threads=num_threads)


class IwaeAndGrad(Iwae):
    baseline = "iwae_bernoulli_and_grad"

    def call(self, *arrays, num_threads):
        return fastelbo.iwae_and_grad(*arrays, likelihood=self.likelihood, num_threads=num_threads)
