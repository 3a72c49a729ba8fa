"""TensorFlow: eager and graph tensors, `tf.function`, XLA where a thorough compilation is asked for."""

# First, so that TensorFlow is imported there.
import cornu.engines.tensorflow.library  # isort: skip

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context as eager
from tensorflow.python.eager.tape import variable_accessed

from cornu.autodiff.tape import pull_back
from cornu.core import context, dtypes, tree
from cornu.core.dims import Size
from cornu.core.errors import GraphError, ShapeError
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines.compiled import Compiled
from cornu.engines.contract import Engine
from cornu.engines.memory import GLIBC_LIMIT, keep_freed
from cornu.engines.tensorflow.gradients import custom_gradient, entering, forget, forget_with
from cornu.engines.tensorflow.home import TensorflowHome, home_of, tape_is_active
from cornu.engines.tensorflow.loops import under_xla
from cornu.engines.tensorflow.places import Places, handle_of, is_place, reading
from cornu.engines.tensorflow.quirks import on_cpu
from cornu.engines.tensorflow.sizes import TensorSize, sizes_of
from cornu.engines.tensorflow.table import TABLE
from cornu.ops._declare import Op, dtype_of, host_array, interpreter_of

__all__ = ["ENGINE"]

# Larger host arrays are not written into a graph, which would copy them with every trace.
_LARGE = 1 << 16

# Not `type(tf.constant(0))`: after that users could no longer set TensorFlow's threads and devices.
_EAGER = tf.__internal__.EagerTensor
_ours: ContextVar[bool] = ContextVar("cornu_tensorflow_trace", default=False)


def _always(static: dict[str, Any]) -> bool:
    return True


@contextlib.contextmanager
def _our_trace(names: list[str], thorough: bool = False) -> Iterator[None]:
    """A block in which this engine traces, for XLA if `thorough`; not a user's own `tf.function`.

    Args:
        names: list for the names of the gradients that the trace enters in TensorFlow's registry.
        thorough: whether it is for XLA.
    """
    token, xla = _ours.set(True), under_xla.set(thorough)
    try:
        with entering(names):
            yield
    finally:
        under_xla.reset(xla)
        _ours.reset(token)


