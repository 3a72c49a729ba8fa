"""What `engine="auto"` remembers: a small JSON file for each thing measured, in the cache directory of the platform.

A file holds numbers and names, never code. What cannot be read as such is as if it were not there.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "cache_directory", "clear_auto_cache", "path_of", "read", "write"]

FORMAT = 1
_LARGEST = 1_000_000  # bytes; ours are of a few hundred


def cache_directory() -> Path:
    """Where Cornu may keep what it can make again: `CORNU_CACHE_DIR`, else the platform's place.

    Example:
        >>> cache_directory().is_absolute()
        True
    """
    given = os.environ.get("CORNU_CACHE_DIR")
    if given:
        return Path(given).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cornu"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "cornu" / "Cache"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "cornu"


def _folder() -> Path:
    return cache_directory() / "auto"


def path_of(key: str) -> Path:
    """The file of a key (hexadecimal digits)."""
    return _folder() / f"{key[:32]}.json"


def read(key: str) -> dict[str, Any] | None:
    """The record of a key; `None` if there is none, or what is there is damaged or of another make."""
    path = path_of(key)
    try:
        if path.stat().st_size > _LARGEST:
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("key") != key:
        return None
    return record


def write(key: str, record: dict[str, Any]) -> Path:
    """Write a record under a temporary name, then rename it.

    Args:
        key: hexadecimal digits.
        record: plain values.

    Returns:
        the file.

    Raises:
        OSError: if it cannot be written.
    """
    path = path_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "key": key, **record}, file, indent=1, allow_nan=False)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def clear_auto_cache() -> int:
    """Forget all that `engine="auto"` has measured.

    Returns:
        how many records there were.
    """
    paths = [*_folder().glob("*.json"), *_folder().glob("*.part")]
    for path in paths:
        path.unlink(missing_ok=True)
    return sum(path.suffix == ".json" for path in paths)
