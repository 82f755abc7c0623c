import fastelbo

from . import common


class Vimco(common._Suite):
    baseline = "vimco"
    arrays = staticmethod(common.log_weights)

    def call(self, log_w, num_threads):
        return fastelbo.vimco(log_w, num_threads=num_threads)


class VimcoAndGrad(Vimco):
    baseline = "vimco_and_grad"

    def call(self, log_w, num_threads):
        return fastelbo.vimco_and_grad(log_w, num_threads=num_threads)
