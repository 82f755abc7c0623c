"""Any call at all: a right answer, or an error that says why not, and no input changed.

    python -m tests.fuzz --problems 100000 --first 0

A problem is a function of its number alone: draws of a row of the catalogue, spoilt or not, and
several calls with them in other layouts, of PyTorch and JAX, too; or of a model's methods, a file,
or a command line. What is found has the number, and ``--first NUMBER --problems 1`` repeats it.
"""

import argparse
import contextlib
import functools
import inspect
import io
import json
import tempfile
import time
import traceback
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import fastelbo
from fastelbo import _cli
from fastelbo._catalogue import CASES, REDUCTIONS, ROWS, TOLERANCE, flatten
from fastelbo._catalogue.sparse import as_csr
from fastelbo._catalogue.twins import jax_twins, jax_value_and_grad, twins, value_and_grad
from tests.conftest import assert_close

#: What a call may raise: these, before anything is computed.
REFUSALS = ValueError, TypeError
DTYPES = ["f4", "f8", ">f4", ">f8", "f2", "g", "i1", "u1", "i4", ">i2", "u8", "i8", "?"]
STRANGE = ["c8", "O", "U3", "M8[s]", "V4"]
EXTENTS = {
    "B": [1, 2, 3, 5, 9, 33],
    "D": [(), (1,), (7,), (33,), (3, 2), (1, 4, 1), (70,)],
    "L": [0, 1, 2, 3, 5, 33],
    "K": [1, 2, 5],
    "M": [1, 4, 10],
    "N": [1, 6, 9],
    "C": [4, 65],
}
#: What an option may be given instead of what it takes, and ``num_threads``.
OPTIONS = [None, -1, 0, 1, 3, 0.5, np.nan, np.inf, 1e300, 1 << 70, "", "all", (), [1.0], {}]
OPTIONS += [True, "0.5", np.float32(0.5), np.int64(2), np.ones(3), 1j, b"mean", object()]
#: Elements at most of what a reference makes, and calls of a problem.
MOST, CALLS = 3000, 10


def pick(rng, several):
    return several[rng.integers(len(several))]


# Arrays -----------------------------------------------------------------------------------------


def laid(rng, a):
    """The same values in memory of any layout that keeps the dtype but for its byte order."""
    for axis in range(a.ndim):
        at = (slice(None),) * axis
        how = rng.integers(8)
        if how == 0:
            a = np.repeat(a, 2, axis=axis)[(*at, slice(None, None, 2))]
        elif how == 1:
            a = np.flip(np.flip(a, axis).copy(), axis)
        elif how == 2 and a.dtype.kind in "fiub":
            room = [(0, 0)] * axis + [(1, 2)] + [(0, 0)] * (a.ndim - axis - 1)
            a = np.pad(a, room, constant_values=1)[(*at, slice(1, -2))]
    whole = rng.integers(8)
    if whole == 0:
        a = np.array(a, order="F")
    elif whole == 1 and a.dtype.kind in "fiu":
        room = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        room[...] = a
        a = room
    elif whole == 2:
        a = a.view()
        a.flags.writeable = False
    elif whole == 3 and a.dtype.kind in "fiu":
        a = a.astype(a.dtype.newbyteorder())
    return a


def spoilt(rng, a):
    """The array with another size, dtype, shape or value somewhere."""
    how = rng.integers(6)
    if a.dtype.kind not in "fiub":
        return a
    if how == 0:
        scaled = a * pick(rng, [0.0, 1e-3, 5.0, -1.0])
        return np.asarray(scaled, a.dtype if a.dtype.kind == "f" else None)
    if how == 1:
        shape = a.shape if rng.random() < 0.5 else tuple(rng.integers(0, 5, rng.integers(0, 4)))
        return np.asarray(rng.normal(size=shape))
    if how == 2 and a.dtype.kind == "f" and a.size:
        a = a.copy()
        largest = np.finfo(a.dtype).max
        a[np.unravel_index(rng.integers(a.size), a.shape)] = pick(
            rng, [np.nan, np.inf, -np.inf, largest, -largest, np.finfo(a.dtype).tiny]
        )
        return a
    if how == 3:
        dtype = np.dtype(pick(rng, STRANGE))
        return np.zeros(a.shape, dtype) if dtype.kind == "V" else a.astype(dtype)
    if how == 4 and a.ndim and a.size:
        axis = rng.integers(a.ndim)
        return np.broadcast_to(np.take(a, [0], axis=axis), a.shape)
    dtype = np.dtype(pick(rng, DTYPES))
    if dtype.kind in "iu":
        a = np.round(np.abs(a) if dtype.kind == "u" else a)
    return np.asarray(a, dtype)


