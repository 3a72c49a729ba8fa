"""`Variable`: a value that a layer, optimizer or metric owns.

A variable belongs to no engine. It holds a host or engine array and a version number; read under an engine, it is
converted once per version. Its first value may be an initializer, drawn only when somebody looks. While `fit`
runs, the values live in the step's state (its *holder*) alone; a variable read then asks the holder.

Where users differentiate with an engine's own means (`tf.GradientTape`, `loss.backward()`), or compile a function of
their own that assigns, the value lives in an object of that engine (its *home*: a `tf.Variable`, an `nn.Parameter`),
which others may write to. So nothing read from a home is remembered.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import BuildError, DtypeError, EngineError, ShapeError
from cornu.core.spec import ArrayOperators, Spec, operators

__all__ = ["Holder", "Home", "Variable", "read_all", "structure_version"]

# Counts every change of a `trainable` flag, so that a compiled step knows when it is out of date.
structure_version = [0]

Initial = Callable[[tuple[int, ...], str], Any]


class Holder(Protocol):
    """Where the values of variables live for a while (a training step's state).

    Attributes:
        idle: whether no step is running, so that it would leave.
    """

    idle: bool

    def read(self, variable: "Variable") -> Any:
        """The variable's current value."""

    def write(self, variable: "Variable", value: Any) -> None:
        """Replace the variable's value."""

    def leave(self) -> bool:
        """Give the values back if no step is running; whether it did."""


class Home(Protocol):
    """An engine's own object in which a variable's value lives.

    Attributes:
        engine: the engine.
        native: the object.
    """

    engine: Any
    native: Any

    def read(self, variable: "Variable") -> Any:
        """The value now."""

    def look(self, variable: "Variable") -> Any:
        """The value for a computation here and now: later writes may change it."""

    def write(self, variable: "Variable", value: Any) -> None:
        """Replace the value."""

    def tracked(self) -> Any:
        """The value as the engine's autodiff follows it."""

    def is_shared(self) -> bool:
        """Whether anybody but the variable may hold the object, or memory of its."""


class Variable(ArrayOperators):
    """An array that persists, and that training may change.

    Args:
        initializer: an array, a number, or a function of `(shape, dtype)` that gives the first value when it is needed.
        shape: sizes; read from the array when left out.
        dtype: the dtype's name; by default the array's (the default float for Python floats).
        trainable: whether gradients reach it.
        autocast: whether a layer's compute dtype applies when it is read.
        name: its name.
        regularizer: a function of the value that gives a penalty, or `None`.
        constraint: a function of the value that gives the nearest permitted value, or `None`.

    Raises:
        ShapeError: if a size is not known, or the value does not have this shape.

    Example:
        >>> v = Variable(np.zeros((2, 3), "float32"), name="kernel")
        >>> v.shape, v.dtype, v.numpy().sum().item()
        ((2, 3), 'float32', 0.0)
    """

    def __init__(
        self,
        initializer: Any,
        shape: Iterable[int] | None = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str = "none",
        name: str | None = None,
        *,
        regularizer: Callable[[Any], Any] | None = None,
        constraint: Callable[[Any], Any] | None = None,
    ) -> None:
        self.name = name or "variable"
        self.path = self.name
        self._trainable = trainable
        self.autocast = autocast
        self.aggregation = aggregation
        self.regularizer = regularizer
        self.constraint = constraint
        self.is_seed = False  # the state of a random generator, which is no weight
        self.version = 0
        self.holder: Holder | None = None
        self.home: Home | None = None
        self._initial: Initial | None = None
        self._value: Any = None
        self._converted: dict[str, tuple[int, Any]] = {}
        if callable(initializer) and not hasattr(initializer, "dtype"):
            if shape is None:
                raise ShapeError(f"variable {self.name!r} has an initializer and no shape", "shape=(...)")
            self._initial = initializer
            self.dtype = dtypes.standardize_dtype(dtype)
        else:
            value = initializer.value if isinstance(initializer, Variable) else initializer
            if isinstance(value, (int, float, list, tuple)):
                value = np.asarray(value, dtypes.numpy_dtype(dtypes.standardize_dtype(dtype)) if dtype else None)
                if dtype is None:
                    value = value.astype(dtypes.floatx() if value.dtype.kind == "f" else "int32")
            host = np.asarray(value)
            self.dtype = dtypes.standardize_dtype(host.dtype if dtype is None else dtype)
            self._value = np.array(host, dtypes.numpy_dtype(self.dtype))
            if shape is not None and tuple(shape) != host.shape:
                raise ShapeError(
                    f"variable {self.name!r} got a value of shape {host.shape}", f"shape {tuple(shape)}", None
                )
            shape = host.shape
        for size in shape:
            if isinstance(size, Dim) or size is None:
                unknown = size.expression if isinstance(size, Dim) else "None"
                raise ShapeError(
                    f"variable {self.name!r} needs the size {unknown!r}, which is not known",
                    "known sizes for every weight",
                    "give that size in Input(shape=...), or make the weight independent of it",
                )
        self.shape: tuple[int, ...] = tuple(int(size) for size in shape)

    @property
    def trainable(self) -> bool:
        """Whether gradients reach it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if value != self._trainable:
            self._trainable = value
            structure_version[0] += 1

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def initialized(self) -> bool:
        """Whether the first value has been drawn."""
        return self._initial is None

    def stored(self) -> Any:
        """The value as it is held (a host array or an engine's), drawn now if it was not yet."""
        if self.holder is not None:
            return self.holder.read(self)
        if self.home is not None:
            return self.home.read(self)
        if self._initial is not None:
            drawn = np.asarray(self._initial(self.shape, self.dtype))
            if drawn.shape != self.shape:
                raise ShapeError(
                    f"the initializer of {self.path!r} gave shape {drawn.shape}", f"shape {shape_text(self.shape)}"
                )
            self._value = drawn.astype(dtypes.numpy_dtype(self.dtype), copy=False)
            self._initial = None
        return self._value

    def hold(self, holder: Holder) -> None:
        """Let a holder have the value, which is then kept there alone."""
        self.holder = holder
        self._value = None
        self._converted.clear()

    @property
    def value(self) -> Any:
        """The value under the engine in force: bound, or converted once per version; cast if autocasting."""
        scope = context.bindings.get()
        value = scope.values.get(id(self)) if scope is not None else None
        if value is not None:
            told = context.on_read.get()
            if told is not None and self.trainable:
                told(self)
        else:
            if context.is_abstract():
                value = Spec(self.shape, self.dtype)
            elif scope is not None:
                scope.missed[id(self)] = self
                value = self._under(context.engine_in_force())
            else:
                if self.holder is not None:
                    self.holder.leave()
                engine = context.engine_in_force()
                home = self.find_home(engine) if self.holder is None and engine is not None else None
                value = self._under(engine) if home is None else home.tracked()
        dtype = context.autocast_dtype.get()
        if dtype is not None and dtype != self.dtype and self.autocast and self.dtype in dtypes.FLOATS:
            return operators["cast"](value, dtype)
        return value

    def _under(self, engine: Any) -> Any:
        stored = self.stored()
        if engine is None:
            return stored
        fixed = self.holder is None and self.home is None
        if fixed:
            kept = self._converted.get(engine.name)
            if kept is not None and kept[0] == self.version:
                return kept[1]
        value = engine.from_any(stored)
        if fixed:
            self._converted[engine.name] = (self.version, value)
        return value

    def find_home(self, engine: Any, always: bool = False) -> Home | None:
        """The variable's home on an engine, made if the engine wants one here and now.

        Raises:
            EngineError: if it has a home on another engine whose autodiff this engine's would not see.
        """
        if self.home is not None and self.home.engine is engine:
            return self.home
        made = engine.home(self, always)
        if made is not None and self.home is not None:
            raise EngineError(
                f"variable {self.path!r} lives in a {type(self.home.native).__name__} of engine "
                f"{self.home.engine.name!r}, and is read by {engine.name!r} where its own autodiff should follow",
                "one engine's autodiff at a time",
                "variable.leave_home() takes the value back (that engine's own optimizers then no longer reach it)",
            )
        if made is not None:
            self.home = made
            self._converted.clear()
        return made

    def leave_home(self) -> None:
        """Take the value back from an engine's own object (`tf.Variable`, `nn.Parameter`), which is then a copy."""
        if self.home is not None:
            value = np.array(operators["convert_to_numpy"](self.home.read(self)))
            self.home = None
            self.set_value(value)

    def leave_empty_home(self) -> None:
        """Take the value back from an engine's own object that nobody else holds: a new one would be no different."""
        if self.home is not None and self.holder is None and not self.home.is_shared():
            value, self.home = self.home.look(self), None
            self.set_value(value)

    def assign(self, value: Any) -> Any:
        """Replace the value.

        Args:
            value: an array of the variable's shape; cast to its dtype.

        Returns:
            The value assigned.

        Raises:
            ShapeError: if the shape differs.
        """
        scope = context.bindings.get()
        if type(value) is np.ndarray and scope is None and not context.is_abstract():
            if value.shape == self.shape and value.dtype == dtypes.numpy_dtype(self.dtype):
                own = np.array(value)  # no engine need know
                if self.holder is not None:
                    self.holder.write(self, own)
                else:
                    self.set_value(own)
                return value
        value = operators["convert_to_tensor"](value, dtype=self.dtype)
        if tuple(value.shape) != self.shape:
            raise ShapeError(
                f"variable {self.path!r} was assigned a value of shape {shape_text(tuple(value.shape))}",
                f"shape {shape_text(self.shape)}",
            )
        if scope is not None:
            scope.values[id(self)] = value
            scope.assigned[id(self)] = self
        elif context.is_abstract():
            pass
        elif self.holder is not None:
            self.holder.write(self, value)
        else:
            self.set_value(value)
        return value

    def set_value(self, value: Any) -> None:
        """Hold this array (shape and dtype are the caller's word), under a new version.

        Raises:
            EngineError: if it is not known yet: it stands for a value of a function that is being compiled.
        """
        if self.home is not None:
            self.home.write(self, value)
            self.version += 1
            return
        owner = interpreter_of[0](value)
        if owner is not None and owner.is_tracing(value):
            home = self.find_home(owner)
            if home is None:
                raise EngineError(
                    f"variable {self.path!r} was assigned inside a function that {owner.name!r} compiles: "
                    "the value would be lost",
                    "a function without side effects",
                    "model.stateless_call(...), which gives the new values back",
                )
            home.write(self, value)
            self.version += 1
            return
        self._value = value
        self._initial = None
        self.version += 1
        self._converted.clear()

    def assign_add(self, value: Any) -> Any:
        """Add to the value; returns the new one."""
        with context.autocast(None):
            return self.assign(operators["add"](self, value))

    def assign_sub(self, value: Any) -> Any:
        """Subtract from the value; returns the new one."""
        with context.autocast(None):
            return self.assign(operators["subtract"](self, value))

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array (a copy)."""
        scope = context.bindings.get()
        stored = scope.values.get(id(self)) if scope is not None else None
        return np.array(operators["convert_to_numpy"](self.stored() if stored is None else stored))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        host = self.numpy()
        return host if dtype is None else host.astype(dtype)

    def __jax_array__(self) -> Any:
        return self.value

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self._native("tensorflow")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def value(leaf: Any) -> Any:
            return leaf._native("torch") if isinstance(leaf, Variable) else leaf

        return function(*tree.map_structure(value, args), **tree.map_structure(value, kwargs or {}))

    def _native(self, name: str) -> Any:
        """The value for an engine's own function that is handed this variable."""
        with context.use_engine(context.find_engine(name)):
            return self.value

    # What TensorFlow asks of what it calls a resource variable: `tape.gradient(loss, model.trainable_variables)`.
    _should_act_as_resource_variable = True

    @property
    def handle(self) -> Any:
        """The handle of the `tf.Variable` in which the value lives; within a step, the tensor it is bound to."""
        scope = context.bindings.get()
        if scope is not None and id(self) in scope.values:
            return scope.values[id(self)]
        return self.find_home(context.find_engine("tensorflow"), always=True).native.handle  # type: ignore[union-attr]

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        own: dict[str, Any] = {"_value": self.numpy(), "_initial": None, "holder": None, "home": None, "_converted": {}}
        return {**self.__dict__, **own}

    def __repr__(self) -> str:
        return f"<Variable {self.path} {shape_text(self.shape)} {self.dtype}>"


# Finds who interprets a value; set by `cornu.ops`.
interpreter_of: list[Callable[[Any], Any]] = [lambda value: None]


def read_all(variables: Iterable[Variable]) -> list[Any]:
    """The values of many variables under the engine in force, without autocasting or an engine's own autodiff.

    Raises:
        BuildError: if something in the list is no variable.
    """
    found = []
    scope, engine = context.bindings.get(), context.engine_in_force()
    for variable in variables:
        if not isinstance(variable, Variable):
            raise BuildError(f"{variable!r} is no variable", "a cornu.Variable")
        if scope is not None or context.is_abstract():
            with context.autocast(None):
                found.append(variable.value)
        else:
            found.append(variable._under(engine))
    return found


def check_trainable_dtype(variable: Variable) -> None:
    """Refuse to train what has no gradient.

    Raises:
        DtypeError: if the variable holds integers or booleans.
    """
    if variable.dtype not in dtypes.FLOATS:
        raise DtypeError(
            f"variable {variable.path!r} of dtype {variable.dtype} is trainable",
            "a float dtype",
            "make it with trainable=False",
        )
