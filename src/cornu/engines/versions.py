"""Versions of libraries, found without importing them."""

import functools
import importlib.util

__all__ = ["LEAST", "too_old", "version_of"]

# library -> the least version, where an older one lacks kernels or gives other numbers (as `pyproject.toml` has it).
LEAST = {"onnxruntime": "1.32"}


@functools.cache
def version_of(library: str) -> str | None:
    """The version of an importable library, from what its installer left; `None` if there is no such library.

    Args:
        library: the name it is imported by; its distribution may have another (`tensorflow-cpu`).
    """
    from importlib import metadata

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        pass
    if importlib.util.find_spec(library) is None:
        return None
    found = metadata.packages_distributions().get(library)
    return metadata.version(found[0]) if found else "of unknown version"


def too_old(library: str) -> str | None:
    """The version of an installed library if it is older than one that works."""
    if library not in LEAST:
        return None
    found = version_of(library) or ""
    return found if _number(found) and _number(found) < _number(LEAST[library]) else None


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2] if part.isdigit()]
