"""PyTensor's variables as values: constants that are known, and variables that stand for what is not."""

import functools
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import toposort
from pytensor.tensor.basic import tensor_copy
from pytensor.tensor.type import TensorType
from pytensor.tensor.variable import TensorConstant, TensorVariable

from cornu.core import context
from cornu.core.dims import shape_text
from cornu.core.errors import DtypeError, GraphError, ShapeError
from cornu.core.spec import ArrayOperators, Spec

__all__ = ["Known", "Traced", "is_traced", "known", "spec_of", "stand_in", "traced", "tracing", "type_of"]

# Whether a function is being traced.
tracing: ContextVar[bool] = ContextVar("cornu_pytensor_tracing", default=False)

_names: dict[Any, str] = {}


@functools.lru_cache(maxsize=4096)
def type_of(dtype: str, shape: tuple[int, ...]) -> TensorType:
    """PyTensor's type of arrays with this dtype and shape.

    Raises:
        DtypeError: for bfloat16, which PyTensor lacks.
    """
    check_dtype(dtype)
    return TensorType(dtype, shape)


def check_dtype(dtype: str) -> None:
    """Refuse the dtype that PyTensor lacks.

    Raises:
        DtypeError: for bfloat16.
    """
    if dtype == "bfloat16":
        raise DtypeError("bfloat16 on engine 'pytensor', which lacks it", "float32 or float16", "another engine")


def _by_language(name: str) -> Any:
    """A Python operator as the op of the language, but among PyTensor's own variables as PyTensor has it."""
    language, own = getattr(ArrayOperators, name), getattr(TensorVariable, name)

    def run(self: Any, *other: Any) -> Any:
        if other and type(other[0]) in (TensorVariable, TensorConstant, list):
            return own(self, *other)
        if context.watcher.get() is None:
            return language(self, *other)
        token = context.watcher.set(None)  # an engine's own operators are not seen by who watches its ops
        try:
            return language(self, *other)
        finally:
            context.watcher.reset(token)

    return run


class _Operators:
    """Python's operators with the language's dtypes: PyTensor would read the number in `x * 0.1` as a float64."""

    __array_priority__ = 2000


for _name in (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul "
    "and rand or ror xor rxor lt le gt ge neg abs invert"
).split():
    setattr(_Operators, f"__{_name}__", _by_language(f"__{_name}__"))


class Known(_Operators, TensorConstant):  # type: ignore[misc]
    """A PyTensor constant that is cheap to make: what PyTensor itself needs of it is filled in when asked for.

    Args:
        raw: the elements, a NumPy array or what a linker gave.
    """

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> Any:
        if name in ("type", "tag", "name", "data"):
            host = np.asarray(self.raw)
            TensorConstant.__init__(self, type_of(host.dtype.name, host.shape), host)
            return self.__dict__[name]
        raise AttributeError(name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes."""
        shape: tuple[int, ...] = self.raw.shape
        return shape

    @property
    def dtype(self) -> str:
        """The dtype's name."""
        dtype = self.raw.dtype
        found = _names.get(dtype)
        if found is None:
            found = _names[dtype] = dtype.name
        return found

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.raw.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self.raw.size)

    def host(self) -> np.ndarray:
        """The elements as a host array."""
        return np.asarray(self.raw)

    __getitem__ = ArrayOperators.__getitem__
    __hash__ = object.__hash__

    def item(self) -> Any:
        """The one element as a Python number."""
        return self.host().item()

    def tolist(self) -> Any:
        """The elements as Python numbers in lists."""
        return self.host().tolist()

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.host())

    def __bool__(self) -> bool:
        return bool(self.host())

    def __int__(self) -> int:
        return int(self.host())

    def __float__(self) -> float:
        return float(self.host())

    def __index__(self) -> int:
        return self.host().__index__()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.host(), dtype) if copy else np.asarray(self.host(), dtype)

    def __copy__(self) -> "Known":
        return Known(self.raw)

    def __deepcopy__(self, memo: Any) -> "Known":
        return Known(np.array(self.host()))

    def __reduce__(self) -> Any:
        return Known, (self.host(),)

    def __repr__(self, *_: Any) -> str:
        return f"Known({self.host()!r})"


