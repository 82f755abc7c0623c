"""Calls that take seconds let the handlers of signals run, and what these raise ends them."""

import signal

import numpy as np
import pytest

import fastelbo

#: Functions of pairs, and how many points take a few tenths of a second.
PAIRS = {
    "total_correlation": (
        5_000,
        lambda z, mu, logvar: fastelbo.total_correlation(z, mu, logvar, dataset_size=len(z)),
    ),
    "aggregate_posterior_log_density": (5_000, fastelbo.aggregate_posterior_log_density),
    "mixture_log_prob": (
        8_000,
        lambda z, mu, logvar: fastelbo.mixture_log_prob(z, mu, logvar, np.zeros(len(mu))),
    ),
    "mmd": (8_000, lambda z, mu, logvar: fastelbo.mmd(z, mu)),
}


class Interruption(Exception):
    pass


@pytest.fixture
def timer():
    """Sets a handler of SIGALRM that is called every few milliseconds."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handler):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("threads", [1, 2])
def test_handlers_run_during_a_call(name, threads, timer):
    """Python runs one after the call whatever happened: several were during it."""
    points, function = PAIRS[name]
    arrays = np.random.default_rng(0).normal(size=(3, points, 32))
    calls = []
    with fastelbo.num_threads(threads):
        timer(lambda *_: calls.append(None))
        function(*arrays)
        during = len(calls)
    assert during > 1


def test_what_a_handler_raises_ends_the_call(timer):
    z, mu, logvar = np.random.default_rng(0).normal(size=(3, 5_000, 32))
    grads = tuple(np.full_like(z, np.pi) for _ in range(3))

    def interrupt(*_):
        signal.setitimer(signal.ITIMER_REAL, 0)  # or the next would come in the midst of the test
        raise Interruption

    timer(interrupt)
    with pytest.raises(Interruption):
        fastelbo.total_correlation_and_grad(z, mu, logvar, dataset_size=5_000, out=grads)
    assert (grads[1] == np.pi).all()  # which are written last
    assert fastelbo.total_correlation(z[:9], mu[:9], logvar[:9], dataset_size=9)
