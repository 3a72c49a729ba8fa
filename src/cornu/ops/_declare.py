"""How an operation is stated, and how a call finds its interpreter. The one door of the language.

    @primitive(promote="same")          the body is the shape-and-dtype rule, on Specs; every engine must know it
    def maximum(x1: Spec, x2: Spec) -> Spec: ...

    @op                                 the body is written in other ops; an engine may have a faster one
    def softmax(x: Spec, axis=-1): ...

A parameter annotated `Spec` (or `list[Spec]`, `Tree`, `Spec | None`) takes arrays; all others are static. A call
looks at its arrays
and asks who interprets them; the outermost kind wins:

    symbolic tensor > taped value > Spec > an engine's own values > host data (the engine in force)
"""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

from cornu.core import context, dtypes
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError, DtypeError, EngineError
from cornu.core.spec import ArrayOperators, Spec
from cornu.core.tree import map_structure
from cornu.core.variable import Variable
from cornu.core.variable import interpreter_of as _of_value

__all__ = ["Array", "Op", "Tree", "all_ops", "dtype_of", "host_array", "op", "operator", "primitive", "shape_of"]

Array: TypeAlias = Any


class Tree:
    """Annotation of a parameter that takes a nested structure of arrays."""


_ARRAYS = (Spec, list[Spec], Spec | None, Tree, Tree | None)

all_ops: dict[str, "Op"] = {}


