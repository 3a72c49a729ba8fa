"""The default engine: JAX, whose XLA compiler runs on CPUs, GPUs and TPUs."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cornu.autodiff.tape import pull_back
from cornu.core import context, dtypes, tree
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines.contract import Engine
from cornu.engines.jax import stored
from cornu.engines.jax.forms import Formed
from cornu.engines.jax.measured import measuring
from cornu.engines.jax.table import TABLE
from cornu.engines.memory import keep_freed
from cornu.ops._declare import Op, dtype_of, host_array, interpreter_of

__all__ = ["ENGINE"]

# Up to this many bytes a copy by way of the host costs a third.
_SMALL = 1 << 14
_WIDE = ("float64", "int64", "uint64")
_WIDE_DTYPES = frozenset(map(np.dtype, _WIDE))  # of the host; to ask for a name takes long


class _Ordered:
    """A structure with dicts in it, passed through `jax.jit` as a list: JAX would sort the keys."""

    def __init__(self, leaves: list[Any], structure: Any) -> None:
        self.leaves = leaves
        self.structure = structure


jax.tree_util.register_pytree_node(
    _Ordered, lambda node: (node.leaves, node.structure), lambda structure, leaves: _Ordered(list(leaves), structure)
)


class _Structure:
    """A structure as JAX's static data, which must be hashable."""

    def __init__(self, like: Any) -> None:
        self.like = tree.structure(like)
        self.key = repr(self.like)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _keep_order(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_keep_order(part) for part in result)
    if isinstance(result, dict):
        if len(result) < 2 and all(hasattr(value, "dtype") for value in result.values()):
            return result
        return _Ordered(tree.leaves(result), _Structure(result))
    return result


def _restore_order(result: Any) -> Any:
    if type(result) is tuple:
        return tuple([_restore_order(part) for part in result])
    return tree.pack(result.structure.like, result.leaves) if isinstance(result, _Ordered) else result


@jax.jit
def _copies(values: list[Any]) -> list[Any]:
    return [jnp.copy(value) for value in values]


@jax.jit
def _all_finite(values: list[Any]) -> Any:
    return jnp.array([jnp.isfinite(value).all() for value in values]).all()


class _Jitted:
    """A function under `jax.jit`, in 64 bits where a value is; arguments as of `JaxEngine.compile`."""

    def __init__(self, engine: "JaxEngine", function: Callable[..., Any], donate: bool, thorough: bool) -> None:
        def traced(*args: Any) -> Any:
            with context.use_engine(engine):
                return _keep_order(function(*args))

        self.engine = engine
        self.thorough = thorough
        self.formed = Formed(traced, bool(engine.keeps_memory), donate_argnums=(0,) if donate else ())

    def __call__(self, *args: Any) -> Any:
        with measuring() if self.thorough else contextlib.nullcontext(), self.engine._width_of(args):
            return _restore_order(self.formed.call(*args))

    def known(self, part: int, *args: Any) -> Callable[..., Any]:
        """One part of the result, for arguments of these dtypes, which are not looked at any more."""
        if any(dtype_of(leaf) in _WIDE for leaf in tree.leaves(args) if hasattr(leaf, "dtype")):
            return lambda *args: self(*args)[part]
        return lambda *args: _restore_order(self.formed.call(*args)[part])


