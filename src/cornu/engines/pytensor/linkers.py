"""How a graph is compiled: by PyTensor's JAX, C or Numba linker, or run by Python."""

import contextlib
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.mode import Mode
from pytensor.link.numba.linker import NumbaLinker
from pytensor.link.vm import VMLinker

from cornu.core.errors import ArgumentError
from cornu.engines.pytensor.quirks import query
from cornu.engines.pytensor.values import Known, Traced, release
from cornu.engines.registry import import_undrawn

__all__ = ["LINKERS", "build", "chosen", "mode", "use_compile_cache"]

LINKERS = ("jax", "c", "numba", "py")
_compiling = threading.RLock()


def chosen() -> str:
    """The linker in force: `CORNU_PYTENSOR_LINKER`, else the first that is there of JAX, C, Numba and Python.

    Raises:
        ArgumentError: if the variable names none.
    """
    name = os.environ.get("CORNU_PYTENSOR_LINKER")
    if name:
        if name not in LINKERS:
            raise ArgumentError(f"CORNU_PYTENSOR_LINKER={name!r}", f"one of {', '.join(LINKERS)}")
        return name
    if find_spec("jax") is not None:
        return "jax"
    if pytensor.config.cxx and shutil.which(pytensor.config.cxx):
        return "c"
    return "numba" if find_spec("numba") is not None else "py"


def mode(name: str) -> Mode:
    """How a linker's graphs are rewritten and run; a loop's own graph inside too."""
    if name == "jax":
        jax_mode: Mode = _by_jax().mode()
        return jax_mode
    if name == "py":
        return Mode(VMLinker(use_cloop=False, c_thunks=False), query("fast_compile"))
    if name == "c":
        return Mode(VMLinker(use_cloop=True), query("fast_run"))
    return Mode(NumbaLinker(), query("fast_run", "numba"))


def _by_jax() -> Any:
    """What needs JAX, imported where the JAX linker is in force and nowhere else."""
    return import_undrawn("cornu.engines.pytensor.by_jax")


def use_compile_cache(directory: Path | None) -> str | None:
    """Let the linker in force keep what it compiles below a directory, where that can be chosen.

    Returns:
        what is kept and where, in words.
    """
    name = chosen()
    if name == "jax":
        folder = import_undrawn("cornu.engines.jax.stored").use(directory)
        return None if folder is None else f"what its JAX linker compiles in {folder}"
    own = {"c": pytensor.config.compiledir, "numba": Path(pytensor.config.base_compiledir) / "numba"}
    # PyTensor settles its directory when it is imported: PYTENSOR_FLAGS=base_compiledir=... moves it.
    return f"what its {name} linker compiles in {own[name]}, always" if directory and name in own else None


def build(inputs: list[Traced], outputs: list[Any], donated: int) -> Callable[[list[Known]], list[Known]]:
    """A fast function for a graph.

    Args:
        inputs: the variables that stand for the arguments.
        outputs: the results as variables of the graph, or known already.
        donated: how many of the first arguments may lend their memory to the results.

    Returns:
        function of a list of constants that gives a list of constants.
    """
    place = {variable: i for i, variable in enumerate(inputs)}
    wanted = [out for out in dict.fromkeys(outputs) if isinstance(out, Traced) and out not in place]
    index = {out: i for i, out in enumerate(wanted)}
    passed = {place[out] for out in outputs if out in place}
    lent = [i for i in range(donated) if i not in passed]
    release(wanted)
    run = _compiled(chosen(), inputs, wanted, lent) if wanted else (lambda raw: [])
    # Where each result comes from: the compiled function, an argument, or it is known.
    plan = [(index.get(out), place.get(out), out) for out in outputs]

    def call(values: list[Known]) -> list[Known]:
        found = run([value.raw for value in values])
        return [
            Known(found[made]) if made is not None else values[given] if given is not None else out
            for made, given, out in plan
        ]

    return call


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without Numba's remarks on speed, which it makes when it compiles: at the first call too."""
    if name != "numba":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Numba will use object mode|.*is faster on contiguous arrays")
        yield


def _compiled(
    name: str, inputs: list[Traced], outputs: list[Traced], lent: list[int]
) -> Callable[[list[Any]], list[Any]]:
    # One graph at a time: PyTensor's rewrites keep state, and its C compiler locks a folder.
    with _compiling:
        if name == "jax":
            run_by_jax: Callable[[list[Any]], list[Any]] = _by_jax().compiled(inputs, outputs, lent)
            return run_by_jax
        # Arguments keep their memory: results may not share it, nor be written over it.
        with _quiet(name):
            function = pytensor.function(list(inputs), list(outputs), mode=mode(name), on_unused_input="ignore")
    function.trust_input = True
    running = threading.Lock()  # a function of PyTensor has one place for each argument

    def run(raw: list[Any]) -> list[Any]:
        with running, _quiet(name):
            found: list[Any] = function(*map(np.asarray, raw))
        return found

    return run
