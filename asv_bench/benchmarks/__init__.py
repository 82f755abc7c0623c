"""Suites of asv: `rows.py` of every case that is timed, `torch.py` and `jax.py` of gradients."""
