"""The compile cache, on by request: what an engine has compiled is kept in a directory for other processes.

What is kept is machine code that later processes run: the directory must be one that only its owner can write to.
"""

import hashlib
import os
import platform
import stat
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cornu.core.errors import ArgumentError, CornuWarning
from cornu.engines import cache

__all__ = ["VARIABLE", "compile_cache_directory", "kept", "machine_key", "set_compile_cache", "tell", "why_unfit"]

VARIABLE = "CORNU_COMPILE_CACHE"

_NEVER_SET: Any = object()
# What `set_compile_cache` was given: a directory, `None` for off.
_chosen: list[Any] = [_NEVER_SET]
_told: list[Any] = []
# name of a loaded engine -> what it keeps, in words; `None` for nothing.
kept: dict[str, str | None] = {}


def set_compile_cache(directory: str | os.PathLike[str] | bool | None = None) -> Path | None:
    """Keep what engines compile in a directory, so that the next process need not compile it again.

    JAX (and PyTensor's JAX linker) and TorchInductor keep their compiled steps there; other engines keep nothing. It
    holds for the whole process, for functions that the user compiles with these libraries too, from now on. The
    environment variable `CORNU_COMPILE_CACHE` says the same: a directory, `1` for the default one, `0` for off.

    Args:
        directory: where; by default `compiled` in Cornu's cache directory (`~/.cache/cornu` on Linux). It holds machine
            code, so it must belong to this user, and nobody else may write to it. `False` turns the cache off.

    Returns:
        the directory; `None` if the cache is off.

    Raises:
        ArgumentError: if it is no directory.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     set_compile_cache(directory) is not None
        ...     set_compile_cache(False) is None
        True
        True
    """
    if directory is None or directory is True:
        found: Path | None = _default()
    elif directory is False:
        found = None
    elif isinstance(directory, (str, os.PathLike)) and os.fspath(directory):
        found = Path(directory).expanduser().absolute()
        if found.exists() and not found.is_dir():
            raise ArgumentError(f"set_compile_cache got {str(found)!r}, which is a file", "a directory")
    else:
        raise ArgumentError(f"set_compile_cache got {directory!r}", "a directory, None for the default, or False")
    _chosen[0] = found
    for engine in list(_told):
        _apply(engine)
    return found


def compile_cache_directory() -> Path | None:
    """The directory in force: `set_compile_cache`'s, else that of `CORNU_COMPILE_CACHE`; `None` if there is none."""
    if _chosen[0] is not _NEVER_SET:
        given: Path | None = _chosen[0]
        return given
    value = os.environ.get(VARIABLE, "")
    if value in ("", "0"):
        return None
    return _default() if value == "1" else Path(value).expanduser().absolute()


def _default() -> Path:
    return cache.cache_directory() / "compiled"


def tell(engine: Any) -> None:
    """Let an engine that has just been loaded know the directory, now and whenever it changes."""
    _told.append(engine)
    if compile_cache_directory() is not None:
        _apply(engine)


def _apply(engine: Any) -> None:
    directory = compile_cache_directory()
    if directory is not None:
        problem = why_unfit(directory)
        if problem is not None:
            warnings.warn(
                f"the compile cache {directory} {problem}: engine {engine.name!r} keeps nothing", CornuWarning, 2
            )
            directory = None
    kept[engine.name] = engine.use_compile_cache(directory)


def why_unfit(directory: Path, writable: bool = False) -> str | None:
    """Why machine code should not be kept in, or taken from, a directory (which need not exist yet).

    Args:
        directory: the directory.
        writable: whether it is unfit, too, if this process cannot write to it.
    """
    there = next((path for path in (directory, *directory.parents) if path.exists()), None)
    if there is None or not there.is_dir():
        return f"cannot be made: {there} is no directory"
    if writable and not os.access(there, os.W_OK | os.X_OK):
        return "cannot be written to"
    if there == directory and hasattr(os, "getuid"):
        about = there.stat()
        if about.st_uid not in (os.getuid(), 0):
            return "belongs to another user"
        if about.st_mode & stat.S_IWOTH:
            return "can be written to by anyone"
    return None


def machine_key(versions: Iterable[str | None]) -> str:
    """What machine code compiled here depends on, as a name: the processor and its abilities, and the versions."""
    what = [platform.system(), platform.machine(), platform.processor(), *_abilities(), *map(str, versions)]
    return hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]


def _abilities() -> list[str]:
    """The processor's name and instruction sets, as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:  # not Linux
        return []
    return [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part", "isa"))]