def _parts(key: Any) -> Iterator[Any]:
    """What an index is made of."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, slice):
            yield from (part.start, part.stop, part.step)
        else:
            yield part


class Traced(_Operators, TensorVariable):  # type: ignore[misc]
    """A PyTensor variable in a function that is being traced, every size known."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes."""
        shape: tuple[int, ...] = self.type.shape
        return shape

    __hash__ = object.__hash__
    __array_ufunc__ = ArrayOperators.__array_ufunc__
    __array_function__ = ArrayOperators.__array_function__
    _no_op = ArrayOperators._no_op

    def __getitem__(self, key: Any) -> Any:
        if any(type(part) in (TensorVariable, TensorConstant) for part in _parts(key)):
            return TensorVariable.__getitem__(self, key)
        return ArrayOperators.__getitem__(self, key)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def _unknown(self, *_: Any) -> Any:
        raise GraphError(
            f"the elements of a {self.dtype} value of shape {shape_text(self.shape)} were asked for while a "
            "function is traced",
            "a computation that does not branch on values",
            "use ops.where, ops.cond or ops.while_loop",
        )

    __bool__ = __int__ = __float__ = __index__ = _unknown

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array: np.ndarray = self._unknown()
        return array


def known(value: Any) -> Known:
    """A host array as a constant.

    Raises:
        DtypeError: for bfloat16, which PyTensor lacks.
    """
    host = np.asarray(value)
    check_dtype(host.dtype.name)
    return Known(host)


def stand_in(dtype: str, shape: tuple[int, ...]) -> Traced:
    """A variable for an array that is not known yet."""
    return traced(type_of(dtype, tuple(shape))())


def _become(variable: Any, kind: type) -> None:
    variable.__class__ = kind


def traced(variable: Any) -> Any:
    """The variable itself, as one of a traced function.

    Raises:
        ShapeError: if PyTensor does not know a size.
    """
    if type(variable) is TensorVariable:
        if None in variable.type.shape:
            raise ShapeError(
                f"PyTensor does not know the shape of {variable} ({variable.type})",
                "sizes that follow from those of the inputs",
                "pytensor.tensor.specify_shape(x, shape)",
            )
        _become(variable, Traced)
    return variable


def release(outputs: Iterable[Any]) -> None:
    """Make the variables of a graph PyTensor's plain ones again, for its rewrites."""
    for node in toposort([out for out in outputs if out.owner is not None]):
        for variable in (*node.inputs, *node.outputs):
            if type(variable) is Traced:
                _become(variable, TensorVariable)


def is_traced(variable: Any) -> bool:
    """Whether a variable depends on one that stands for what is not known."""
    if isinstance(variable, (Traced, Constant)):
        return isinstance(variable, Traced)
    pending, seen = [variable], set()
    while pending:
        one = pending.pop()
        if isinstance(one, Traced) or (one.owner is None and not isinstance(one, Constant)):
            return True
        if one.owner is not None and one.owner not in seen:
            seen.add(one.owner)
            pending.extend(one.owner.inputs)
    return False


def settle(variable: Any) -> Any:
    """A variable made by PyTensor's own functions as one of ours: computed at once where nothing in it is traced."""
    if isinstance(variable, (Known, Traced)):
        return variable
    if isinstance(variable, Constant):
        return Known(np.asarray(variable.data))
    if not is_traced(variable):
        return Known(np.asarray(compute([variable])[0]))
    # Inside PyTensor's `scan`, and for its shared variables, kinds of their own: a copy is a plain variable.
    return traced(variable if type(variable) is TensorVariable else tensor_copy(variable))


def compute(outputs: Iterable[Any], given: dict[Any, Any] | None = None) -> list[Any]:
    """The values of variables, node by node with PyTensor's `perform`; nothing is compiled.

    Args:
        outputs: the variables.
        given: what the variables that stand for something are.
    """
    outputs = list(outputs)
    values: dict[Any, Any] = dict(given or {})

    def value_of(variable: Any) -> Any:
        return variable.data if isinstance(variable, Constant) else values[variable]

    for node in toposort(outputs, blockers=values):
        storage: list[list[Any]] = [[None] for _ in node.outputs]
        node.op.perform(node, [value_of(v) for v in node.inputs], storage)
        values.update(zip(node.outputs, (cell[0] for cell in storage), strict=True))
    return [value_of(v) for v in outputs]


def spec_of(value: Any) -> Spec:
    """The shape and dtype of one of our values."""
    return Spec(value.shape, value.dtype)
