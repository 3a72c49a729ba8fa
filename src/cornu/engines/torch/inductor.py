"""TorchInductor, which compiles a traced graph where it finds a compiler for the devices in use."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from cornu.core.errors import CornuWarning
from cornu.engines.compile_cache import machine_key, why_unfit

__all__ = ["available", "compiled", "use_folder"]

_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
# What the environment said before the compile cache was turned on: `[]` while it is off.
_before: list[str | None] = []

# What TorchInductor says of itself: of a deprecated part of PyTorch that it imports, and of its own choices on a GPU.
_ITS_OWN = (
    "`torch.jit.script_method` is deprecated",
    "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled",
    r"\s*Online softmax is disabled on the fly",
)


def available(devices: set[str]) -> bool:
    """Whether TorchInductor can compile for these kinds of device here."""
    return all(_has_cpp() if device == "cpu" else _has_triton() for device in devices or {"cpu"})


def _has_cpp() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton())


def compiled(traced: GraphModule, values: list[Any]) -> Callable[[list[Any]], list[Any]]:
    """The graph compiled for tensors like these."""
    with warnings.catch_warnings(), torch.no_grad():
        for message in _ITS_OWN:
            warnings.filterwarnings("ignore", message)
        from torch._inductor.compile_fx import compile_fx

        traced.recompile()
        function: Any = compile_fx(traced, [value.detach().contiguous() for value in values])
    return lambda values: list(function(*values))


def use_folder(directory: Path | None) -> Path | None:
    """Let TorchInductor keep what it compiles below a directory, or where it did before.

    Returns:
        the folder for this machine and version.
    """
    problem = None if directory is None else why_unfit(directory, writable=True)
    if problem is not None:
        warnings.warn(f"the compile cache {directory} {problem}: TorchInductor does not use it", CornuWarning, 2)
    if directory is None or problem is not None:
        if _before:
            before = _before.pop()
            os.environ.pop(_FOLDER, None)
            if before is not None:
                os.environ[_FOLDER] = before
        return None
    folder = directory / "torch" / machine_key([torch.__version__])
    if not _before:
        _before.append(os.environ.get(_FOLDER))
    os.environ[_FOLDER] = str(folder)
    return folder
