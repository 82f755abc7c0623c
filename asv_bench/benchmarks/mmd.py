import fastelbo

from . import common


class Mmd(common._Suite):
    baseline = "mmd"

    @staticmethod
    def arrays(size, dtype):
        return common.points(size, dtype)[:2]

    def call(self, *arrays, num_threads):
        return fastelbo.mmd(*arrays, num_threads=num_threads)


class MmdAndGrad(Mmd):
    baseline = "mmd_and_grad"

    def call(self, *arrays, num_threads):
        return fastelbo.mmd_and_grad(*arrays, num_threads=num_threads)