class TensorflowEngine(Engine):
    """Computes with `tf` functions, compiles with `tf.function`, differentiates with `tf.GradientTape`."""

    name = "tensorflow"
    table = TABLE
    traces = True
    loops = True
    follows_users = True
    immutable = True
    reuses = True
    # TensorFlow shares ties otherwise, loses zeros in products, has no gradient of what `tf.pad` puts in, or gives
    # gradients that are no dense tensors.
    ruled = dict.fromkeys(
        "maximum minimum power prod cumulative_prod cumulative_max sort top_k pad_constant gather gather_along "
        "window_max window_max_gradient window_max_take".split(),
        _always,
    ) | {"scatter_nd": lambda static: static["mode"] != "add"}

    def __init__(self) -> None:
        self.keeps_memory = keep_freed(GLIBC_LIMIT)
        self._own_types: dict[type, bool] = {}

    def owns(self, kind: type) -> bool:
        """Tensors, eager and of graphs, and `tf.Variable`."""
        found = self._own_types.get(kind)
        if found is None:
            found = self._own_types[kind] = issubclass(kind, (tf.Tensor, tf.Variable))
        return found

    def sizes(self, value: Any) -> tuple[Size, ...]:
        """The shape: numbers, and sizes to compute with where a graph does not know them."""
        return sizes_of(value)

    def size(self, value: Any) -> Size:
        """A scalar as a size; a graph's scalar as one that is known when the graph runs."""
        return TensorSize.of(value) if self.is_tracing(value) else int(value)

    def from_host(self, value: np.ndarray) -> Any:
        """The array copied into an eager tensor; not into a graph, since a variable keeps what it was converted to."""
        if tf.executing_eagerly():
            return tf.constant(value)
        with tf.init_scope():
            return tf.constant(value)

    def lend(self, value: Any) -> Any:
        """A host array as a tensor, which lies in its memory where that is aligned: `tf.constant` copies it first."""
        if type(value) is np.ndarray and value.dtype in dtypes.LENT and tf.executing_eagerly():
            eager.ensure_initialized()
            return _EAGER(value, eager.context().device_name, None)
        return self.feed(value)

    def to_host(self, value: Any) -> np.ndarray:
        """The tensor's elements, not to be written to: they are the tensor's own memory.

        Raises:
            GraphError: if it is a graph's tensor.
        """
        if isinstance(value, tf.Variable):
            return np.array(value.numpy())
        if type(value) is not _EAGER:
            raise GraphError(
                f"{value!r} has no value yet: it stands for one in a graph",
                "a computation written with ops",
                "use cornu.ops.where, cond or while_loop, or fit(..., run_eagerly=True) to look at values",
            )
        # `np.asarray` of a bfloat16 scalar fails: NumPy is given a scalar where it wants an array.
        return np.asarray(value if value.shape.rank else value.numpy())

    def from_dlpack(self, value: Any) -> Any:
        """Another engine's value in the same memory."""
        with tf.init_scope():
            return tf.experimental.dlpack.from_dlpack(value.__dlpack__())

    def own(self, value: Any, dtype: str | None = None) -> Any:
        """Anything an op takes as a tensor; host data becomes part of the graph in which it is met."""
        if isinstance(value, Variable):
            with context.use_engine(self):
                value = value.value
        if isinstance(value, tf.Variable):
            value = tf.convert_to_tensor(value)
        if interpreter_of(value) is None:
            host = host_array(value, dtype)
            return tf.constant(host) if host.nbytes <= _LARGE else self.from_host(host)
        return super().own(value, dtype)

    def trace(
        self, function: Callable[[list[Any]], list[Any]], values: list[Any], donated: int, thorough: bool
    ) -> Callable[[list[Any]], list[Any]]:
        """The function as a graph, run by XLA if `thorough`."""

        names: list[str] = []
        places = [value if is_place(value) else None for value in values]
        in_place = [i for i in range(donated) if places[i] is not None]

        def traced(*given: Any) -> list[Any]:
            known = Places(given, places)
            with _our_trace(names, thorough), reading(known):
                results = function(list(known.values))
                for i in in_place:
                    known.write(known.values[i], results[i], given[i])
            return [result for i, result in enumerate(results) if i not in in_place]

        specs = [
            tf.TensorSpec([], tf.resource) if is_place(value) else tf.TensorSpec(value.shape, value.dtype)
            for value in values
        ]
        made = tf.function(traced, autograph=False, jit_compile=True if thorough else None)
        concrete = made.get_concrete_function(*specs)
        forget_with(concrete, names)
        call = _caller(concrete, thorough)
        if not any(is_place(value) for value in values):
            return call

        def run(given: list[Any]) -> list[Any]:
            results = call([handle_of(value) for value in given])
            for i in in_place:
                results.insert(i, given[i])
            return results

        return run

    def compile(self, function: Callable[..., Any], donate: bool = False, thorough: bool = False) -> Callable[..., Any]:
        """The function traced once per shapes and dtypes."""
        return _Compiled(self, function, donate, thorough)

    def value_and_grad(self, function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any]:
        """`tf.GradientTape`; gradients are dense, and zeros where there are none."""

        def run(values: list[Any]) -> Any:
            seen: set[int] = set()
            values = [tf.identity(v) if id(v) in seen or seen.add(id(v)) else v for v in values]  # type: ignore[func-returns-value]
            with tf.GradientTape() as tape:
                tape.watch(values)
                value, rest = function(values)
                value = self.own(value)
            gradients = tape.gradient(value, values)
            dense = [tf.zeros_like(v) if g is None else _dense(g) for v, g in zip(values, gradients, strict=True)]
            return (value, rest), dense

        return run

    def infer(self, function: Callable[[list[Any]], list[Any]], specs: list[Spec]) -> list[Spec]:
        """Shapes and dtypes of a function's results, from a graph that is never run.

        Raises:
            ShapeError: if TensorFlow cannot tell a size.
        """

        names: list[str] = []

        def traced(*given: Any) -> list[Any]:
            with _our_trace(names), context.use_engine(self):
                return function(list(given))

        shown = [tf.TensorSpec(spec.shape, spec.dtype) for spec in specs]
        found = []
        for leaf in tf.function(traced, autograph=False).get_concrete_function(*shown).outputs:
            if not leaf.shape.is_fully_defined():
                raise ShapeError(f"TensorFlow cannot tell the shape of {leaf!r}", "sizes that follow from the inputs'")
            found.append(Spec(tuple(leaf.shape), dtype_of(leaf)))
        forget(names)
        return found

    def by_rule(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """A primitive under `tf.custom_gradient`, with the language's way back, if anybody may go it."""
        if tf.executing_eagerly() and not tape_is_active():
            return self.table[op.name](*arrays.values(), **static)
        names = tuple(arrays)
        leaves, pack = tree.flatten(list(arrays.values()))
        results: list[Any] = []

        @custom_gradient
        def compute(*values: Any) -> Any:
            given = dict(zip(names, pack(values), strict=True))
            result = self.table[op.name](*given.values(), **static)

            def backward(*gradients: Any) -> Any:
                gradient = [_dense(g) for g in gradients] if len(gradients) > 1 else _dense(gradients[0])
                with context.use_engine(self):
                    shares = pull_back(op, given, static, results[0], gradient)
                return tree.leaves(list(shares.values()))

            return result, backward

        result = compute(*leaves)
        # The way back starts from what the op gave, so that its own derivatives are the language's too.
        results.append(result)
        return result

    def copy(self, value: Any) -> Any:
        """The tensor again, in memory of its own."""
        return tf.raw_ops.DeepCopy(x=self.lift(value))

    def kept(self, values: list[Any]) -> list[Any]:
        """Copies on the host without an accelerator: they go where earlier ones were, tensors do not."""
        if on_cpu():
            return [self.lift(value).numpy() for value in values]
        return super().kept(values)

    def place(self, value: Any) -> Any:
        """A `tf.Variable`."""
        with tf.init_scope():
            return tf.Variable(value, trainable=False, dtype=value.dtype)

    def put(self, place: Any, value: Any) -> Any:
        """The place, written to."""
        tf.raw_ops.AssignVariableOp(resource=place.handle, value=value)  # a quarter of the time of `place.assign`
        return place

    def lift(self, place: Any) -> Any:
        """The tensor in a place."""
        return tf.raw_ops.ReadVariableOp(resource=place.handle, dtype=place.dtype) if is_place(place) else place

    def all_finite(self, values: list[Any]) -> bool:
        """Whether all elements are finite: no sum is finite of what is not, but one may overflow by itself."""
        found = [self.lift(value) for value in values]
        sums = [tf.reduce_sum(value if value.dtype.size > 2 else tf.cast(value, tf.float32)) for value in found]
        suspects = [value for value, total in zip(found, sums, strict=True) if not math.isfinite(float(total))]
        return all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in suspects)

    def home(self, variable: Variable, always: bool = False) -> TensorflowHome | None:
        """A `tf.Variable`, for what a user's `tf.GradientTape` is to watch and what a `tf.function` may assign."""
        return home_of(self, variable, always)

    def read_in_step(self, variable: Variable) -> None:
        """Let a user's `tf.GradientTape` watch what the variable is bound to, as it watches a `tf.Variable`."""
        variable_accessed(variable)

    def is_compiling(self) -> bool:
        """Whether a user's own `tf.function` is being traced."""
        return not tf.executing_eagerly() and not _ours.get()

    def is_tracing(self, value: Any) -> bool:
        """Whether a value is a graph's tensor."""
        return isinstance(value, tf.Tensor) and type(value) is not _EAGER

    def wait(self, value: Any) -> None:
        """Return once all devices are done."""
        tf.test.experimental.sync_devices()

    def waits(self) -> bool:
        """On a CPU, where no `tf.device` block says what only this thread knows."""
        return on_cpu() and not eager.context().device_name and not tape_is_active()

    def devices(self) -> list[str]:
        """TensorFlow's devices."""
        return [device.name for device in tf.config.list_logical_devices()]


