"""Where PyTorch is missing, and where fastelbo alone is wanted."""

import pytest

from tests.conftest import fresh_python, run_python
from tests.torch_cases import torch

ft = pytest.importorskip("fastelbo.torch")


def test_without_pytorch_one_line_says_what_to_install():
    assert run_python(
        """
        import json, sys
        sys.modules["torch"] = None
        import fastelbo
        try:
            import fastelbo.torch
        except ImportError as error:
            message = str(error)
        print(json.dumps("pip install" in message and "\\n" not in message))
        """
    )


def test_fastelbo_never_imports_pytorch():
    assert not run_python(
        """
        import json, sys
        import fastelbo
        fastelbo.VAE(epochs=1)
        print(json.dumps("torch" in sys.modules))
        """
    )


def test_import_warns_of_nothing():
    done = fresh_python("-W", "error", "-c", "import fastelbo.torch")
    assert done.returncode == 0, done.stderr


def test_public_names():
    assert sorted(ft.__all__) == ft.__all__
    for name in ft.__all__:
        assert getattr(ft, name).__doc__, f"{name} has no docstring"
        has_example = ">>> " in getattr(ft, name).__doc__
        assert has_example or name == "Likelihood" or hasattr(getattr(ft, name), "_fields"), name


def test_dtype_of_results_is_no_surprise():
    assert ft.kl_standard_normal(torch.zeros(1, 1), torch.zeros(1, 1)).dtype == torch.float32
