"""`Spec`: the shape and dtype of an array, without data; and the operators every stand-in for an array has."""

from collections.abc import Callable
from typing import Any

from cornu.core.dims import Dim, Size, keras_shape, shape_text
from cornu.core.errors import GraphError, NativeCall, UnsupportedError, near_miss
from cornu.core.tree import leaves

__all__ = ["ArrayOperators", "Spec", "StandIn"]

# name of an operator -> the op that serves it; filled by `cornu.ops` when it is imported.
operators: dict[str, Callable[..., Any]] = {}


def _binary(name: str) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return operators[name](self, other)

    return method


def _reflected(name: str) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return operators[name](other, self)

    return method


def _unary(name: str) -> Callable[..., Any]:
    def method(self: Any) -> Any:
        return operators[name](self)

    return method


class ArrayOperators:
    """Python's operators, each passed to the op of that meaning. NumPy functions of the same name work too."""

    __slots__ = ()
    __array_priority__ = 1000

    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("subtract"), _reflected("subtract")
    __mul__, __rmul__ = _binary("multiply"), _reflected("multiply")
    __truediv__, __rtruediv__ = _binary("divide"), _reflected("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _reflected("floor_divide")
    __mod__, __rmod__ = _binary("mod"), _reflected("mod")
    __pow__, __rpow__ = _binary("power"), _reflected("power")
    __matmul__, __rmatmul__ = _binary("matmul"), _reflected("matmul")
    __and__, __rand__ = _binary("bitwise_and"), _reflected("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or"), _reflected("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor"), _reflected("bitwise_xor")
    __eq__, __ne__ = _binary("equal"), _binary("not_equal")  # type: ignore[assignment]
    __hash__ = object.__hash__
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")
    __neg__, __abs__ = _unary("negative"), _unary("abs")
    __invert__ = _unary("bitwise_not")
    __getitem__ = _binary("get_item")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        op = operators.get(ufunc.__name__)
        if op is None or method != "__call__":
            return self._no_op(ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}")
        return op(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        op = operators.get(function.__name__)
        return op(*args, **kwargs) if op is not None else self._no_op(function.__name__)

    def _no_op(self, name: str) -> Any:
        raise UnsupportedError(
            f"NumPy's {name!r} was called on {self!r:.80}; Cornu has no op of that name{near_miss(name, operators)}",
            "a function of NumPy that is one of cornu.ops too",
        )


class StandIn(ArrayOperators):
    """What stands for a value while a graph is made or shapes are inferred: an engine's own functions refuse it."""

    __slots__ = ()

    def __jax_array__(self) -> Any:
        raise NativeCall("jax", None, self)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        raise NativeCall("tensorflow", None, self)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = next((leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, StandIn)), None)
        raise NativeCall("torch", f"torch's {getattr(function, '__name__', function)}", value)


class Spec(StandIn):
    """The shape and dtype of an array.

    Args:
        shape: sizes; each a number or a `Dim`.
        dtype: the dtype's name.

    Attributes:
        mask: what the abstract interpreter knows of a mask that travels with the value (see `graph.masks`).

    Example:
        >>> Spec((2, 3), "float32")
        Spec((2, 3), float32)
    """

    __slots__ = ("dtype", "mask", "shape")
    shape: tuple[Size, ...]
    dtype: str
    mask: Any

    def __init__(self, shape: tuple[Size, ...], dtype: str, mask: Any = None) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.mask = mask

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Size:
        """Number of elements."""
        total: Size = 1
        for size in self.shape:
            total = total * size
        return total

    @property
    def key(self) -> tuple[tuple[Size, ...], str]:
        """Shape and dtype, to compare or hash (`==` between specs is the op `equal`)."""
        return self.shape, self.dtype

    @property
    def keras_shape(self) -> tuple[int | None, ...]:
        """The shape with `None` for what is not known."""
        return keras_shape(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return int(self.shape[0])

    def __repr__(self) -> str:
        return f"Spec({shape_text(self.shape)}, {self.dtype})"

    def __bool__(self) -> bool:
        if any(isinstance(size, Dim) for size in self.shape) or self.size != 1:
            raise ValueError(f"the truth of {self!r} is not defined")
        raise_on_value(self)
        return False

    def __float__(self) -> float:
        raise_on_value(self)
        return 0.0

    def __iter__(self) -> Any:
        if not self.shape:
            raise TypeError("a scalar cannot be iterated over")
        return (self[i] for i in range(int(self.shape[0])))


def raise_on_value(stand_in: object) -> None:
    """Refuse to give a value where there is none yet."""
    raise GraphError(
        f"{stand_in!r} has no value while shapes are being inferred",
        "a computation written with ops, with no decision on a value",
        "use cornu.ops.where, cond or while_loop, or fit(..., run_eagerly=True) to look at values",
    )
