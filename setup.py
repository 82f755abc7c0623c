"""Compiles every family of passes once for each instruction set.

Cython runs once per family; the C file is then compiled into `fastelbo/_kernels/<build>/<family>`,
once per row of BUILDS. (A module's init function carries only the last part of its name.)
`fastelbo/_builds.py` chooses a build when fastelbo is imported.

Compiled are the first row and the best that this processor runs, unless the environment says
otherwise: FASTELBO_BUILDS=all, or FASTELBO_BUILDS=avx512,baseline; FASTELBO_DEBUG=1 checks every
index and keeps debug symbols; FASTELBO_OPENMP=0 builds without threads;
FASTELBO_SANITIZE=address,undefined has clang watch every access, FASTELBO_SANITIZE=thread look for
races (`.ci/sanitize`); FASTELBO_COVERAGE=1 has gcc count how often each line runs (`.ci/coverage`).
"""

import contextlib
import gc
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

from distutils.ccompiler import new_compiler  # isort: skip  (setuptools' own)
from distutils.sysconfig import customize_compiler  # isort: skip

HERE = Path(__file__).parent
KERNELS = Path("fastelbo/_kernels")

# One row per instruction set. `always` is what every build gets: the sums vectorise by their fixed
# lanes and need no -ffast-math, which would break the rounding tricks of exp and log.
BUILDS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "win32":
    BUILDS["avx2"] = ["-march=x86-64-v3"]
    BUILDS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]

# One row per compiler: flags to compile and to link with OpenMP.
OPENMP = {
    "gcc": (["-fopenmp"], ["-fopenmp"]),
    "apple": (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),
    "msvc": (["/openmp"], []),
}

ALWAYS = {
    "unix": ["-O3", "-fno-math-errno", "-fno-trapping-math"],
    "msvc": ["/O2"],
}
# What is no pass is called once an array: half the time to compile, as fast.
BESIDE_PASSES = {"unix": ["-O2"], "msvc": []}
# Kept only where the compiler takes them. gcc would otherwise unroll short lane loops completely
# before the vectoriser sees them; it would carry the two bounds of a clamp through all that follows
# as constants, to blend every result in the end; and it would clear the few lanes of a sum by
# `rep stos`, which takes as long as to add up half a tile.
OPTIONAL = ["--param=max-completely-peel-times=8", "-fno-thread-jumps"]
OPTIONAL.append("-fno-tree-loop-distribute-patterns")
# gcc copies loops for what is the same throughout them: a fifth of its time, a twentieth of the
# speed of the counts' passes and none of that of others.
UNSWITCH = "-fno-unswitch-loops"
UNSWITCHED = ["counts"]
# In the two largest families, what says itself that it is to be inlined is called lane by lane, all
# else once a tile or seldomer: copies of that are a tenth of gcc's time.
FEW_COPIES = [f"-fno-inline-{kind}" for kind in ("functions", "small-functions")]
FEW_COPIES += ["-fno-inline-functions-called-once", "-fno-ipa-cp-clone"]
COPIED_LESS = ["discrete", "likelihood"]
SANITIZE = os.environ.get("FASTELBO_SANITIZE")
DEBUG = bool(os.environ.get("FASTELBO_DEBUG") or SANITIZE)
if not DEBUG:  # Python's own flags have -g, which is most of the size and a fifth of the time
    OPTIONAL += ["-g0", "-Wno-all"]  # and what Cython writes is not for users to be warned of
# Accesses are watched in code as it is written, which compiles in half the time; threads, whose
# tests take larger arrays, in a little faster code. Cython calls methods by pointers of other
# types, as Python's own interface wants it.
WATCHED = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-sanitize=function"]
WATCHED += ["-O1" if SANITIZE == "thread" else "-O0", "-fno-omit-frame-pointer", "-g1"]
WATCHED = WATCHED if SANITIZE else []
COVERAGE = bool(os.environ.get("FASTELBO_COVERAGE"))
if COVERAGE:  # no two lines become one
    WATCHED = ["--coverage", "-O0", "-fprofile-abs-path"]

INLINE = {
    "unix": "inline __attribute__((always_inline))",
    "msvc": "__forceinline",
}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": True,
    "emit_code_comments": COVERAGE,  # three quarters of what the C compiler would read
    "freethreading_compatible": True,
}


def families():
    """Every pass family is one .pyx in _kernels."""
    return sorted(path.stem for path in (HERE / KERNELS).glob("*.pyx"))


def compiled():
    """Modules beside the passes that are compiled, too, once."""
    return sorted(path.stem for path in (HERE / "fastelbo").glob("*.pyx"))


