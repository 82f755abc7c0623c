"""fastelbo.torch in forked workers and in two processes that train together."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import run_python
from tests.torch_cases import torch

ft = pytest.importorskip("fastelbo.torch")

BATCH = 64


class Losses(torch.utils.data.Dataset):
    """Its items are computed in the worker: a loss large enough for two threads."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        logits = torch.randn(256, 200, generator=generator, requires_grad=True)
        x = torch.rand(256, 200, generator=generator)
        value = ft.Bernoulli().log_prob(x, logits)
        value.backward()
        return torch.stack([value.detach(), logits.grad.sum()])


def test_data_loader_with_forked_workers():
    """In a process of their own: threads of JAX that another test has started may hold a lock when
    the process forks, for which a worker then waits for ever."""
    here, there = run_python(
        """
        import json, warnings
        from torch.utils.data import DataLoader
        from tests.test_torch_parallel import Losses
        here = [Losses()[i].tolist() for i in range(4)]      # with threads of OpenMP
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        there = DataLoader(Losses(), batch_size=None, num_workers=2, multiprocessing_context="fork")
        print(json.dumps([here, [losses.tolist() for losses in there]]))
        """
    )
    torch.testing.assert_close(torch.tensor(there), torch.tensor(here))


def model():
    torch.manual_seed(3)
    return torch.nn.ModuleDict({"encoder": torch.nn.Linear(6, 4), "decoder": torch.nn.Linear(2, 6)})


class Step(torch.nn.Module):
    """Minus the ELBO of a minibatch, given the noise."""

    def __init__(self):
        super().__init__()
        self.parts = model()
        self.loss = ft.ElboLoss(ft.Bernoulli())

    def forward(self, x, noise):
        mu, logvar = self.parts["encoder"](x).chunk(2, -1)
        z = ft.reparameterize(mu, logvar, noise=noise)
        return self.loss(x, mu, logvar, self.parts["decoder"](z))


def minibatch():
    generator = torch.Generator().manual_seed(4)
    return torch.rand(BATCH, 6, generator=generator), torch.randn(BATCH, 2, generator=generator)


def one_of_two(rank, folder):
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        timeout=timedelta(minutes=2),
        rank=rank,
        world_size=2,
    )
    step = torch.nn.parallel.DistributedDataParallel(Step())
    mine = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    step(*(t[mine] for t in minibatch())).backward()
    torch.save([p.grad for p in step.parameters()], os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path, monkeypatch):
    root = str(Path(__file__).parents[1])
    monkeypatch.setattr(sys, "path", [*sys.path, root])  # where the processes find this module
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    step = Step()
    step(*minibatch()).backward()
    expected = [p.grad for p in step.parameters()]
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)
