"""Losses of fastelbo.torch with their gradients, beside the same in PyTorch's own operations."""

from functools import partial

from . import rows

try:
    import torch

    from fastelbo._cli import bench_torch

    NAMES = [name for name, _ in bench_torch.LOSSES]
except ImportError:
    torch, NAMES = None, []


class Loss:
    params = (NAMES, rows.THREADS)
    param_names = ("case", "threads")

    def setup(self, case, threads):
        torch.set_num_threads(threads)
        loss = bench_torch.Loss(case, dict(bench_torch.LOSSES)[case])
        self.plain, self.ours = (
            partial(bench_torch.value_and_grad, function, *loss.tensors())
            for function in (loss.plain, loss.ours)
        )
        self.ours()

    def time_value_and_grad(self, case, threads):
        self.ours()

    def track_ratio_vs_eager(self, case, threads):
        return rows.ratio(self.plain, self.ours)

    track_ratio_vs_eager.unit = "x"