class Interpreter:
    """What gives a meaning to a call of an op whose arguments it owns.

    Attributes:
        rank: the larger, the further out; the outermost among a call's arguments interprets it.
    """

    rank: float = 0

    def is_tracing(self, value: Any) -> bool:
        """Whether a value stands for one that is not known yet, inside a function that is being compiled."""
        return False

    def sizes(self, value: Any) -> tuple[Any, ...]:
        """The shape of a value whose `shape` is no tuple of sizes."""
        return tuple(value.shape)

    def size(self, value: Any) -> Any:
        """A whole-number scalar as a size: a number, or what stands for one that is not known yet."""
        return int(value)

    def apply(self, op: "Op", arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """The result of an op for arrays and static arguments, both by name."""
        raise NotImplementedError


class Op:
    """An operation of the language.

    Attributes:
        name: its name; engines' tables and the tape's rules are keyed by it.
        body: the Spec rule of a primitive, or the composition of an op.
        is_primitive: which of the two.
        arrays: names of the parameters that take arrays.
        family: `"elementwise"`, `"reduction"`, ... - what a mask needs to know.
    """

    autograph_info__: dict[str, Any] = {}  # what TensorFlow's AutoGraph looks for on callables to leave alone

    def __init__(
        self, body: Callable[..., Any], is_primitive: bool, promote: Any, result: Any, family: str | None
    ) -> None:
        self.name = self.__name__ = body.__name__
        self.body = self.__wrapped__ = body
        self.__doc__ = body.__doc__
        self.is_primitive = is_primitive
        self.promote = promote
        self.result = result
        self.family = family
        self.parameters = list(inspect.signature(body).parameters.values())
        self.names = tuple(parameter.name for parameter in self.parameters)
        self.arrays = frozenset(p.name for p in self.parameters if p.annotation in _ARRAYS)
        self.lists = frozenset(p.name for p in self.parameters if p.annotation == list[Spec])
        self.trees = frozenset(p.name for p in self.parameters if p.annotation in (Tree, Tree | None))
        self.defaults = {p.name: p.default for p in self.parameters if p.default is not p.empty}

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return operator, (self.name,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments, static = self.sort(args, kwargs)
        return self.on(arguments, static)

    def sort(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments by name: arrays (in order of the signature), and static ones, defaults filled in."""
        names = self.names
        if len(args) > len(names):
            raise TypeError(f"{self.name}() takes {len(names)} arguments, got {len(args)}")
        given = dict(zip(names, args, strict=False))
        for key, value in kwargs.items():
            if key in given or key not in names:
                kind = "given twice" if key in given else "unknown"
                raise TypeError(f"{self.name}() got the argument {key!r}, which is {kind}; it takes {', '.join(names)}")
            given[key] = value
        arrays: dict[str, Any] = {}
        static: dict[str, Any] = {}
        for name in names:
            if name in given:
                value = given[name]
            elif name in self.defaults:
                value = self.defaults[name]
            else:
                raise TypeError(f"{self.name}() is missing the argument {name!r}")
            if name in self.arrays:
                arrays[name] = value
            else:
                static[name] = value
        return arrays, static

    def on(self, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """The result for arguments that are sorted already."""
        found: Any = None
        for value in arrays.values():
            found = outermost(value, found)
        for value in static.values():
            if type(value) is Dim or (type(value) is tuple and any(type(size) is Dim for size in value)):
                found = _outermost_of(found, _dim_interpreter())
        if found is None:
            if context.is_abstract():
                found = ABSTRACT
            else:
                found = context.engine_in_force()
                if found is None:
                    raise EngineError("no engine is in force", "an engine", "with cornu.engine('numpy'): ...")
        return found.apply(self, arrays, static)


# The masks of engines' values, by the values' ids; `cornu.graph.masks` keeps them.
value_masks: dict[int, tuple[Any, Any]] = {}


def _dim_interpreter() -> Any:
    return ABSTRACT if context.is_abstract() or RECORDER[0] is None else RECORDER[0]


# Who records calls on symbolic tensors; set by `cornu.graph`.
RECORDER: list[Any] = [None]

_interpreter_of_type: dict[type, Callable[[Any], Any] | None] = {}
_finders: list[Callable[[type], Callable[[Any], Any] | None]] = []


def interprets(kind: type, interpreter: Callable[[Any], Any]) -> None:
    """Say who interprets values of a type: a function of the value that gives its interpreter."""
    _interpreter_of_type[kind] = interpreter


def find_interpreters(finder: Callable[[type], Callable[[Any], Any] | None]) -> None:
    """Add a function that is asked about types not seen before (the engines' registry)."""
    _finders.append(finder)
    for kind in [kind for kind, known in _interpreter_of_type.items() if known is None]:
        del _interpreter_of_type[kind]


def forget_types() -> None:
    """Ask again about types nobody owned (an engine's library has been imported since)."""
    for kind in [kind for kind, known in _interpreter_of_type.items() if known is None]:
        del _interpreter_of_type[kind]


def interpreter_of(value: Any) -> Any:
    """Who interprets this value, or `None` for host data."""
    kind = type(value)
    try:
        get = _interpreter_of_type[kind]
    except KeyError:
        get = None
        for finder in _finders:
            get = finder(kind)
            if get is not None:
                break
        _interpreter_of_type[kind] = get
    return get(value) if get is not None else None


_of_value[0] = interpreter_of


def outermost(value: Any, found: Any) -> Any:
    kind = type(value)
    if kind is list or kind is tuple:
        for item in value:
            found = outermost(item, found)
        return found
    if kind is dict:
        for item in value.values():
            found = outermost(item, found)
        return found
    mine = interpreter_of(value)
    if mine is None or mine is found:
        return found
    return _outermost_of(found, mine)


def _outermost_of(found: Any, mine: Any) -> Any:
    if found is None or mine.rank > found.rank:
        return mine
    if mine.rank == found.rank == ENGINE_RANK and mine is not found:
        raise EngineError(
            f"one op got values of two engines, {found.name!r} and {mine.name!r}",
            "values of one engine",
            "bring one over: cornu.ops.convert_to_numpy(value)",
        )
    return found


def owner_of(values: Any) -> Any:
    """The engine that owns the values in a structure, or `None` for host data and stand-ins.

    Raises:
        EngineError: if they belong to two engines.
    """
    found = outermost(values, None)
    return found if found is not None and found.rank == ENGINE_RANK else None


ENGINE_RANK, SPEC_RANK, TAPE_RANK, RECORDER_RANK = 1, 2, 3, 100_000


def _of_variable(variable: Variable) -> Any:
    """Who interprets what a variable is bound to; an unbound one is read by whoever interprets the other arguments."""
    scope = context.bindings.get()
    bound = None if scope is None else scope.values.get(id(variable))
    return None if bound is None else interpreter_of(bound)


for _host in (int, float, bool, complex, str, bytes, type(None), np.ndarray, np.bool_, *np.sctypeDict.values()):
    interprets(_host, lambda value: None) if isinstance(_host, type) else None
interprets(Variable, _of_variable)


# ---------------------------------------------------------------- dtypes

# Whether NumPy's float64 scalars are arrays like others (they are in gradient rules, where NumPy's own arithmetic makes
# them of arrays with no axes), and not weak numbers as users' host computations mean them.
strict_scalars: ContextVar[bool] = ContextVar("cornu_strict_scalars", default=False)


def dtype_of(value: Any) -> str:
    """The dtype of anything an op takes; `"int"`, `"float"` for weak Python numbers."""
    kind = type(value)
    if kind is float:
        return "float"
    if kind is np.float64:
        return "float64" if strict_scalars.get() else "float"
    if kind is int:
        return "int"
    if kind is bool:
        return "bool"
    dtype = getattr(value, "dtype", None)
    if dtype is not None:
        if isinstance(value, Variable):
            cast = context.autocast_dtype.get()
            return cast if cast is not None and value.autocast and value.dtype in dtypes.FLOATS else value.dtype
        return dtype if type(dtype) is str else _name_of_dtype(dtype)
    return host_array(value).dtype.name


@functools.lru_cache(maxsize=256)
def _name_of_dtype(dtype: Any) -> str:
    return dtypes.standardize_dtype(dtype)


def size_of(value: Any) -> Any:
    """A size given as a number, a `Dim` or a scalar of an engine."""
    if isinstance(value, (int, Dim)):
        return value
    owner = interpreter_of(value)
    return int(value) if owner is None else owner.size(value)


def shape_of(value: Any) -> tuple[Any, ...]:
    """The shape of anything an op takes."""
    shape = getattr(value, "shape", None)
    if type(shape) is tuple:
        return shape
    owner = interpreter_of(value)
    if owner is not None:
        return owner.sizes(value)
    return tuple(shape) if shape is not None else np.shape(host_array(value))


def host_array(value: Any, dtype: str | None = None) -> np.ndarray:
    """Host data as an array: Python floats take the default float dtype, whole numbers int32.

    Raises:
        DtypeError: for text, objects and ragged lists.
    """
    if isinstance(value, (list, tuple)) and any(isinstance(item, Variable) for item in value):
        value = [item.numpy() if isinstance(item, Variable) else item for item in value]
    try:
        array = np.asarray(value)
    except ValueError:
        raise DtypeError(f"{value!r:.80} is no array", "numbers in a regular nesting") from None
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise DtypeError(
            f"got {value!r:.80} of type {type(value).__name__} (dtype {array.dtype})",
            "numbers or booleans",
            "turn text into numbers first (one-hot, index or hash), and None into an array",
        )
    if dtype is None and not isinstance(value, (np.ndarray, np.generic)) and not hasattr(value, "__array__"):
        if array.dtype.kind == "f":
            dtype = dtypes.floatx()
        elif array.dtype.kind in "iu" and array.size and abs(array).max() < 2**31:
            dtype = "int32"
    return array if dtype is None else array.astype(dtypes.numpy_dtype(dtype), copy=False)


def to_float(dtype: str) -> str:
    """The float dtype in which a function such as `exp` answers for this one."""
    return dtype if dtype in dtypes.FLOATS else dtypes.floatx()


def common_dtype(op: Op, arrays: dict[str, Any]) -> str | None:
    """The dtype in which an op's promoted arguments meet, `None` if it promotes none."""
    promote = op.promote
    if promote is None:
        return None
    found: list[str] = []
    for name, value in arrays.items():
        if value is None or (promote is not True and name not in promote):
            continue
        if name in op.lists:
            found.extend(dtype_of(item) for item in value)
        else:
            found.append(dtype_of(value))
    if not found:
        return None
    dtype = dtypes.promote(*found)
    return op.result(dtype) if op.result is not None else dtype


def prepare(op: Op, arrays: dict[str, Any], convert: Callable[[Any, str | None], Any]) -> dict[str, Any]:
    """The arrays promoted and converted: `convert(value, dtype)` for each, dtype `None` meaning "as it is"."""
    dtype = common_dtype(op, arrays)
    promote = op.promote
    ready: dict[str, Any] = {}
    for name, value in arrays.items():
        wanted = dtype if promote is True or (promote is not None and name in promote) else None
        if value is None:
            ready[name] = None
        elif name in op.lists:
            ready[name] = [convert(item, wanted) for item in value]
        elif name in op.trees:
            ready[name] = map_structure(lambda leaf: leaf if leaf is None else convert(leaf, None), value)
        else:
            ready[name] = convert(value, wanted)
    return ready


# ---------------------------------------------------------------- the abstract interpreter


class Abstract(Interpreter):
    """Shapes and dtypes: a primitive's own body, on Specs."""

    rank = SPEC_RANK
    name = "abstract"

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """A Spec, or a structure of them."""
        if not context.is_abstract():
            with context.abstract():
                return self.apply(op, arrays, static)
        ready = prepare(op, arrays, to_spec) if op.is_primitive or op.promote is not None else arrays
        result = op.body(**ready, **static)
        if op.is_primitive:
            if abstract_watcher[0] is not None:
                abstract_watcher[0](op, ready, static, result)
            told = context.on_spec.get()
            if told is not None:
                told(op, ready, static, result)
        return result


# Told of every primitive the abstract interpreter meets: (op, arrays, static, result); set by `cornu.graph.masks`.
abstract_watcher: list[Callable[..., None] | None] = [None]


def to_spec(value: Any, dtype: str | None = None) -> Spec:
    """The Spec of a value, under another dtype if one is given."""
    if isinstance(value, Variable):
        value = value.value
    if isinstance(value, Spec):
        return value if dtype is None or dtype == value.dtype else Spec(value.shape, dtype, value.mask)
    if dtype is None:
        dtype = dtype_of(value)
        dtype = dtypes.promote(dtype)
    return Spec(shape_of(value), dtype)


ABSTRACT = Abstract()
interprets(Spec, lambda value: ABSTRACT)


# ---------------------------------------------------------------- decorators


def _declare(is_primitive: bool, body: Any, promote: Any, result: Any, family: str | None) -> Any:
    def wrap(body: Callable[..., Any]) -> Op:
        known = all_ops.get(body.__name__)
        if known is not None and known.body.__module__ != body.__module__:
            raise ArgumentError(
                f"the op {body.__name__!r} of {body.__module__} is stated already, in {known.body.__module__}",
                "one op per name: engines' tables and gradient rules go by it",
            )
        made = all_ops[body.__name__] = Op(body, is_primitive, promote, result, family)
        return made

    return wrap if body is None else wrap(body)


def primitive(
    body: Any = None,
    *,
    promote: Any = None,
    result: Callable[[str], str] | None = None,
    family: str | None = None,
) -> Any:
    """Declare a primitive; its body is the shape-and-dtype rule.

    Args:
        body: a function of Specs that gives a Spec (or several).
        promote: `True` to bring all arrays to one dtype, or the names of those to bring; `None` to leave them.
        result: a function of the common dtype that gives the one to compute in.
        family: what kind it is, for those who ask: `"elementwise"`, `"reduction"`, `"movement"`, `"control"` ...
    """
    return _declare(True, body, promote, result, family)


def op(
    body: Any = None,
    *,
    promote: Any = None,
    result: Callable[[str], str] | None = None,
    family: str | None = None,
) -> Any:
    """Declare an op composed of other ops; an engine may have one of its own (arguments as for `primitive`)."""
    return _declare(False, body, promote, result, family)


def operator(name: str) -> Op:
    """The op of this name."""
    return all_ops[name]


def is_array_like(value: Any) -> bool:
    """Whether a value is an array, or stands for one (a symbol, a Spec, a taped value, an engine's value)."""
    return isinstance(value, (np.ndarray, np.generic, ArrayOperators)) or interpreter_of(value) is not None