class Compiler:
    """The C compiler that setuptools will use, for small questions."""

    def __init__(self):
        self.driver = new_compiler()
        customize_compiler(self.driver)
        if self.driver.compiler_type == "msvc":
            self.driver.initialize()

    def takes(self, program, compile_args=(), link_args=(), ask=None):
        """Whether it compiles and links a program; and, if asked, whether that program run with
        the argument `ask` says yes (0), or no (1): None where it cannot be run or says neither."""
        with tempfile.TemporaryDirectory() as folder, no_stderr():
            source = Path(folder, "program.c")
            source.write_text(program)
            try:
                objects = self.driver.compile(
                    [str(source)],
                    output_dir=folder,
                    include_dirs=[sysconfig.get_path("include"), "fastelbo"],
                    extra_postargs=list(compile_args),
                )
                self.driver.link_executable(
                    objects, "program", output_dir=folder, extra_postargs=list(link_args)
                )
                if ask is None:
                    return True
                made = self.driver.executable_filename("program", output_dir=folder)
                return {0: True, 1: False}.get(subprocess.run([made, ask], check=False).returncode)
            except Exception:  # each kind of compiler has its own
                return False if ask is None else None

    def check(self):
        """Say at once what is missing, rather than after a minute of Cython."""
        if not self.takes("#include <stdio.h>\nint main(void) { return 0; }\n"):
            raise SystemExit(
                "fastelbo is compiled when it is installed, and there is no working C compiler: "
                "install gcc or clang (Debian: apt install gcc libc6-dev; macOS: xcode-select "
                "--install)"
            )
        if not self.takes("#include <Python.h>\nint main(void) { return 0; }\n"):
            raise SystemExit(
                "fastelbo is compiled when it is installed, and there is no Python.h in "
                f"{sysconfig.get_path('include')}: install Python's headers (Debian: apt install "
                "python3-dev)"
            )

    def runs(self, build):
        """Whether this machine runs a build; None where that cannot be told."""
        program = """
            #include "_processor.h"
            int main(int count, char **arguments) { return !fe_runs(arguments[count - 1]); }
        """
        return self.takes(program, ask=build)

    def openmp(self):
        """What compiles and links OpenMP."""
        if os.environ.get("FASTELBO_OPENMP") == "0":
            return [], []
        if self.driver.compiler_type == "msvc":
            return OPENMP["msvc"]
        row = OPENMP["apple" if sys.platform == "darwin" else "gcc"]
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        if self.takes(program, *row):
            return row
        print("fastelbo: no OpenMP in this compiler; kernels will run on one thread")
        return [], []


