"""fastelbo.jax with another JAX than this one, each in an interpreter of its own."""

import pytest

from tests.conftest import run_python

ABSENT = 'sys.modules["jax"] = None'
OLD = """
from types import SimpleNamespace
version = SimpleNamespace(__version_info__=(0, 4, 34))
sys.modules["jax"] = SimpleNamespace(version=version, __version__="0.4.34")
"""


@pytest.mark.parametrize("there", [ABSENT, OLD], ids=["absent", "old"])
def test_without_jax_one_line_says_what_to_install(there):
    message = run_python(
        """
        import json, sys
        exec(sys.argv[1])
        try:
            import fastelbo.jax
        except ModuleNotFoundError as error:
            print(json.dumps([str(error), str(error.__cause__)]))
        """,
        there,
    )
    assert message[0] == 'fastelbo.jax needs JAX 0.4.35 or newer: pip install "fastelbo[jax]"'
    assert "jax" in message[1]
    assert ("0.4.34" in message[1]) == (there is OLD)


BEFORE_FFI = """
import jax.extend, jax.ffi
sys.modules["jax.extend.ffi"] = jax.extend.ffi = jax.ffi
sys.modules["jax.ffi"] = None
del jax.ffi
"""
WITHOUT_CPUS = """
devices = jax.devices
def others(platform=None):
    if platform == "cpu":
        raise RuntimeError("Backend 'cpu' is not in the list of known backends")
    return devices(platform)
jax.devices = others
"""


@pytest.mark.parametrize(
    ("there", "by_kernels"), [(BEFORE_FFI, True), (WITHOUT_CPUS, False)], ids=["0.4", "no CPUs"]
)
def test_values_gradients_and_noise_are_the_same(there, by_kernels):
    """JAX 0.4 has calls of kernels elsewhere, and draws the noise itself, as all but CPUs do."""
    pytest.importorskip("jax.ffi")
    calls, value, slope, same_noise = run_python(
        """
        import json, sys
        import jax
        exec(sys.argv[1])
        from fastelbo import _ffi
        from fastelbo.jax import kl_standard_normal, reparameterize

        calls, serve = [], _ffi.serve
        def watched(answer):
            serve(lambda text, *rest: calls.append(text) or answer(text, *rest))
        _ffi.serve = watched
        one = jax.numpy.ones((2, 3))
        value, slope = jax.value_and_grad(kl_standard_normal)(one, one * 0)
        key = jax.random.key(7)
        drawn = reparameterize(one * 0, one * 0, rng=key)
        own = jax.random.wrap_key_data(jax.random.bits(key, (2,), "uint32"))
        same = bool((drawn == jax.random.normal(own, (2, 3))).all())
        print(json.dumps([len(calls), float(value), slope.tolist(), same]))
        """,
        there,
    )
    assert (calls > 0) == by_kernels
    assert value == 1.5
    assert slope == [[0.5] * 3] * 2
    assert same_noise
