import fastelbo

from . import common


class ProductOfExperts(common._Suite):
    baseline = "product_of_experts"
    arrays = staticmethod(common.experts)

    def call(self, *arrays, num_threads):
        return fastelbo.product_of_experts(*arrays, num_threads=num_threads)