@contextlib.contextmanager
def no_stderr():
    """The compiler's own complaints are not for the user."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as silence:
            os.dup2(silence.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def chosen_builds(wanted, runs):
    """The names of BUILDS to compile: `wanted` is FASTELBO_BUILDS, and runs(name) tells whether
    this machine runs one, or None where it cannot tell. Then all are compiled."""
    if wanted == "all":
        return list(BUILDS)
    if wanted:
        chosen = wanted.split(",")
        if not set(chosen) <= set(BUILDS):
            unknown = sorted(set(chosen) - set(BUILDS))
            known = [*BUILDS, "all"]
            raise SystemExit(f"FASTELBO_BUILDS: unknown {unknown}, expected {known}")
        return chosen
    narrowest, *wider = BUILDS
    answers = {name: runs(name) for name in wider}
    if None in answers.values():
        return list(BUILDS)
    return [narrowest, *[name for name in wider if answers[name]][-1:]]


class BuildKernels(build_ext):
    def initialize_options(self):
        super().initialize_options()
        self.parallel = os.cpu_count()

    def build_extensions(self):
        kind = self.compiler.compiler_type
        inline = ("CYTHON_INLINE", INLINE.get(kind, INLINE["unix"]))
        compiler = Compiler()
        program = "int main(void) { return 0; }\n"
        beside = BESIDE_PASSES.get(kind, BESIDE_PASSES["unix"])
        always = list(ALWAYS.get(kind, ALWAYS["unix"]))
        always += [flag for flag in OPTIONAL if compiler.takes(program, [flag])]
        unswitch, few_copies = (
            [flag for flag in flags if compiler.takes(program, [flag])]
            for flags in ([UNSWITCH], FEW_COPIES)
        )
        compile_openmp, link_openmp = compiler.openmp()
        for extension in self.extensions:
            family = extension.name.rpartition(".")[2]
            extension.extra_compile_args = [
                *always,
                *compile_openmp,
                *([] if family in UNSWITCHED else unswitch),
                *(few_copies if family in COPIED_LESS else []),
                *extension.extra_compile_args,
            ]
            if extension.name.startswith("fastelbo._kernels."):
                extension.define_macros.append(inline)
            else:
                extension.extra_compile_args += beside
            extension.extra_compile_args += WATCHED
            extension.extra_link_args = link_openmp + extension.extra_link_args + WATCHED
        super().build_extensions()

    def run(self):
        super().run()
        if not self.inplace:
            self.remove_others()
            # In a clone, ./fastelbo shadows the installed package for `python -m fastelbo`: it
            # needs the kernels, too.
            with contextlib.suppress(OSError):
                self.copy_extensions_to_source()

    def remove_others(self):
        """A wheel is packed from all of build/lib: what an earlier run left there is not for it."""
        made = {Path(path).resolve() for path in self.get_outputs()}
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        for path in Path(self.build_lib).resolve().rglob(f"*{suffix}"):
            if path not in made:
                path.unlink()

    def copy_extensions_to_source(self):
        for build in BUILDS:
            (KERNELS / build).mkdir(exist_ok=True)
        super().copy_extensions_to_source()


def length_with_includes(source):
    text = source.read_text(encoding="utf-8")
    included = re.findall('^include "(.+)"', text, re.MULTILINE)
    return len(text) + sum(length_with_includes(source.parent / name) for name in included)


def translate_all():
    """Run Cython on every module, the longest first, so that no core waits for another in the end.

    Its trees of syntax are large and stay: to search them for garbage takes a third of its time.
    It goes by times, which change where pip unpacks NumPy anew: so contents are compared before.
    """
    from Cython.Build import cythonize

    read, known = digest_of_sources(), Path("build/cython/digest")
    if known.exists() and known.read_text() == read:
        return
    sources = [KERNELS / f"{family}.pyx" for family in families()]
    sources += [Path("fastelbo") / f"{name}.pyx" for name in compiled()]
    sources.sort(key=length_with_includes, reverse=True)
    with ProcessPoolExecutor(os.cpu_count(), initializer=gc.disable) as pool:
        translations = [
            pool.submit(
                cythonize,
                [Extension(".".join(source.with_suffix("").parts), [str(source)])],
                build_dir="build/cython",
                compiler_directives=DIRECTIVES,
                include_path=["."],
            )
            for source in sources
        ]
    for translation in translations:
        translation.result()
    known.write_text(read)


def digest_of_sources():
    """Of everything that Cython reads."""
    import Cython
    import numpy

    digest = hashlib.sha256(repr((Cython.__version__, numpy.__version__, DIRECTIVES)).encode())
    for path in sorted(Path("fastelbo").rglob("*.p[yx][xdi]")):
        digest.update(f"{path} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def extensions(builds):
    """One Extension per (build, family), each from a copy of the C file of its own: setuptools
    places object files by the path of their source."""
    import numpy

    translate_all()
    settings = {
        "include_dirs": [numpy.get_include(), "fastelbo", "fastelbo/include"],
        "depends": [str(path) for path in Path("fastelbo").rglob("*.h")],
        "define_macros": [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    }
    made = []
    for name in compiled():
        source = own_copy(Path("fastelbo") / f"{name}.c", "build/beside")
        made.append(Extension(f"fastelbo.{name}", [source], **copy_of(settings)))
    for build in builds:
        for family in families():
            source = own_copy(KERNELS / f"{family}.c", f"build/kernels/{build}")
            made.append(
                Extension(
                    f"fastelbo._kernels.{build}.{family}",
                    [source],
                    extra_compile_args=list(BUILDS[build]),
                    **copy_of(settings),
                )
            )
    # The largest first, so that no core waits for the other in the end.
    return sorted(made, key=lambda e: Path(e.sources[0]).stat().st_size, reverse=True)


def copy_of(settings):
    return {key: list(value) for key, value in settings.items()}


def own_copy(translated, folder):
    """The path of a copy, made where contents differ: what is unchanged is not compiled again."""
    source, target = Path("build/cython") / translated, Path(folder) / translated.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)
    return str(target)


def main():
    os.chdir(HERE)
    made = []
    if {"build_ext", "build", "install", "bdist_wheel", "develop", "editable_wheel"} & {*sys.argv}:
        compiler = Compiler()
        compiler.check()
        builds = chosen_builds(os.environ.get("FASTELBO_BUILDS"), compiler.runs)
        print(f"fastelbo: compiling {', '.join(builds)}")
        made = extensions(builds)
    setup(ext_modules=made, cmdclass={"build_ext": BuildKernels})


if __name__ == "__main__":  # and not in the processes that run Cython
    main()
