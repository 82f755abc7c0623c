import fastelbo

from . import common


class Reinforce(common._Suite):
    baseline = "reinforce"
    arrays = staticmethod(common.log_weights)

    def call(self, log_w, num_threads):
        return fastelbo.reinforce(log_w, num_threads=num_threads)


class ReinforceAndGrad(Reinforce):
    baseline = "reinforce_and_grad"

    def call(self, log_w, num_threads):
        return fastelbo.reinforce_and_grad(log_w, num_threads=num_threads)
