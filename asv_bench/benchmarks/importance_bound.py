import fastelbo

from . import common


class ImportanceBound(common._Suite):
    baseline = "importance_bound"
    arrays = staticmethod(common.log_weights)

    def call(self, log_w, num_threads):
        return fastelbo.importance_bound(log_w, num_threads=num_threads)


class ImportanceBoundAndGrad(ImportanceBound):
    baseline = "importance_bound_and_grad"

    def call(self, log_w, num_threads):
        return fastelbo.importance_bound_and_grad(log_w, num_threads=num_threads)
