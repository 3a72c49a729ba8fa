"""JAX's persistent compilation cache, with a store of its own.

JAX's own store writes in place and has no checksums: a file that another process is writing, or that was damaged, would
be taken for machine code. This one renames complete files into place and takes nothing whose checksum is wrong.
"""

import hashlib
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

from cornu.core.errors import CornuWarning
from cornu.engines.compile_cache import machine_key

__all__ = ["Store", "is_on", "use"]

_MAGIC = b"cornu-jax-1\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size
_LONGEST = 200  # of a file's name

_SETTINGS: dict[str, Any] = {
    "jax_compilation_cache_dir": None,  # filled in
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    "jax_persistent_cache_enable_xla_caches": "none",
}
# The settings as they were before the cache was turned on.
_before: dict[str, Any] = {}


class Store:
    """Compiled functions in files: a mark, a checksum, and what JAX gives. What cannot be read is as if not there.

    Args:
        folder: the directory; made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder
        self._said: set[str] = set()

    def _file(self, key: str) -> Path:
        name = key if len(key) <= _LONGEST else hashlib.sha256(key.encode()).hexdigest()
        return self._path / f"{name}.jaxcode"

    def get(self, key: str) -> bytes | None:
        """What is stored under a key; `None` if there is nothing, or it is damaged."""
        path = self._file(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(f"cannot be read: {error}")
            return None
        body = data[_HEAD:]
        if data[:_HEAD] == _MAGIC + hashlib.sha256(body).digest():
            return body
        self._say(f"has a damaged file, {path.name}, which is made anew", path.name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._say(f"cannot be written to: {error}", "write")
        return None

    def put(self, key: str, value: bytes) -> None:
        """Store under a key: written under a temporary name, then renamed."""
        path = self._file(key)
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(suffix=".part", dir=self._path)
            try:
                with open(handle, "wb") as file:
                    file.write(_MAGIC + hashlib.sha256(value).digest() + value)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            self._say(f"cannot be written to: {error}", "write")

    def _say(self, problem: str, once: str = "read") -> None:
        if once not in self._said:
            self._said.add(once)
            warnings.warn(f"the compile cache {self._path} {problem}", CornuWarning, stacklevel=2)


def use(directory: Path | None) -> Path | None:
    """Let JAX keep what it compiles below a directory, or leave it as it was before.

    Returns:
        the folder for this machine and version.
    """
    if directory is None:
        if _before:
            compilation_cache.reset_cache()
            for name, value in _before.items():
                jax.config.update(name, value)
            _before.clear()
        return None
    folder = directory / "jax" / machine_key([jax.__version__, jaxlib.__version__])
    if not _before:
        _before.update((name, getattr(jax.config, name)) for name in _SETTINGS)
    for name, value in {**_SETTINGS, "jax_compilation_cache_dir": str(folder)}.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    # JAX has no public way to bring a store; where its insides have changed, its own serves.
    inside: Any = sys.modules.get("jax._src.compilation_cache")
    if hasattr(inside, "_cache") and hasattr(inside, "_cache_initialized"):
        inside._cache, inside._cache_initialized = Store(folder), True
    return folder


def is_on() -> bool:
    """Whether JAX keeps what it compiles, wherever."""
    config: Any = jax.config
    return bool(config.jax_compilation_cache_dir)
