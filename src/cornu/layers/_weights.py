"""What a layer owns: its name, its weights, the layers inside it, and the penalties of its last call."""

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cornu import constraints as _constraints
from cornu import dtype_policies, initializers, regularizers
from cornu.core import context, dtypes, tree
from cornu.core.config import Configurable
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, BuildError, ShapeError
from cornu.core.variable import Variable, structure_version
from cornu.layers._context import current
from cornu.layers._tracking import children
from cornu.ops._declare import host_array

__all__ = ["Weights", "internal"]

# The layers that hold penalties of a call now.
_with_penalties: "weakref.WeakSet[Weights]" = weakref.WeakSet()

_KERAS_2 = ("name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint")


def _also_in_keras_2_order(add_weight: Callable[..., Variable]) -> Callable[..., Variable]:
    """`add_weight` that takes `("w", shape, dtype, initializer, ...)` too, as Keras 2 did."""

    @functools.wraps(add_weight)
    def add(self: Any, *args: Any, **kwargs: Any) -> Variable:
        if args and isinstance(args[0], str):
            kwargs = {**dict(zip(_KERAS_2, args, strict=False)), **kwargs}
            args = ()
        return add_weight(self, *args, **kwargs)

    return add


class Weights(Configurable):
    """The part of a layer that owns things; see `Layer`."""

    dtype_policy: dtype_policies.DTypePolicy
    activity_regularizer: Any
    autocast: bool
    built: bool
    supports_masking: bool
    input_spec: Any
    _name: str | None
    _path: str | None
    _trainable: bool
    _batch_shape: tuple[int | None, ...] | None
    _build_shapes: dict[str, Any] | None
    _called_with: dict[str, Any] | None  # shapes and dtypes of its first call
    _native: Any  # what binds it to an engine: `layers._native.Native`
    _calls: list[Any]  # weak references to the nodes of its calls
    _own_trainable: list[Variable]
    _own_frozen: list[Variable]
    _in_call: dict[str, Variable]  # weights made in `call`, by name
    _call_losses: list[Any]
    _known: dict[int, "Weights"]  # the layers it was found to hold

    @property
    def name(self) -> str:
        """The layer's name."""
        return self._name if self._name is not None else type(self).__name__.lower()

    @property
    def path(self) -> str:
        """Names from the outermost layer to this one, joined by `/` (as first called)."""
        return self._path or self.name

    @property
    def dtype(self) -> str:
        """The dtype of its weights."""
        return self.variable_dtype

    @property
    def compute_dtype(self) -> str:
        """The dtype it computes in."""
        return self.dtype_policy.compute_dtype

    @property
    def variable_dtype(self) -> str:
        """The dtype of its weights."""
        return self.dtype_policy.variable_dtype

    @property
    def input_dtype(self) -> str:
        """The dtype its float inputs are cast to."""
        return self.compute_dtype

    @_also_in_keras_2_order
    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        overwrite_with_gradient: bool = False,
        name: str | None = None,
    ) -> Variable:
        """A weight of this layer. In `call`, the weight of that name made earlier, if there is one.

        Args:
            shape: sizes, all known; `()` for a scalar.
            initializer: an initializer or its name; by default Glorot uniform for floats, zeros for others.
            dtype: its dtype; by default the layer's variable dtype.
            trainable: whether gradients reach it.
            autocast: whether the compute dtype applies when it is read in `call`.
            regularizer: penalty on it, or `None`.
            constraint: what it is kept to after each update, or `None`.
            aggregation: how copies on several devices are joined.
            overwrite_with_gradient: not supported.
            name: its name.

        Returns:
            the Variable.

        Raises:
            ShapeError: if a size is unknown.
            BuildError: if the name is taken by a weight of another shape.
        """
        if overwrite_with_gradient:
            raise ArgumentError("add_weight got overwrite_with_gradient=True", "False")
        sizes = () if shape is None else (shape,) if isinstance(shape, (int, Dim)) else tuple(shape)
        calling = self._is_being_called() and not vars(self).get("_building", False)
        if calling:
            name = name or f"weight_{len(self._in_call)}"
            known = self._in_call.get(name)
            if known is not None:
                if known.shape != tuple(sizes):
                    raise BuildError(
                        f"weight {known.path!r} has shape {shape_text(known.shape)}, and this call asks for "
                        f"{shape_text(sizes)}",
                        "the same shape at every call",
                        "use a layer of its own for each input width",
                    )
                return known
        dtype = dtypes.standardize_dtype(dtype or self.variable_dtype)
        if initializer is None:
            initializer = "glorot_uniform" if dtype in dtypes.FLOATS else "zeros"
        variable = Variable(
            initializers.get(initializer),
            shape=sizes,
            dtype=dtype,
            trainable=trainable and self._trainable,
            autocast=autocast,
            aggregation=aggregation,
            name=name,
            regularizer=regularizers.get(regularizer),
            constraint=_constraints.get(constraint),
        )
        variable.path = f"{self.path}/{variable.name}"
        (self._own_trainable if trainable else self._own_frozen).append(variable)
        if calling and name is not None:
            self._in_call[name] = variable
        return variable

    add_variable = add_weight

    def _is_being_called(self) -> bool:
        call = current.get()
        return call is not None and call.layer is self

    def _children(self) -> list[Any]:
        return children(self, (Weights,), internal)

    def _own(self) -> tuple[list[Variable], list[Variable], list["Weights"]]:
        """Own trainable variables, own others, and the layers held directly."""
        trainable, frozen = list(self._own_trainable), list(self._own_frozen)
        known = {id(v) for v in (*trainable, *frozen)}
        layers = []
        for item in self._children():
            if isinstance(item, Weights):
                layers.append(item)
            elif id(item) not in known:
                known.add(id(item))
                (trainable if item.trainable else frozen).append(item)
                if item.path == item.name:
                    item.path = f"{self.path}/{item.name}"
        return trainable, frozen, layers

    def _graph_layers(self) -> list[Any] | None:
        """The layers that files keep under `layers`; a model with a graph has them."""
        return None

    def _sublayers(self) -> list[Any]:
        return self._own()[2]

    def _layers_and_own(self) -> Iterator[tuple["Weights", list[Variable], list[Variable]]]:
        """This layer and all below it, each once, depth first, with its own trainable variables and its others."""
        seen: set[int] = set()
        pending: list[Weights] = [self]
        while pending:
            layer = pending.pop()
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            trainable, frozen, inside = layer._own()
            yield layer, trainable, frozen
            pending.extend(reversed(inside))

    def _flatten_layers(self, include_self: bool = True) -> list[Any]:
        """This layer and all below it, each once, depth first."""
        return [layer for layer, _, _ in self._layers_and_own() if layer is not self or include_self]

    @property
    def variables(self) -> list[Variable]:
        """All variables, in Keras's order: own trainable ones, own others, then those of the layers inside."""
        found: dict[int, Variable] = {}
        for _, trainable, frozen in self._layers_and_own():
            for variable in (*trainable, *frozen):
                found.setdefault(id(variable), variable)
        return list(found.values())

    @property
    def weights(self) -> list[Variable]:
        """The variables that are saved: all but the state of random generators and metrics."""
        return [v for v in self.variables if not v.is_seed]

    @property
    def trainable_variables(self) -> list[Variable]:
        """The variables gradients reach."""
        return [v for v in self.variables if v.trainable]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The variables gradients do not reach."""
        return [v for v in self.variables if not v.trainable]

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights gradients reach."""
        return [v for v in self.weights if v.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights gradients do not reach."""
        return [v for v in self.weights if not v.trainable]

    @property
    def trainable(self) -> bool:
        """Whether its weights train; setting it reaches all layers inside."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        structure_version[0] += 1
        for layer in self._flatten_layers():
            vars(layer)["_trainable"] = bool(value)
            for variable in layer._own()[0]:
                variable.trainable = bool(value)

    def get_weights(self) -> list[np.ndarray]:
        """The weights as NumPy arrays."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        """Replace all weights.

        Args:
            weights: arrays in the order of `weights`.

        Raises:
            ShapeError: if their number or shapes differ; then nothing is changed.
        """
        own = self.weights
        if len(weights) != len(own):
            raise ShapeError(
                f"{self.name!r} got {len(weights)} arrays for its {len(own)} weights",
                ", ".join(f"{v.path} {shape_text(v.shape)}" for v in own) or "none (the layer is not built)",
            )
        arrays = [host_array(weight) for weight in weights]
        for variable, array in zip(own, arrays, strict=True):
            if array.shape != variable.shape:
                raise ShapeError(
                    f"weight {variable.path!r} got shape {array.shape}", f"shape {shape_text(variable.shape)}"
                )
        for variable, array in zip(own, arrays, strict=True):
            variable.assign(array)

    def count_params(self) -> int:
        """How many numbers the weights hold.

        Raises:
            BuildError: if the layer is not built.
        """
        if not self.built and not self.weights:
            raise BuildError(f"{self.name!r} is not built", "a built layer", "call it on an Input, or build(shape)")
        return sum(v.size for v in self.weights)

    def add_loss(self, loss: Any) -> None:
        """Add a penalty to the loss of the step in progress.

        Args:
            loss: a scalar, or a list of scalars, or a function that gives one.
        """
        _with_penalties.add(self)
        for part in tree.leaves(loss):
            self._call_losses.append(part() if callable(part) and not hasattr(part, "dtype") else part)

    @property
    def losses(self) -> list[Any]:
        """Penalties of the last call (`add_loss`) and of weights (`regularizer`)."""
        found = [loss for layer in self._flatten_layers() for loss in layer._call_losses]
        with context.autocast(None):
            found += [v.regularizer(v) for v in self.trainable_variables if v.regularizer is not None]
        return found

    def _clear_losses(self) -> None:
        if _with_penalties:  # else nobody has any, and no layer need be looked for
            for layer in self._flatten_layers():
                layer._call_losses.clear()
                _with_penalties.discard(layer)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Write own variables (not those of layers inside) into a mapping, as "0", "1", ..."""
        trainable, frozen, _ = self._own()
        for i, variable in enumerate(v for v in (*trainable, *frozen) if not v.is_seed):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Read own variables from a mapping written by `save_own_variables`.

        Raises:
            ShapeError: if their number or shapes differ.
        """
        trainable, frozen, _ = self._own()
        own = [v for v in (*trainable, *frozen) if not v.is_seed]
        if len(store.keys()) != len(own):
            hint = "build the layer first (call it once)" if not own else None
            raise ShapeError(
                f"layer {self.path!r} has {len(own)} variables, the file has {len(store.keys())}", "as many", hint
            )
        for i, variable in enumerate(own):
            variable.assign(np.asarray(store[str(i)]))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "trainable":
            type(self).trainable.fset(self, value)  # type: ignore[attr-defined]
            return
        object.__setattr__(self, name, value)


# Attributes that hold nothing of the layer's own.
_INTERNAL = {
    "_calls",
    "_known",
    "_call_losses",
    "_arguments",
    "_in_call",
    "_own_trainable",
    "_own_frozen",
    "_build_shapes",
    "input_spec",
    "_aligned",
    "_compiled_draws",
    "_native",
}
_INTERNAL |= {"optimizer", "_objective", "_cache", "_compile_arguments", "history"}  # a model's, for training


def internal(name: str) -> bool:
    return name in _INTERNAL
