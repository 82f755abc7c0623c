"""Threads: how many, the same bits from any number, beside Python's own, after a fork."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastelbo
from fastelbo import _threads
from fastelbo._catalogue import CASES, flatten
from tests.conftest import DTYPES, run_python, together

NAMES = [name for name, case in CASES.items() if case.batched]
#: What else is not left to LAPACK and NumPy.
OTHERS = [n for n, case in CASES.items() if not case.batched and case.takes_threads]
SEVERAL = (2, 3, 8)
HAS_OPENMP = fastelbo.build_info()["openmp"] > 0


@pytest.fixture
def eight_cpus(monkeypatch):
    """As if this process might use eight: more threads than there may be CPUs really run, whatever
    they are given."""
    monkeypatch.setattr(_threads.runtime, "usable_cpus", lambda: 8)
    monkeypatch.setattr(_threads.runtime, "usable_threads", lambda: 8)
    monkeypatch.setattr(_threads, "ELEMENTS_PER_THREAD", 8)
    monkeypatch.setattr(_threads, "WORTH_TWO", 16)
    before = _threads.runtime.govern(False)  # they run whether they pay or not
    yield
    _threads.runtime.govern(before)


@pytest.fixture(autouse=True)
def no_setting_left():
    yield
    fastelbo.set_num_threads(None)


def draw(name, dtype, batch=128, event=(784,), latent=96):
    if "D" in CASES[name].fixed:
        batch, latent = batch * event[0] // 7, latent // 24
    return list(CASES[name].draw(3, dtype, B=batch, D=event, L=latent).values())


# The same bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@together(dtype=DTYPES)
def test_bits_do_not_depend_on_threads(name, dtype, eight_cpus):
    function = CASES[name]
    arrays = draw(name, dtype)
    # A sum is a mean of other weights.
    for reduction in ("mean", "none") if function.has_reduction else [None]:
        options = {"reduction": reduction} if reduction else {}
        for free_bits in (0.0, 0.4) if "kl_st" in name or "reparameterize_kl" in name else (None,):
            if free_bits is not None:
                options["free_bits"] = free_bits
            alone = flatten(function.public(*arrays, num_threads=1, **options))
            for threads in SEVERAL:
                together = flatten(function.public(*arrays, num_threads=threads, **options))
                for a, b in zip(alone, together, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", OTHERS)
@together(dtype=DTYPES)
def test_bits_of_others_do_not_depend_on_threads(name, dtype, eight_cpus):
    """Of what takes samples, components, points or experts."""
    function = CASES[name]
    extents = {"B": 203, "D": (300,), "L": 33, "M": 300, "N": 150, "E": 4, "S": 15}
    extents = function.within(1 << 20, **extents, K=9 if "x" in function.inputs else 200)
    arrays = function.draw(3, dtype, **extents)
    alone = flatten(function.public(*arrays.values(), num_threads=1))
    for threads in SEVERAL:
        together = flatten(function.public(*arrays.values(), num_threads=threads))
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in NAMES + OTHERS if CASES[name].halves])
def test_bits_of_halves_do_not_depend_on_threads(name, eight_cpus):
    """Of what is converted on the way, too."""
    arrays = draw(name, np.float16)
    alone = flatten(CASES[name].public(*arrays, num_threads=1))
    for threads in SEVERAL:
        together = flatten(CASES[name].public(*arrays, num_threads=threads))
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("samples", [None, 5])
def test_noise_does_not_depend_on_threads(samples, dtype, eight_cpus):
    mu, logvar = (np.random.default_rng(1).normal(size=(333, 77)).astype(dtype) for _ in range(2))
    alone = fastelbo.reparameterize(mu, logvar, rng=8, samples=samples, num_threads=1)
    grad = fastelbo.reparameterize_backward(alone, mu, logvar, None, rng=8, num_threads=1)
    for threads in SEVERAL:
        z = fastelbo.reparameterize(mu, logvar, rng=8, samples=samples, num_threads=threads)
        np.testing.assert_array_equal(z, alone)
        again = fastelbo.reparameterize_backward(z, mu, logvar, None, rng=8, num_threads=threads)
        for a, b in zip(again, grad, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads the Linux way")
def test_threads_really_run(eight_cpus):
    """The pool of the OpenMP runtime grows to what was asked for."""
    if not HAS_OPENMP:
        assert fastelbo.get_num_threads() >= 1
        return
    arrays = draw("elbo[SquaredError]", np.float32)
    started = threading.Event()
    counts = []

    def call():
        CASES["elbo[SquaredError]"].public(*arrays, num_threads=7)
        counts.append(len(os.listdir("/proc/self/task")))
        started.set()

    before = len(os.listdir("/proc/self/task"))
    thread = threading.Thread(target=call)  # a new master brings a team of its own
    thread.start()
    thread.join()
    assert counts[0] >= before + 6


# How many ---------------------------------------------------------------------------------------


def test_rule(monkeypatch):
    monkeypatch.setattr(_threads.runtime, "usable_cpus", lambda: 4)
    monkeypatch.setattr(_threads.runtime, "usable_threads", lambda: 3)
    much, count = 1 << 40, _threads.threads_for
    assert count(much) == fastelbo.get_num_threads() == 3
    assert count(much, 2) == 2
    assert count(much, 4) == 4
    assert count(much, 64) == 4
    assert count(0) == count(1) == count(_threads.WORTH_TWO - 1) == 1
    assert count(_threads.WORTH_TWO, 4) == 2
    assert count(10, 4) == 1
    told = []  # as handlers of XLA are, which run without Python
    monkeypatch.setattr(_threads, "followers", [lambda: told.append(fastelbo.get_num_threads())])
    fastelbo.set_num_threads(2)
    assert count(much) == fastelbo.get_num_threads() == 2
    assert told == [2]
    assert count(much, 3) == 3
    fastelbo.set_num_threads(100)
    assert count(much) == 4
    fastelbo.set_num_threads(None)
    assert count(much) == 3


def test_context_manager(monkeypatch):
    monkeypatch.setattr(_threads.runtime, "usable_cpus", lambda: 8)
    monkeypatch.setattr(_threads.runtime, "usable_threads", lambda: 8)
    fastelbo.set_num_threads(6)
    with fastelbo.num_threads(5):
        assert fastelbo.get_num_threads() == 5
        with fastelbo.num_threads(2):
            assert fastelbo.get_num_threads() == 2
            with fastelbo.num_threads(None):
                assert fastelbo.get_num_threads() == 6
            assert fastelbo.get_num_threads() == 2
            fastelbo.set_num_threads(7)
            assert fastelbo.get_num_threads() == 2
        assert fastelbo.get_num_threads() == 5
    assert fastelbo.get_num_threads() == 7
    with pytest.raises(RuntimeError, match="inside"), fastelbo.num_threads(3):
        raise RuntimeError("inside")
    assert fastelbo.get_num_threads() == 7


def test_context_is_of_one_python_thread(monkeypatch):
    monkeypatch.setattr(_threads.runtime, "usable_cpus", lambda: 8)
    monkeypatch.setattr(_threads.runtime, "usable_threads", lambda: 8)
    seen = {}
    barrier = threading.Barrier(3, timeout=30)

    def run(n):
        with fastelbo.num_threads(n):
            barrier.wait()
            seen[n] = fastelbo.get_num_threads()
            barrier.wait()

    threads = [threading.Thread(target=run, args=(n,)) for n in (2, 3)]
    for t in threads:
        t.start()
    barrier.wait()
    seen["main"] = fastelbo.get_num_threads()
    barrier.wait()
    for t in threads:
        t.join()
    assert seen == {2: 2, 3: 3, "main": 8}


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", [1]])
def test_wrong_counts(wrong):
    error = ValueError if isinstance(wrong, int) else TypeError
    with pytest.raises(error, match="n must"):
        fastelbo.set_num_threads(wrong)
    with pytest.raises(error, match="n must"), fastelbo.num_threads(wrong):
        pass
    with pytest.raises(error, match="num_threads must"):
        fastelbo.kl_standard_normal([[1.0]], [[1.0]], num_threads=wrong)
    assert fastelbo.set_num_threads(np.int64(1)) is None
    assert fastelbo.get_num_threads() == 1


THREADS = """
    import json, os
    import fastelbo
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(json.dumps([fastelbo.get_num_threads(), cpus]))
"""


@pytest.mark.parametrize("wanted", [None, 1, 2, 1000])
def test_omp_num_threads(wanted):
    """OMP_NUM_THREADS is followed, up to the CPUs there are."""
    environment = {} if wanted is None else {"OMP_NUM_THREADS": str(wanted)}
    if wanted is None and "OMP_NUM_THREADS" in os.environ:
        environment["OMP_NUM_THREADS"] = ""
    threads, cpus = run_python(THREADS, **environment)
    expected = min(cpus, wanted or cpus) if HAS_OPENMP else 1
    assert threads == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets affinity the Linux way")
def test_affinity():
    """A process that may use one CPU runs one thread."""
    code = """
        import json, os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import fastelbo
        print(json.dumps(fastelbo.get_num_threads()))
    """
    assert run_python(code) == 1


def test_threadpoolctl():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(limits=1):
        assert fastelbo.get_num_threads() == 1
    before = fastelbo.get_num_threads()
    with threadpoolctl.threadpool_limits(limits=1, user_api="openmp"):
        assert fastelbo.get_num_threads() == 1
    assert fastelbo.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets affinity the Linux way")
@pytest.mark.parametrize("governed", [True, False])
def test_workers_that_do_not_pay_are_left_out(governed):
    """Eight threads on one CPU wait for each other: one takes it all, to the same bits, more often
    than to learn what that takes; how soon depends on what else the machine does.
    """
    code = f"""
        import json, os
        os.environ.pop("OMP_WAIT_POLICY", None)  # of the tests; users' workers spin a while
        import numpy as np
        import fastelbo
        from fastelbo._threads import runtime
        runtime.usable_cpus = lambda: 8
        runtime.govern({governed})
        os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
        x = np.random.default_rng(0).normal(size=(64, 1500))
        found, calls = set(), 0
        while calls < 300 or {governed} and runtime.tally()[0] <= 10 and calls < 100_000:
            found.add(fastelbo.elbo_and_grad(x, x, x, -x, num_threads=8)[0])
            calls += 1
        print(json.dumps([len(found), *runtime.tally()]))
    """
    different, alone, together = run_python(code, timeout=300)
    assert different == 1
    if not HAS_OPENMP:
        assert alone == together == 0
    elif governed:
        assert alone > 10
        assert together > 0
    else:
        assert (alone, together) == (0, 300)


# Beside Python's threads ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_many_python_threads(name, eight_cpus):
    """Eight Python threads at once, each with a team of its own or none: the same bits."""
    function = CASES[name]
    problems = [draw(name, np.float32, 20 + i, (1000,), 900) for i in range(4)]
    expected = [flatten(function.public(*p, num_threads=1)) for p in problems]

    def run(i):
        got = flatten(function.public(*problems[i % 4], num_threads=1 + i % 3))
        return all(np.array_equal(a, b) for a, b in zip(got, expected[i % 4], strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(24)))


@pytest.mark.parametrize("name", NAMES)
def test_the_gil_is_released(name):
    """Another Python thread gets on during a call.

    The interpreter is told to switch threads only when one lets go by itself; so the other thread
    can count only while the call has let go of the lock.
    """
    function = CASES[name]
    latent = 4000 if "x" not in function.inputs else 2
    batch = 40_000 if "D" in function.fixed else 300
    arrays = list(function.draw(0, np.float64, B=batch, D=(2000,), L=latent).values())
    ticks, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            time.sleep(0)  # lets go of the lock, and asks for it again
            ticks[0] += 1

    thread = threading.Thread(target=tick, daemon=True)
    interval = sys.getswitchinterval()
    thread.start()
    sys.setswitchinterval(1000.0)
    try:
        patience = time.monotonic() + 30  # on a busy machine the thread may wait for a processor
        while time.monotonic() < patience:
            before = ticks[0]
            function.public(*arrays, num_threads=1)
            if ticks[0] > before + 2:
                break
        else:
            raise AssertionError("no other thread ran during any call")
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


# After a fork -----------------------------------------------------------------------------------


def test_one_thread_in_a_forked_child(monkeypatch):
    monkeypatch.setattr(_threads, "_forked", False)
    monkeypatch.setattr(_threads.runtime, "usable_threads", lambda: 3)
    assert fastelbo.get_num_threads() == 3
    _threads._after_fork()
    assert fastelbo.get_num_threads() == _threads.threads_for(1 << 40, 2) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_fork_after_threads():
    """The child works, on one thread, with the same bits, where OpenMP alone would hang."""
    code = """
        import json, os, warnings
        import numpy as np
        import fastelbo
        from fastelbo import _threads
        warnings.simplefilter("ignore")
        _threads.runtime.usable_cpus = lambda: 4
        _threads.runtime.usable_threads = lambda: 4
        mu = np.random.default_rng(0).normal(size=(1000, 100))
        def work():
            z, kl = fastelbo.reparameterize_kl(mu, mu, rng=1, num_threads=4)
            return [float(z.sum()), kl, fastelbo.elbo(mu, mu, mu, mu * 2, num_threads=4).elbo]
        parent = work()                      # the threads exist from here on
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            results = [work(), fastelbo.get_num_threads()]
            os.write(send, json.dumps(results).encode())
            os._exit(0)
        os.close(send)
        inherited = json.loads(os.fdopen(receive).read())
        _, status = os.waitpid(child, 0)
        print(json.dumps([parent, inherited, status, work() == parent, fastelbo.get_num_threads()]))
    """
    parent, (child, child_threads), status, same, threads = run_python(code)
    assert child == parent
    assert child_threads == 1
    assert status == 0
    assert same
    assert threads == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_multiprocessing_by_fork():
    code = """
        import json, multiprocessing, warnings
        import numpy as np
        import fastelbo
        warnings.simplefilter("ignore")
        x = np.random.default_rng(0).normal(size=(500, 784))
        def work(i):
            return fastelbo.SquaredError().log_prob(x, x * i)
        if __name__ == "__main__":
            here = [work(i) for i in range(4)]
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(json.dumps(pool.map(work, range(4)) == here))
    """
    assert run_python(code)