def tame(a):
    """Whether there is no NaN among numbers, nor one whose terms overflow."""
    a = np.asarray(a)
    return a.dtype.kind != "f" or not a.size or np.abs(a.astype(float)).max() < 1e3


def contents(arrays):
    return [np.array(a).tobytes() for a in arrays]


@contextlib.contextmanager
def quietly():
    """NumPy warns where references and wild values overflow."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


# Answers ----------------------------------------------------------------------------------------


class Expected:
    """What a case must give for arrays, with which exactness."""

    def __init__(self, case, arrays, options):
        arrays = [np.asarray(a) for a in arrays]
        # The specification is in float64, and a number of NumPy's float32 would make it that.
        options = {k: float(o) if isinstance(o, np.floating) else o for k, o in options.items()}
        dtypes = dict(zip(case.inputs, [a.dtype for a in arrays], strict=True))
        #: What computes in float32: the others of another dtype do not make it float64. What is
        #: made of several passes may have one that does.
        self.single = (all if case.batched else any)(
            dtype.kind == "f" and dtype.itemsize <= 4
            for which, dtype in dtypes.items()
            if which not in ("noise", "grad_z", "mask")
            and (which != "z" or len(dtypes) == 1)
            and (which != "x" or dtype.kind == "f")
        )
        self.case, self.scales = case, case.scales(arrays, **options)
        #: z is rounded to float32 by some, and makes others compute in float64: it may be either.
        self.desired = [flatten(case.reference(*arrays, **options))]
        if self.single and "z" in dtypes and dtypes["z"].itemsize > 4:
            z = [*dtypes].index("z")
            arrays[z] = arrays[z].astype(np.float32)
            self.desired.append(flatten(case.reference(*arrays, **options)))
        #: NaN and infinities are where they are: elsewhere, all is as if they were not there.
        self.wild = not all(map(tame, (*arrays, *options.values())))

    def check(self, got):
        got = flatten(tuple(got))
        for desired in self.desired[1:]:
            with contextlib.suppress(AssertionError):
                return self._check(got, desired)
        return self._check(got, self.desired[0])

    def _check(self, got, desired):
        assert len(got) == len(desired)
        dtype = np.dtype(np.float32 if self.single else np.float64)
        for mine, theirs, scale in zip(got, desired, self.scales, strict=True):
            assert np.shape(mine) == np.shape(theirs), f"{np.shape(mine)}, not {np.shape(theirs)}"
            if np.asarray(mine).dtype == np.float16:  # rounded once more: a unit apart at most
                theirs = np.asarray(theirs, np.float16).astype(np.float64)
                unit = np.abs(np.spacing(theirs.astype(np.float16)), dtype=np.float64)
                unit = np.where(np.isfinite(theirs), unit, 0.0)
                scale = scale + unit / TOLERANCE[np.dtype(np.float32)]
            elif np.asarray(mine).dtype == np.float32:  # which cannot hold more
                theirs = np.asarray(theirs, np.float32).astype(np.float64)
            # What overflows on the way is infinite, and what does not is near the largest number.
            most = np.finfo(dtype).max / 1e4
            mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
            same = np.minimum(np.abs(mine), np.abs(theirs)) > most
            same &= (np.sign(mine) == np.sign(theirs)) & (np.isinf(mine) | np.isinf(theirs))
            theirs = np.where(same, mine, theirs)
            scale = np.where(np.isnan(scale), np.inf, scale)  # nothing can be said of its terms
            # What underflows on the way is nothing.
            scale = scale + np.finfo(dtype).tiny / TOLERANCE[dtype]
            if np.ndim(scale) and np.shape(scale) != np.shape(theirs):  # of other rows than usual
                scale = scale.max(initial=0.0)
            if self.wild:
                clean = np.isfinite(theirs) & np.isfinite(mine)
                if not (np.all(np.isfinite(scale)) and np.max(scale, initial=0.0) < 1e30):
                    continue
                mine, theirs = np.asarray(mine)[clean], np.asarray(theirs)[clean]
                scale = np.broadcast_to(scale, clean.shape)[clean]
            assert_close(mine, theirs, dtype, scale)


def drawn(rng, case, hostile):
    """Arrays for a case, and options; hostile ones may have anything wrong with them."""
    extents = {letter: pick(rng, several) for letter, several in EXTENTS.items()}
    if not case.batched:  # of no latents, most have nothing to say
        extents["L"] = max(1, extents["L"])
    extents["E"] = pick(rng, [1, 2, 3, 4])
    extents["S"] = (1 << extents["E"]) - 1
    arrays = list(case.draw(rng, pick(rng, ["f4", "f8"]), **case.within(MOST, **extents)).values())
    while hostile and rng.random() < 0.6:
        i = rng.integers(len(arrays))
        arrays[i] = spoilt(rng, arrays[i])
    options = dict(pick(rng, [{}, {}, *case.options]))
    if case.has_reduction and "reduction" not in options:
        options["reduction"] = pick(rng, REDUCTIONS)
    if case.takes_threads:
        options["num_threads"] = pick(rng, [None, 1, 2, 3])
    if hostile and options and rng.random() < 0.2:
        options[pick(rng, list(options))] = pick(rng, OPTIONS)
    return arrays, options


# Problems: each returns how many calls it made, and how many were answered ------------------------


noted = []


def note(*what):
    """What a problem is about, to be printed with it."""
    noted[:] = what


def refused(call, *arrays):
    """Whether a call is; nothing that it was given has changed."""
    before = contents(arrays)
    try:
        call()
    except REFUSALS:
        return True
    finally:
        assert contents(arrays) == before, "an input was written to"
    return False


def kernels(rng):
    """A case of the catalogue: against its reference, in several layouts, into given arrays."""
    case = pick(rng, list(CASES.values()))
    note(case.name)
    hostile = rng.random() < 0.3
    arrays, options = drawn(rng, case, hostile)
    got = []

    def call(*others, **more):
        given = zip(case.inputs, others, strict=True)
        given = [as_csr(a) if case.sparse and which == "x" else a for which, a in given]
        got[:] = flatten(case.public(*given, **options, **more))

    if refused(lambda: call(*arrays), *arrays):
        assert hostile, "refused"
        return 1, 0
    if hostile and not case.batched and not all(map(tame, arrays)):
        return 1, 1  # rows meet each other: tests of their own say what NaN does to all of them
    expected = Expected(case, arrays, {k: o for k, o in options.items() if k != "num_threads"})
    expected.check(got)
    kept = case.sparse or case.name == "elbo_from_buffers"  # which takes contiguous ones alone
    shapes = case.out_shapes(dict(zip(case.inputs, arrays, strict=True))) if case.outs else ()
    first = got[:1] if isinstance(case.outs, str) else got[len(got) - len(shapes) :]
    for _ in range(1, CALLS):
        others = arrays if kept else [laid(rng, a) for a in arrays]
        room, more = [np.full_like(a, np.nan) for a in first], {}
        if room and case.takes_out and rng.random() < 0.4:
            overlapping = [
                (i, a)
                for i, a in enumerate(others)
                for r in room[:1]
                if a.shape == r.shape and a.dtype == r.dtype and a.size and a.flags.c_contiguous
            ]
            if overlapping and not case.sparse and rng.random() < 0.3:
                wrong = case.as_out([pick(rng, overlapping)[1], *room[1:]])
                assert refused(lambda o=others, w=wrong: call(*o, out=w), *others), "out overlaps"
                continue
            more["out"] = case.as_out(room)
        before = contents(others)
        call(*others, **more)
        assert contents(others) == before, "an input was written to"
        expected.check(got)
        if more:
            mine = got[:1] if isinstance(case.outs, str) else got[len(got) - len(shapes) :]
            assert all(a is r for a, r in zip(mine, room, strict=True)), "out is not what came back"
    return CALLS, CALLS


def adapter(rng, pairs, compute):
    """A case of an adapter: value and gradient against the reference."""
    case, gradient = pick(rng, pairs)
    note(case.name)
    arrays, options = drawn(rng, gradient, hostile=False)
    options.pop("num_threads", None)
    if compute is jax_value_and_grad and options.get("estimator") == "dreg":  # takes the decoder
        options = {}
    expected = Expected(gradient, arrays, options)
    values, slopes = compute(case, gradient, dict(zip(case.inputs, arrays, strict=True)), options)
    if not case.draws_noise:
        expected.check([*map(np.asarray, values), *map(np.asarray, slopes)])
    return 1, 1


@functools.cache
def pairs_of(twins):
    return [pair for row in ROWS.values() for pair in twins(row)]


def torch(rng):
    """fastelbo.torch, with tensors in any layout."""

    def lay(tensor):
        how = rng.integers(4)
        if how == 0:
            return tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor.flip(0).flip(0)
        if how == 1 and tensor.ndim:
            return tensor.repeat_interleave(2, -1)[..., ::2]
        return tensor[None].repeat(2, *[1] * tensor.ndim)[1] if how == 2 else tensor

    return adapter(rng, pairs_of(twins), functools.partial(value_and_grad, lay=lay))


def jax(rng):
    """fastelbo.jax: each is compiled anew."""
    import jax as framework

    if hasattr(framework, "enable_x64"):
        with_x64 = framework.enable_x64
    else:
        from jax.experimental import enable_x64 as with_x64
    with with_x64(True):
        return adapter(rng, pairs_of(jax_twins), jax_value_and_grad)


@functools.cache
def fitted():
    """Models of every class, rows as they were fitted to, and their files."""
    X = np.random.default_rng(0).poisson(2.0, (40, 6)).astype(np.float32)
    quick = {"hidden": (4,), "latent_dim": 2, "epochs": 1, "random_state": 0}
    shares = X / X.max()
    made = [
        (fastelbo.VAE(likelihood="gaussian", **quick).fit(X), X),
        (fastelbo.VAE(likelihood="poisson", missing="nan", **quick).fit(X), X),
        (fastelbo.VAE(prior="mixture", prior_components=3, **quick).fit(shares), shares),
        (fastelbo.CountVAE(**quick).fit(X), X),
        (fastelbo.SemiSupervisedVAE(**quick).fit(shares, X[:, 0] > 2), shares),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        return [(model, X, model.save(path) or path.read_bytes()) for model, X in made]


@functools.cache
def methods_of(kind):
    """What takes data, or latent codes, alone, and changes nothing."""
    found = []
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        first, *others = list(inspect.signature(function).parameters.values())[1:] or [None]
        alone = all(other.default is not other.empty for other in others)
        drawn = name.startswith(("_", "plot_", "fit", "partial"))
        if first is not None and first.name in ("X", "Z") and alone and not drawn:
            found.append((name, "rng" in [other.name for other in others]))
    return found


def models(rng):
    """A method of a model: what it makes of rows does not depend on how they lie in memory."""
    model, rows, _ = pick(rng, fitted())
    name, draws = pick(rng, methods_of(type(model)))
    note(model, name)
    options = {"rng": 1} if draws else {}
    X = rows[: rng.integers(1, 9)]
    if name == "inverse_transform":
        X = rng.normal(size=(3, 2)).astype(pick(rng, ["f4", "f8"]))
    method = getattr(model, name)
    try:
        expected = flatten(method(X, **options))
    except ValueError:  # of a likelihood or without holes that it is not for
        return 1, 0
    others = laid(rng, X) if rng.random() < 0.5 else spoilt(rng, X)
    same = others.shape == X.shape and others.dtype.kind == "f" and np.array_equal(others, X)
    got = []
    if refused(lambda: got.extend(flatten(method(others, **options))), others):
        assert not same, "refused"
        return 1, 0
    for mine, theirs in zip(got, expected, strict=True):
        assert not same or np.allclose(mine, theirs, rtol=1e-5, atol=1e-6)
        assert np.shape(mine)[1:] == np.shape(theirs)[1:]
        assert np.shape(mine)[:1] == np.shape(others)[: np.ndim(theirs)][:1]
    return 1, 1


def files(rng):
    """The file of a model with some bytes changed: refused, or the same model."""
    model, X, whole = pick(rng, fitted())
    text = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        if not text:
            break
        at = int(rng.integers(len(text)))
        how = rng.integers(4)
        if how == 0:
            text[at] ^= 1 << rng.integers(8)
        elif how == 1:
            del text[at : at + int(rng.integers(1, 99))]
        elif how == 2:
            text[at:at] = rng.bytes(int(rng.integers(1, 99)))
        else:
            del text[at or 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        path.write_bytes(text)
        try:
            loaded = type(model).load(path)
        except ValueError as error:
            if "cannot be loaded" not in str(error):
                raise
            return 1, 0
    assert np.array_equal(loaded.transform(X), model.transform(X))
    return 1, 1


#: Words of a command line; one that none takes ends it before anything is computed.
WORDS = ["", "-", "--", "--json", "--quick", "--size", "0", "-1", "nan", "1e9", "elbo", "\0", "ü"]


def commands(rng):
    """A command line: what is wrong is said in one line, and the exit code is 2."""
    words = [pick(rng, [*_cli.COMMANDS, "", "nothing"])]
    words += [pick(rng, WORDS) for _ in range(rng.integers(5))]
    note(words)
    words = words if words[0] == "info" else [*words, "--no-such-option"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = _cli.main(words)
        except SystemExit as end:
            code = end.code
    assert code in (0, 2)
    assert code == 0 or err.getvalue().count("\n") == 1, err.getvalue()
    return 1, int(code == 0)


FRAMEWORKS = "torch", "jax"
#: How often each is, of what is there.
KINDS = {kernels: 0.9, torch: 0.06, models: 0.03, files: 0.008, commands: 0.002, jax: 0.0005}


@functools.cache
def kinds():
    """Those whose framework is installed, and how many of all come before each and it."""
    there = [k for k in KINDS if k.__name__ not in FRAMEWORKS or find_spec(k.__name__)]
    return there, np.cumsum([KINDS[k] for k in there])


def pick_kind(rng):
    there, until = kinds()
    return there[np.searchsorted(until, rng.random() * until[-1], side="right")]


def problem(number, kind=None):
    """(kind, calls, answered ones) of a problem."""
    rng = np.random.default_rng(number)
    kind = kind or pick_kind(rng)
    with quietly():
        return kind.__name__, *kind(rng)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=[kind.__name__ for kind in KINDS])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--write", action="store_true", help="as a row of the page on reliability")
    args = parser.parse_args()
    started, made, answers, found = time.monotonic(), Counter(), Counter(), 0
    for number in range(args.first, args.first + args.problems):
        try:
            kind, calls, answered = problem(number, globals().get(args.kind))
        except Exception:
            found += 1
            print(f"problem {number}:", *noted, traceback.format_exc(), flush=True)
            continue
        made[kind] += calls
        answers[kind] += answered
        if time.monotonic() - started > args.seconds:
            break
    seconds = time.monotonic() - started
    told = {"problems": number + 1 - args.first, "calls": sum(made.values()), "found": found}
    told |= {"seconds": round(seconds), "made": made, "answered": answers}
    print(json.dumps(told))
    if args.write:
        from tests.faults import write

        counts = f"{told['calls']:,} calls, {sum(answers.values()):,} of them answered"
        write("fuzz", "Random calls of anything public.", f"{counts}: {found} findings")
    return found > 0


if __name__ == "__main__":
    raise SystemExit(main())
