from typing import Final, TypedDict

__version__: Final[str]

class _BuildInfo(TypedDict):
    fastelbo: str
    build: str
    builds: tuple[str, ...]
    openmp: int
    threads: int
    numpy: str
    python: str

def build_info() -> _BuildInfo: ...
