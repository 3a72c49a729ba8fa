"""The exception tree, and the one writer of messages.

Every error Cornu raises is a `CornuError`, and also the built-in kind a Keras user would catch:

    CornuError
    ├── ShapeError          (ValueError)           sizes or ranks that do not fit
    ├── DtypeError          (TypeError)            a dtype, or a kind of value, that does not fit
    ├── ArgumentError       (ValueError)           an argument outside its limits
    ├── BindingError        (ValueError)           a name that is missing, extra or misspelt
    ├── GraphError          (ValueError)           a graph that cannot be made, cut or run
    ├── BuildError          (ValueError)           a layer used before, or built against, its weights
    ├── MaskError           (ValueError)           a mask that would be lost
    ├── DataError           (ValueError)           data that does not fit the model or runs dry
    ├── SavingError         (ValueError)           a file that cannot be written or read whole
    ├── NonFiniteError      (ArithmeticError)      a loss that left the finite numbers
    ├── EngineError         (RuntimeError)         an engine that cannot do what was asked
    │   └── MissingEngineError (ImportError)       an engine or extra that is not installed
    └── UnsupportedError    (NotImplementedError)  a thing Cornu does not do

A message answers: what came, what was expected, how to repair it, in which layer, and on which line of
the user's own file.
"""

import difflib
import os
import sys
import sysconfig
from collections.abc import Iterable
from types import FrameType

__all__ = [
    "ArgumentError",
    "BindingError",
    "BuildError",
    "CornuError",
    "CornuWarning",
    "DataError",
    "DtypeError",
    "EngineError",
    "GraphError",
    "MaskError",
    "MaskWarning",
    "MissingEngineError",
    "NonFiniteError",
    "SavingError",
    "ShapeError",
    "UnsupportedError",
    "near_miss",
    "user_line",
]

_HOUSE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES = tuple(
    {path + os.sep for path in map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")) if path}
)


class CornuError(Exception):
    """Base of all errors of Cornu.

    Args:
        got: what came, with names and shapes.
        expected: what would have been right.
        fix: how to repair it.

    The layer's path, a node's line of birth and the user's line are filled in as the error travels up.
    """

    def __init__(self, got: str, expected: str | None = None, fix: str | None = None) -> None:
        super().__init__(got)
        self.got = got
        self.expected = expected
        self.fix = fix
        self.layer: str | None = None
        self.inputs: str | None = None
        self.defined: str | None = None
        self.where: str | None = user_line()

    def locate(self, *, layer: str | None = None, inputs: str | None = None, defined: str | None = None) -> None:
        """Add where it happened; what is known already (the innermost) is kept."""
        if self.layer is None:
            self.layer, self.inputs = layer, inputs
        self.defined = self.defined or defined

    def __str__(self) -> str:
        lines = [self.got]
        for label, text in (
            ("expected", self.expected),
            ("to repair", self.fix),
            ("layer", self.layer),
            ("inputs", self.inputs),
            ("made at", self.defined),
            ("called at", self.where),
        ):
            if text:
                lines.append(f"  {label + ':':<11}{text}")
        return "\n".join(lines)


class ShapeError(CornuError, ValueError):
    """Sizes or ranks that do not fit."""


class DtypeError(CornuError, TypeError):
    """A dtype, or a kind of value, that does not fit."""


class ArgumentError(CornuError, ValueError):
    """An argument outside its limits."""


class BindingError(CornuError, ValueError):
    """A name that is missing, extra or misspelt."""


class GraphError(CornuError, ValueError):
    """A graph that cannot be made, cut or run."""


class BuildError(CornuError, ValueError):
    """A layer used before it is built, or against its weights."""


class MaskError(CornuError, ValueError):
    """A mask that would be lost."""


class DataError(CornuError, ValueError):
    """Data that does not fit the model, or runs dry."""


class SavingError(CornuError, ValueError):
    """A file that cannot be written or read whole."""


class NonFiniteError(CornuError, ArithmeticError):
    """A loss that left the finite numbers."""


class EngineError(CornuError, RuntimeError):
    """An engine that cannot do what was asked."""


class MissingEngineError(EngineError, ImportError):
    """An engine or an extra that is not installed."""


class NativeCall(EngineError, TypeError):
    """A function of an engine's own library that was called on what only stands for a value.

    Attributes:
        engine: the engine's name.
        function: the function, in words.
    """

    def __init__(self, engine: str, function: str | None, value: object) -> None:
        self.engine = engine
        self.function = function or _function_of(engine) or f"a function of {engine}"
        super().__init__(
            f"{self.function} was called on {value!r:.80}, which has no value yet",
            "a function of cornu.ops, or one of NumPy's of the same name",
            "call it inside a layer: cornu.layers.Lambda(function), or a Layer subclass with it in `call`",
        )


def _function_of(library: str) -> str | None:
    """The outermost function of a library in the calls in progress, within the user's innermost frame."""
    frame: FrameType | None = sys._getframe(1)
    found = None
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_name
        if module.partition(".")[0] == library and not name.startswith(("<", "_")) and name not in _WRAPPERS:
            found = f"{library}'s {name}"
        frame = frame.f_back
    return found


_WRAPPERS = ("wrapper", "error_handler", "op_dispatch_handler")  # the frames TensorFlow puts around its functions


class UnsupportedError(CornuError, NotImplementedError):
    """A thing Cornu does not do."""


class CornuWarning(UserWarning):
    """Base of all warnings of Cornu."""


class MaskWarning(CornuWarning):
    """A mask ended at a layer that does not know masks."""


def is_user_file(path: str) -> bool:
    """Whether a source file is the user's own: not Cornu's, not a library's, not generated."""
    if path == "<string>":  # generated by a library, unless the user's program is itself `python -c ...`
        return sys.argv[0] == "-c"
    return not path.startswith((_HOUSE, "<frozen", *_LIBRARIES))


def user_line(frame: FrameType | None = None) -> str | None:
    """`file:line, in function` of the innermost frame that is the user's own, or `None`.

    Example:
        >>> user_line() is None or ":" in user_line()
        True
    """
    frame = frame or sys._getframe(1)
    while frame is not None:
        if is_user_file(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


def near_miss(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or an empty string.

    Example:
        >>> near_miss("imgae", ["image", "text"])
        "; did you mean 'image'?"
    """
    found = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
