"""Whether operators of our own stand in a trace in one piece, or written out for a compiler that joins operators."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["is_written_out", "written_out"]

_open: ContextVar[bool] = ContextVar("cornu_torch_written_out", default=False)


@contextlib.contextmanager
def written_out(on: bool) -> Iterator[None]:
    """Write our own operators out in PyTorch's within the block."""
    token = _open.set(on)
    try:
        yield
    finally:
        _open.reset(token)


def is_written_out() -> bool:
    """Whether they are to be written out here and now."""
    return _open.get()
