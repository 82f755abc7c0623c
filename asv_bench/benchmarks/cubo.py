import fastelbo

from . import common


class Cubo(common._Suite):
    baseline = "cubo"
    arrays = staticmethod(common.log_weights)

    def call(self, log_w, num_threads):
        return fastelbo.cubo(log_w, num_threads=num_threads)


class CuboAndGrad(Cubo):
    baseline = "cubo_and_grad"

    def call(self, log_w, num_threads):
        return fastelbo.cubo_and_grad(log_w, num_threads=num_threads)