class JaxEngine(Engine):
    """Computes with `jax.numpy` and `jax.lax`, compiles with `jax.jit`, differentiates natively.

    64-bit values work without JAX's process-wide switch: it is on only around computations that hold one.
    """

    name = "jax"
    table = TABLE
    traces = True
    loops = True
    immutable = True
    reuses = True
    # JAX has no gradient of a "mul" scatter with equal positions, and shares ties of "max" and "min" otherwise.
    ruled = {"scatter_nd": lambda static: static["mode"] in ("mul", "max", "min")}

    def __init__(self) -> None:
        # Becomes true with the first 64-bit value; until then compiled calls do not look for one.
        self.met_wide = False
        self.keeps_memory = keep_freed()
        self._own_types: dict[type, bool] = {}

    def owns(self, kind: type) -> bool:
        """JAX's arrays and tracers."""
        found = self._own_types.get(kind)
        if found is None:
            found = self._own_types[kind] = issubclass(kind, (jax.Array, jax.core.Tracer))
        return found

    def from_host(self, value: np.ndarray) -> Any:
        """The array on JAX's default device; never a tracer, since a variable keeps what it was converted to."""
        # JAX takes over memory that is nobody else's as it is; `jnp.asarray` compiles a copy for each new shape.
        own = np.array(value)
        with jax.ensure_compile_time_eval():
            if own.dtype.name in _WIDE:
                self.met_wide = True
                with jax.enable_x64(True):
                    return jax.device_put(own)
            return jax.device_put(own)

    def to_host(self, value: Any) -> np.ndarray:
        """The array's elements, waited for."""
        return np.asarray(value)

    def own(self, value: Any, dtype: str | None = None) -> Any:
        """Anything an op takes as a JAX value, cast if a dtype is given; scalars of the host stay on it."""
        if interpreter_of(value) is None and not isinstance(value, Variable):
            host = host_array(value, dtype)
            return self.from_host(host) if host.ndim else host
        return super().own(value, dtype)

    def apply(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """Compute an op; 64-bit arithmetic is on where a 64-bit value takes part."""
        if self._is_wide(arrays) or (static and static.get("dtype") in _WIDE):
            self.met_wide = True
            with jax.enable_x64(True):
                return super().apply(op, arrays, static)
        return super().apply(op, arrays, static)

    def _is_wide(self, values: Any) -> bool:
        """Whether a 64-bit array is among the leaves (a host scalar does not count until one has been met)."""
        for value in values.values() if type(values) is dict else tree.leaves(values):
            if type(value) in (list, tuple, dict):
                if self._is_wide(value):
                    return True
                continue
            dtype = getattr(value, "dtype", None)
            if dtype is not None and dtype_of(value) in _WIDE and (self.met_wide or np.ndim(value)):
                return True
        return False

    def _width_of(self, values: Any) -> Any:
        """A block in 64 bits if a value is, for what is compiled."""
        return jax.enable_x64(True) if self.met_wide and self._is_wide(values) else contextlib.nullcontext()

    def compile(self, function: Callable[..., Any], donate: bool = False, thorough: bool = False) -> Callable[..., Any]:
        """The function under `jax.jit`, the first argument's memory given up if `donate`.

        `thorough`: how convolutions and pooling windows are computed on a CPU is measured, not known by rules.
        """

        return _Jitted(self, function, donate, thorough)

    def value_and_grad(self, function: Callable[[list[Any]], tuple[Any, Any]]) -> Callable[[list[Any]], Any]:
        """JAX's own reverse-mode differentiation; its way back is in 64 bits if the values are."""
        differentiate = jax.value_and_grad(function, has_aux=True)

        def run(values: list[Any]) -> Any:
            with self._width_of(values):
                return differentiate(values)

        return run

    def infer(self, function: Callable[[list[Any]], list[Any]], specs: list[Spec]) -> list[Spec]:
        """Shapes and dtypes of a function's results, by `jax.eval_shape`."""
        with context.use_engine(self):
            found = jax.eval_shape(
                lambda *values: function(list(values)),
                *(jax.ShapeDtypeStruct(spec.shape, dtypes.numpy_dtype(spec.dtype)) for spec in specs),
            )
        return [Spec(leaf.shape, dtype_of(leaf)) for leaf in found]

    def from_dlpack(self, value: Any) -> Any:
        """Another engine's value in the same memory, if JAX's arrays live on the CPU too."""
        if jax.default_backend() != "cpu":
            return None
        with jax.ensure_compile_time_eval():
            return jnp.from_dlpack(value)

    def by_rule(self, op: Op, arrays: dict[str, Any], static: dict[str, Any]) -> Any:
        """A primitive under `jax.custom_vjp`, with the language's way back."""
        names = tuple(arrays)
        compute = jax.custom_vjp(lambda *values: self.table[op.name](*values, **static))

        def forward(*values: Any) -> Any:
            result = compute(*values)
            return result, (values, result)

        def backward(kept: Any, gradient: Any) -> tuple[Any, ...]:
            with context.use_engine(self):
                shares = pull_back(op, dict(zip(names, kept[0], strict=True)), static, kept[1], gradient)
            return tuple(shares.values())

        compute.defvjp(forward, backward)
        return compute(*arrays.values())

    def copy(self, value: Any) -> Any:
        """The array again, copied on its device (without compiling anything, as `jnp.copy` would)."""
        # Without a device named: a copy tied to one would make `jit` compile the step twice.
        if value.nbytes <= _SMALL and value.dtype.name not in _WIDE and jax.default_backend() == "cpu":
            return jax.device_put(np.array(value))
        return jax.device_put(value, may_alias=False)

    def kept(self, values: list[Any]) -> list[Any]:
        """Copies by the host, where that is where the arrays are, if they are small: each costs less there.

        On another device all are copied at once: one by one each would cost a launch.
        """
        if not self.keeps_in_turn(values):
            return [np.array(value) for value in values]
        with self._width_of(values):
            if jax.default_backend() == "cpu":  # the small ones among them too, for which `copy` would wait
                return [jax.device_put(value, may_alias=False) for value in values]
            return _copies(values)

    def keeps_in_turn(self, values: list[Any]) -> bool:
        """Whether they are copied by the device, or on a CPU large enough for that."""
        return jax.default_backend() != "cpu" or sum(value.nbytes for value in values) >= _SMALL * len(values)

    def feed(self, value: Any) -> Any:
        """Host arrays as they are: `jax.jit` takes them over faster than `jnp.asarray` does."""
        if type(value) is np.ndarray and value.dtype not in _WIDE_DTYPES:
            return value
        return self.from_any(value)

    def is_compiling(self) -> bool:
        """Whether a function under a user's own `jax.jit` is being traced: what it makes is not known yet."""
        return isinstance(jnp.zeros(()), jax.core.Tracer)

    def is_tracing(self, value: Any) -> bool:
        """Whether a value is a tracer."""
        return isinstance(value, jax.core.Tracer)

    def all_finite(self, values: list[Any]) -> bool:
        """Whether all elements are finite; on a CPU looked at where they are, elsewhere asked of the device."""
        return super().all_finite(values) if jax.default_backend() == "cpu" else self.ask_finite(values)()

    def ask_finite(self, values: list[Any]) -> Callable[[], bool]:
        """Asks a device at once: asked later it would first do what else it was asked to meanwhile."""
        if jax.default_backend() == "cpu":
            return super().ask_finite(values)
        with self._width_of(values):
            found = _all_finite(values)
        return lambda: bool(found)

    def wait(self, value: Any) -> None:
        """Return once the value is computed."""
        jax.block_until_ready(value)

    def devices(self) -> list[str]:
        """JAX's devices."""
        return [str(device) for device in jax.devices()]

    def use_compile_cache(self, directory: Path | None) -> str | None:
        """Keep XLA's compiled functions, the user's own `jax.jit` ones too."""
        folder = stored.use(directory)
        return None if folder is None else f"compiled functions in {folder}"


ENGINE = JaxEngine()