class _Compiled(Compiled):
    """Traces are told apart by what an eager tensor says of itself without building objects of Python."""

    def _key(self, value: Any, arrays: list[Any]) -> Any:
        if is_place(value):
            arrays.append(value)
            known = value.__dict__.get("_cornu_key")
            if known is None:
                known = value._cornu_key = "place", tuple(value.shape), value.dtype.as_datatype_enum
            return known
        if type(value) is not _EAGER:
            return super()._key(value, arrays)
        arrays.append(value)
        return (value._shape_tuple(), value._datatype_enum())


def _caller(concrete: Any, thorough: bool) -> Callable[[list[Any]], list[Any]]:
    """A traced function as a function of a list, with as little Python as TensorFlow allows."""
    captured = list(concrete.captured_inputs)
    count = len(concrete.outputs)
    if not count:
        return lambda given: []
    if thorough:  # the call below would start XLA by a longer way
        return lambda given: concrete._call_flat(given, captured)
    run, name = eager.context().call_function, concrete._inference_function.name

    def call(given: list[Any]) -> list[Any]:
        if tf.executing_eagerly() and not tape_is_active():
            # A third of the time of `concrete(*given)`; it has no gradient. The op `StatefulPartitionedCall` would be
            # faster still, but what TensorFlow keeps for each function called by it is never freed (half a MB each).
            found: list[Any] = run(name, given + captured, count)
            return found
        return concrete(*given)

    return call


def _dense(gradient: Any) -> Any:
    """A gradient as a tensor; TensorFlow gives those of gathered rows as rows."""
    if isinstance(gradient, tf.IndexedSlices):
        rows = tf.shape(gradient.dense_shape)[0] if gradient.dense_shape is None else gradient.dense_shape[0]
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
    return gradient


ENGINE = TensorflowEngine()
