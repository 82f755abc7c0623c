"""Examples that need PyTorch run, and the drop-in is one line."""

import difflib
import importlib.util
import re

import pytest

from tests.example_scripts import FOLDER, draws, output, scripts

pytest.importorskip("torch")

#: These print, and draw nothing.
PLAIN = ("scvi_style", "vae_after", "vae_before")


@pytest.mark.parametrize("name", sorted({*scripts("torch")} - {*PLAIN}))
def test_it_draws_its_picture(name, tmp_path):
    draws(name, tmp_path)


def numbers(text, pattern):
    return [float(number) for number in re.findall(pattern, text)]


def test_one_line_changes():
    before, after = (
        (FOLDER / f"vae_{which}.py").read_text().splitlines() for which in ("before", "after")
    )
    changes = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert [line.replace(" ", "") for line in changes if line.strip("+- ")] == [
        "+fromfastelbo.torchimportvae_loss",
        "-loss=loss_function(logits,x,mu,logvar)",
        "+loss=vae_loss(logits,x,mu,logvar)",
    ]


def test_both_sides_of_that_line_train_alike():
    before, after = (
        numbers(output(f"vae_{which}", "--quick"), r"(?:train|test) (\S+\d)")
        for which in ("before", "after")
    )
    assert len(before) == len(after) == 4
    assert after == pytest.approx(before, rel=1e-4)
    assert after[2] < after[0] < 64


def test_scvi_style():
    text = output("scvi_style", "--quick", "--genes", "300")
    first, second = numbers(text, r"epoch \d: loss (\S+)")
    assert second < first
    assert len(numbers(text, r"(\d+)%")) == 2  # the share of either loss


def test_both_losses_of_scvi_style_are_one():
    import torch

    spec = importlib.util.spec_from_file_location("scvi_style", FOLDER / "scvi_style.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    x = torch.tensor(example.generated_counts(16, 50, seed=0), dtype=torch.float64)
    torch.manual_seed(0)
    outputs = [output.detach() for output in example.Model(50).double()(x)]
    found = []
    for loss_function in (example.plain_loss, example.fast_loss):
        leaves = [output.clone().requires_grad_() for output in outputs]
        loss = loss_function(x, *leaves)
        found.append((loss, *torch.autograd.grad(loss, leaves)))
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-6, atol=1e-6)
