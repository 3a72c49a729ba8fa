"""`cornu doctor`: what is installed, what is missing, and the command that would bring it."""

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterable
from typing import Any

from cornu.core.errors import EngineError
from cornu.engines import cache, compile_cache, registry
from cornu.engines.installed import THREADS, cores, engine_versions, processor, threads
from cornu.engines.probe import probe
from cornu.engines.versions import version_of

__all__ = ["examine", "render"]


def examine(asking: bool = True, timeout: float = 60.0) -> dict[str, Any]:
    """All that the doctor finds, as plain values.

    Args:
        asking: whether each installed engine is imported, in a process of its own, and asked for its devices.
        timeout: seconds an engine may take to answer.

    Returns:
        `"cornu"`, `"python"`, `"machine"`, `"engines"`, `"default"`, `"threads"`, `"extras"` and `"cache"`.
    """
    return {
        "cornu": {"version": version_of("cornu") or "not installed: run from its source"},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "machine": {
            "platform": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "cores_of_this_process": cores(),
        },
        "engines": {name: _engine(name, version, asking, timeout) for name, version in engine_versions().items()},
        "default": _default(),
        "threads": {**dict.fromkeys(THREADS), **threads()},
        "extras": _extras(),
        "cache": _cache(),
    }


def _engine(name: str, version: str | None, asking: bool, timeout: float) -> dict[str, Any]:
    _, library, extra = registry.ENGINES[name]
    if version is None:
        install = f"pip install 'cornu[{extra}]'" if extra else f"pip install {library}"
        return {"version": None, "install": install}
    return {"version": version, **(probe(name, timeout) if asking else {})}


def _default() -> dict[str, str]:
    """The default engine, and who says so."""
    said = next((name for name in ("CORNU_ENGINE", "KERAS_BACKEND") if os.environ.get(name)), None)
    try:
        auto = registry.auto_in_force() is not None
        return {
            "engine": "auto" if auto else registry.fallback_name(),
            "because": f"{said}={os.environ[said]}" if said else "nothing else was chosen",
        }
    except EngineError as error:
        return {"engine": "none", "because": f"{said}: {error.got}; expected {error.expected}"}


def _cache() -> dict[str, Any]:
    folder = cache.cache_directory()
    found = {"directory": str(folder), "auto_records": sum(1 for _ in (folder / "auto").glob("*.json"))}
    return {**found, "compiled": _compiled()}


def _compiled() -> dict[str, Any] | None:
    """The compile cache: where, how much is in it, and what speaks against it; `None` if it is off."""
    folder = compile_cache.compile_cache_directory()
    if folder is None:
        return None
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    found = {"directory": str(folder), "files": len(sizes), "bytes": sum(sizes)}
    problem = compile_cache.why_unfit(folder)
    return found if problem is None else {**found, "problem": problem}


def _extras() -> dict[str, Any]:
    """The extras of this distribution: what each brings, what of it is missing, and the command."""
    try:
        about = importlib.metadata.metadata("cornu")
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, Any] = {}
    for extra in about.get_all("Provides-Extra") or []:
        names = _required(extra, about.get_all("Requires-Dist") or [])
        present = {name: version_of(name) or version_of(name.replace("-", "_")) for name in names}
        missing = [name for name, version in present.items() if version is None]
        found[extra] = {
            "present": {name: version for name, version in present.items() if version is not None},
            "missing": missing,
            **({"install": f"pip install 'cornu[{extra}]'"} if missing else {}),
        }
    return found


def _required(extra: str, lines: list[str]) -> list[str]:
    """The distributions an extra asks for, with those of the extras it takes in."""
    names: list[str] = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        if not re.fullmatch(rf"\s*\(?\s*extra\s*==\s*['\"]{re.escape(extra)}['\"]\s*\)?\s*", marker):
            continue
        match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", requirement)
        if match is None:
            continue
        if match[1] == "cornu":
            for inner in (match[2] or "").split(","):
                names += _required(inner.strip(), lines) if inner.strip() != extra else []
        else:
            names.append(match[1])
    return list(dict.fromkeys(names))


# ---------------------------------------------------------------- in words


def render(found: dict[str, Any]) -> str:
    """What `examine` found, as text."""
    machine, python = found["machine"], found["python"]
    settings = [f"{name}={value}" for name, value in found["threads"].items() if value is not None]
    unset = [name for name, value in found["threads"].items() if value is None]
    own = f"{machine['cores_of_this_process']} of {machine['cores']} cores"
    about = [
        ("Python", f"{python['version']}  {python['executable']}"),
        ("platform", machine["platform"]),
        ("processor", f"{machine['processor']}, {own}"),
        ("default engine", f"{found['default']['engine']} ({found['default']['because']})"),
        ("cache", f"{found['cache']['directory']}  (engine='auto' has left {found['cache']['auto_records']} records)"),
        ("compile cache", _compiled_in_words(found["cache"]["compiled"])),
    ]
    parts = [
        f"Cornu {found['cornu']['version']}",
        *_table(about),
        "",
        "Engines",
        *_table(_engine_row(name, one) for name, one in found["engines"].items()),
        *(f"  {name}: {key} {value}" for name, one in found["engines"].items() for key, value in _details(one)),
        "",
        "Threads",
        *_table([("set", " ".join(settings) or "none"), ("not set", " ".join(unset) or "none")]),
        "",
        "Extras",
        *(_table(_extra_row(name, one) for name, one in found["extras"].items()) or ["  unknown: run from its source"]),
    ]
    return "\n".join(parts)


def _compiled_in_words(found: dict[str, Any] | None) -> str:
    if found is None:
        return f"off  ({compile_cache.VARIABLE}=1 or cornu.set_compile_cache() turns it on)"
    about = f"{found['directory']}  ({found['files']} files, {found['bytes'] / 1e6:.1f} MB)"
    return f"{about}: not used, for it {found['problem']}" if "problem" in found else about


def _details(engine: dict[str, Any]) -> Iterable[tuple[str, str]]:
    return engine.get("details", {}).items()


def _engine_row(name: str, engine: dict[str, Any]) -> tuple[str, ...]:
    if engine["version"] is None:
        return name, "missing", engine["install"]
    if "problem" in engine:
        return name, engine["version"], f"cannot be used: {engine['problem']}", f"({engine['seconds']} s)"
    if "devices" in engine:
        return name, engine["version"], ", ".join(engine["devices"]), f"({engine['seconds']} s to import)"
    return name, engine["version"], "not asked for its devices"


def _extra_row(name: str, extra: dict[str, Any]) -> tuple[str, ...]:
    if extra["missing"]:
        return name, f"missing {', '.join(extra['missing'])}", extra["install"]
    return name, ", ".join(f"{other} {version}" for other, version in extra["present"].items()) or "brings nothing"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Rows as lines; the first two columns are aligned, if they are not too wide."""
    kept = list(rows)
    widths = [max((len(row[i]) for row in kept if len(row) > i + 1), default=0) for i in range(2)]
    lines = []
    for row in kept:
        cells = [cell.ljust(min(widths[i], 40)) if i < 2 and i + 1 < len(row) else cell for i, cell in enumerate(row)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
