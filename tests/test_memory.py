"""Peak memory at the sizes that blow up elsewhere: of the whole process, gradients aside.

NumPy's allocations alone are traced in the tests of the functions; what kernels allocate shows only
in the process, which is a fresh one here. A call with small arrays before it starts the threads.
"""

import os
import textwrap
import tracemalloc
import warnings

import numpy as np
import pytest

import fastelbo
from tests.conftest import run_python

KIB, MIB = 1 << 10, 1 << 20
COUNTER = "/proc/self/clear_refs"

#: Arrays, as float32 with `normal(*shape)`, and `call(arrays)`.
SCRIPTS = {
    "total correlation": """
        def arrays(batch, latent):
            return [normal(batch, latent) for _ in range(6)]

        def call(z, mu, logvar, *out):
            fastelbo.total_correlation_and_grad(z, mu, logvar, dataset_size=60_000, out=out)
    """,
    "IWAE": """
        def arrays(samples, batch, event, latent):
            read = (normal(batch, event), normal(samples, batch, latent), normal(batch, latent),
                    normal(batch, latent), normal(samples, batch, event))
            return (abs(read[0]) % 1, *read[1:], *map(np.ones_like, read[1:]))

        def call(x, z, mu, logvar, logits, *out):
            likelihood = fastelbo.Bernoulli()
            fastelbo.iwae_and_grad(x, z, mu, logvar, logits, likelihood=likelihood, out=out)
    """,
    "a stream": """
        def arrays(chunks, samples, batch, event, latent):
            read = (normal(batch, event), normal(samples, batch, latent), normal(batch, latent),
                    normal(batch, latent), normal(samples, batch, event))
            return (chunks, abs(read[0]) % 1, *read[1:])

        def call(chunks, x, z, mu, logvar, logits):
            stream, likelihood = fastelbo.StreamingBound(), fastelbo.Bernoulli()
            for _ in range(chunks):
                log_w = fastelbo.log_weights(x, z, mu, logvar, logits, likelihood=likelihood)
                stream.update(log_w)
            assert np.isfinite(stream.bound())
    """,
}

MEASURE = """
    import numpy as np

    import fastelbo


    def normal(*shape):
        return rng.standard_normal(shape, np.float32)


    def kib(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name))


    rng = np.random.default_rng(0)
    call(*arrays(*small))
    given = arrays(*size)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    before = kib("VmRSS")
    call(*given)
    print(kib("VmHWM") - before)
"""


def growth(script, small, size):
    """Bytes by which the process grew at most during the call."""
    if not os.access(COUNTER, os.W_OK):
        pytest.skip("the system does not tell the peak of a process")
    code = f"small, size = {small}, {size}\n{textwrap.dedent(script)}{textwrap.dedent(MEASURE)}"
    return KIB * run_python(code, timeout=120)


@pytest.mark.parametrize(
    ("script", "small", "size", "most"),
    [
        ("total correlation", (64, 64), (2048, 64), 8 * MIB),
        ("total correlation", (64, 2), (16384, 2), 8 * MIB),  # a matrix (B, B) is 1 GiB
        ("IWAE", (2, 128, 33, 20), (64, 128, 784, 20), 2 * MIB),  # log p of each pixel, 25 MiB
        ("a stream", (1, 50, 128, 33, 20), (100, 50, 128, 784, 20), 2 * MIB),  # K = 5000
    ],
)
def test_peak(script, small, size, most):
    assert growth(SCRIPTS[script], small, size) < most


def test_what_allocates_is_found():
    script = """
        def arrays(words):
            return (words,)

        def call(words):
            np.ones(words)
    """
    assert 2 * MIB < growth(script, (1,), (3 * MIB // 8,)) < 5 * MIB


@pytest.mark.parametrize("method", ["fit", "transform"])
def test_a_model_of_a_file_is_trained_and_used_in_little_memory(method, tmp_path):
    """Of 100 MB of bytes, no more than a few are ever in memory as floats, which take four times
    that. What is mapped is the system's, which takes it back."""
    rows, columns = 128 << 10, 784
    with open(tmp_path / "x", "wb") as file:
        file.truncate(rows * columns)  # a hole, which takes no disk
    X = np.memmap(tmp_path / "x", np.uint8, "r", shape=(rows, columns))
    options = {"hidden": (2,), "latent_dim": 1, "batch_size": 2048, "epochs": 1}
    model = fastelbo.VAE(**options, random_state=0).partial_fit(np.eye(4, columns))
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fastelbo.TrainingWarning)  # of nothing but zeros
            getattr(model, method)(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6
