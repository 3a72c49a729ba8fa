"""What an engine says of itself, found in a process of its own: a library that is broken takes nobody down with it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cornu.engines import compile_cache, registry

__all__ = ["probe"]

_MARK = "cornu-probe:"
_CODE = "import sys; sys.path.append(sys.argv[1]); from cornu.engines import probe; probe.answer(sys.argv[2])"


def answer(name: str) -> None:
    """Print what an engine says of itself; for the process that `probe` starts."""
    try:
        engine = registry.get(name)
        details = engine.details()
        if compile_cache.compile_cache_directory() is not None:
            details = {**details, "keeps": compile_cache.kept.get(engine.name) or "nothing of what it compiles"}
        found: dict[str, Any] = {"devices": engine.devices(), "details": details}
    except Exception as error:  # a library may raise anything while it is imported: that is the answer
        found = {"problem": f"{type(error).__name__}: {error}"}
    print(_MARK + json.dumps(found), flush=True)


def probe(name: str, timeout: float = 60.0) -> dict[str, Any]:
    """Import an engine in a process of its own, and ask it.

    Args:
        name: the engine's name.
        timeout: seconds after which the process is ended.

    Returns:
        `"seconds"` it took, and either `"devices"` and `"details"`, or `"problem"`: why it cannot be used.
    """
    start = time.monotonic()
    command = [sys.executable, "-P", "-c", _CODE, str(Path(__file__).parents[2]), name]
    # Files rather than pipes: what a library leaves running cannot keep us waiting for their end.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            code = None
        out.seek(0)
        err.seek(0)
        found = _found(out.read(), err.read(), code, timeout)
    return {**found, "seconds": round(time.monotonic() - start, 1)}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _found(out: str, err: str, code: int | None, timeout: float) -> dict[str, Any]:
    for line in out.splitlines():
        if line.startswith(_MARK):
            found = json.loads(line.removeprefix(_MARK))
            if "problem" in found:
                found["problem"] = " ".join(found["problem"].split())
            return dict(found)
    if code is None:
        return {"problem": f"importing it took more than {timeout:g} s"}
    if code < 0:
        return {"problem": f"importing it ended the process by signal {signal.Signals(-code).name}"}
    last = [line.strip() for line in err.splitlines() if line.strip()][-1:]
    return {"problem": f"importing it ended the process with code {code}" + "".join(f": {line}" for line in last)}
