"""Compiles every family of passes once for each instruction set.

Cython runs once per family; the C file is then compiled into `fastelbo/_kernels/<build>/<family>`,
once per row of BUILDS. (A module's init function carries only the last part of its name.)
`fastelbo/_builds.py` chooses a build when fastelbo is imported.

Environment: FASTELBO_BUILDS=avx512,baseline compiles only those; FASTELBO_DEBUG=1 checks every
index; FASTELBO_OPENMP=0 builds without threads.
"""

import contextlib
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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
# Kept only where the compiler takes them. gcc would otherwise unroll short lane loops completely
# before the vectoriser sees them; and it would carry the two bounds of a clamp through all that
# follows as constants, to blend every result in the end.
OPTIONAL = ["--param=max-completely-peel-times=8", "-fno-thread-jumps"]

# Modules beside the passes that are compiled, too, once.
COMPILED = ("_arrays", "_objective", "_processor", "_runtime")

INLINE = {
    "unix": "inline __attribute__((always_inline))",
    "msvc": "__forceinline",
}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": bool(os.environ.get("FASTELBO_DEBUG")),
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}


def families():
    """Every pass family is one .pyx in _kernels."""
    return sorted(p.stem for p in (HERE / KERNELS).glob("*.pyx"))


def chosen_builds():
    wanted = os.environ.get("FASTELBO_BUILDS")
    if not wanted:
        return BUILDS
    unknown = set(wanted.split(",")) - set(BUILDS)
    if unknown:
        raise SystemExit(f"FASTELBO_BUILDS: unknown {sorted(unknown)}, expected {list(BUILDS)}")
    return {name: BUILDS[name] for name in wanted.split(",")}


class BuildKernels(build_ext):
    def initialize_options(self):
        super().initialize_options()
        self.parallel = os.cpu_count()

    def build_extensions(self):
        kind = self.compiler.compiler_type
        always = list(ALWAYS["msvc" if kind == "msvc" else "unix"])
        always += [flag for flag in OPTIONAL if self.compiles([flag])]
        compile_openmp, link_openmp = self.openmp()
        for extension in self.extensions:
            extension.extra_compile_args = always + compile_openmp + extension.extra_compile_args
            extension.extra_link_args = link_openmp + extension.extra_link_args
            extension.define_macros.append(("CYTHON_INLINE", INLINE.get(kind, INLINE["unix"])))
        super().build_extensions()

    def run(self):
        super().run()
        if not self.inplace:
            # In a clone, ./fastelbo shadows the installed package for `python -m fastelbo`: it
            # needs the kernels, too.
            with contextlib.suppress(OSError):
                self.copy_extensions_to_source()

    def copy_extensions_to_source(self):
        for build in BUILDS:
            (KERNELS / build).mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def compiles(self, compile_args, link_args=(), source="int main(void) { return 0; }\n"):
        """Does a program with these flags build and link?"""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            saved = os.dup(2)
            with open(os.devnull, "w") as silence:
                os.dup2(silence.fileno(), 2)  # the compiler's own complaint
                try:
                    objects = self.compiler.compile(
                        [str(path)], output_dir=folder, extra_postargs=list(compile_args)
                    )
                    self.compiler.link_executable(
                        objects, str(Path(folder, "probe")), extra_postargs=list(link_args)
                    )
                except Exception:
                    return False
                finally:
                    os.dup2(saved, 2)
                    os.close(saved)
            return True

    def openmp(self):
        if os.environ.get("FASTELBO_OPENMP") == "0":
            return [], []
        if self.compiler.compiler_type == "msvc":
            return OPENMP["msvc"]
        row = OPENMP["apple" if sys.platform == "darwin" else "gcc"]
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        if self.compiles(*row, program):
            return row
        print("fastelbo: no OpenMP in this compiler; kernels will run on one thread")
        return [], []


def extensions():
    """One Extension per (build, family), each from a copy of the C file of its own: setuptools
    places object files by the path of their source."""
    generated = HERE / "build" / "cython"
    modules = [Extension(f"fastelbo._kernels.{f}", [str(KERNELS / f"{f}.pyx")]) for f in families()]
    modules += [Extension(f"fastelbo.{name}", [f"fastelbo/{name}.pyx"]) for name in COMPILED]
    cythonize(
        modules,
        build_dir=str(generated),
        compiler_directives=DIRECTIVES,
        include_path=["."],
        nthreads=0,
    )
    settings = {
        "include_dirs": [numpy.get_include()],
        "define_macros": [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    }
    made = []
    for name in COMPILED:
        source = Path("build/cython/fastelbo") / f"{name}.c"
        made.append(Extension(f"fastelbo.{name}", [str(source)], **copy_of(settings)))
    for build, flags in chosen_builds().items():
        for family in families():
            source = Path("build/kernels") / build / f"{family}.c"
            source.parent.mkdir(parents=True, exist_ok=True)
            refresh(Path("build/cython") / KERNELS / f"{family}.c", source)
            made.append(
                Extension(
                    f"fastelbo._kernels.{build}.{family}",
                    [str(source)],
                    extra_compile_args=list(flags),
                    **copy_of(settings),
                )
            )
    return made


def copy_of(settings):
    return {key: list(value) for key, value in settings.items()}


def refresh(source, target):
    """Copy where the contents differ, so that unchanged kernels are not compiled again."""
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


needs_kernels = {"build_ext", "build", "install", "bdist_wheel", "develop", "editable_wheel"}
os.chdir(HERE)
setup(
    ext_modules=extensions() if needs_kernels & set(sys.argv) else [],
    cmdclass={"build_ext": BuildKernels},
)
