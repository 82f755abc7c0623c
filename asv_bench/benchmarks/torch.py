"""Losses of fastelbo.torch with their gradients, beside the same in PyTorch's own operations."""

from functools import partial

from . import common

try:
    import torch

    from fastelbo._cli import bench_torch
except ImportError:
    torch = None


class _Loss:
    """Subclasses name a row of `bench_torch.LOSSES`."""

    params = (common.THREADS,)
    param_names = ("threads",)
    row = 0

    def setup(self, threads):
        if torch is None:
            raise NotImplementedError("PyTorch is not installed")
        torch.set_num_threads(threads)
        _, plain, ours, tensors, by = bench_torch.LOSSES[self.row]
        self.plain, self.ours = (
            partial(bench_torch.value_and_grad, loss, *bench_torch.leaves_of(tensors(), by))
            for loss in (plain, ours)
        )
        self.ours()

    def time_value_and_grad(self, threads):
        self.ours()

    def track_ratio_vs_eager(self, threads):
        return common.ratio(self.plain, self.ours)

    track_ratio_vs_eager.unit = "x"


class SquaredErrorLoss(_Loss):
    row = 0


class BernoulliLoss(_Loss):
    row = 1


class NegativeBinomialLoss(_Loss):
    row = 2
