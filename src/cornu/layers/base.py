"""`Layer`: weights and a `call`.

A subclass writes `__init__` (if it has arguments) and `call`; `build` if it wants its weights made when the shapes of
its inputs are known. A call:

1. arguments are brought to the engine and cast to the compute dtype,
2. weights are built, from the shapes,
3. masks and `training` are handed over if `call` asks for them,
4. `call` runs, on values, or on Specs when a graph is being built,
5. the mask of the output is worked out.

On symbolic tensors the same steps run on Specs, and the call is recorded as a node.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu import constraints as _constraints
from cornu import dtype_policies, initializers, regularizers
from cornu.core import config, context, dtypes, tree
from cornu.core.dims import Dim, keras_shape, shape_text
from cornu.core.errors import (
    ArgumentError,
    BuildError,
    CornuError,
    DtypeError,
    EngineError,
    MaskError,
    MaskWarning,
    ShapeError,
    UnsupportedError,
    is_user_file,
    near_miss,
    user_line,
)
from cornu.core.names import auto_name
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.graph import masks
from cornu.graph.symbolic import SymbolicTensor, carried, constant, describe, record, specs_of, user_tensors
from cornu.layers._context import Call, current
from cornu.layers._tracking import children
from cornu.layers.input_spec import InputSpec, check_inputs
from cornu.ops._declare import dtype_of, host_array, interpreter_of, shape_of, to_spec
from cornu.ops._rules import constraints
from cornu.ops.arithmetic import divide
from cornu.ops.creation import as_tensor
from cornu.ops.elementwise import cast_to

__all__ = ["InputSpec", "Layer", "structure_version"]

# Counts every change of a `trainable` flag, so that a compiled step knows when it is out of date.
structure_version = [0]


class _Signature:
    """What `call` of a class takes."""

    __slots__ = ("mask_for", "names", "required", "takes_mask", "takes_training", "training_default", "variadic")

    def __init__(self, call: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(call).parameters.values())[1:]
        self.names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self.variadic = any(p.kind is p.VAR_KEYWORD for p in parameters)
        everything = [*self.names, *keywords]
        self.takes_training = "training" in everything
        self.training_default = next((p.default for p in parameters if p.name == "training"), None)
        self.takes_mask = "mask" in everything
        # parameter -> the parameter that takes its mask
        self.mask_for = {name: f"{name}_mask" for name in everything if f"{name}_mask" in everything}
        if self.takes_mask and everything:
            first = next((name for name in everything if name not in ("mask", "training")), None)
            if first is not None:
                self.mask_for.setdefault(first, "mask")
        self.required = [p.name for p in parameters if p.default is p.empty and p.name in self.names]


_signatures: dict[Any, _Signature] = {}


def signature_of(cls: type) -> _Signature:
    """What `call` of a layer class takes."""
    found = _signatures.get(cls)
    if found is None:
        found = _signatures[cls] = _Signature(cls.call)  # type: ignore[attr-defined]
    return found


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


@functools.cache
def _build_parameters(cls: type) -> list[str]:
    """The names of what `build` of a layer class takes."""
    return [name for name in inspect.signature(cls.build).parameters if name != "self"]  # type: ignore[attr-defined]


class Layer(config.Configurable):
    """Base of all layers.

    Args:
        activity_regularizer: penalty on the output, or `None`.
        trainable: whether its weights train.
        dtype: a dtype or policy; `None` for the global policy.
        autocast: whether float inputs and weights are cast to the compute dtype in `call`.
        name: its name; made from the class's if left out.

    A subclass may leave these out of its own `__init__`: `MyLayer(3, name="mine")` works all the same.

    Example:
        >>> import cornu
        >>> class Scale(cornu.layers.Layer):
        ...     def call(self, x):
        ...         w = self.add_weight(name="w", shape=x.shape[-1:], initializer="ones")
        ...         return x * w
        >>> Scale()(cornu.Input((4,))).shape
        (None, 4)
    """

    _base_arguments = ("name", "trainable", "dtype", "activity_regularizer", "autocast")

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
    _calls: list[Any]  # weak references to the nodes of its calls
    _own_trainable: list[Variable]
    _own_frozen: list[Variable]
    _in_call: dict[str, Variable]  # weights made in `call`, by name
    _call_losses: list[Any]
    _known: dict[int, "Layer"]  # the layers it was found to hold

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        shape = kwargs.pop("input_shape", None)
        if "input_dim" in kwargs:
            shape = (kwargs.pop("input_dim"),)
        batch_shape = kwargs.pop("batch_input_shape", None) or ((None, *shape) if shape is not None else None)
        kwargs.pop("batch_size", None) if kwargs.get("batch_size", 0) is None else None
        for key in kwargs:
            raise ArgumentError(
                f"{type(self).__name__} got the argument "
                f"{key!r}{near_miss(key, config.init_parameters(type(self))[0])}",
                f"arguments among {', '.join((*config.init_parameters(type(self))[0], *self._base_arguments))}",
            )
        extra = {"activity_regularizer": activity_regularizer, "autocast": autocast, "batch_shape": batch_shape}
        self._set_base(name=name, trainable=trainable, dtype=dtype, **extra)

    def _before_init(self) -> None:
        self._set_base()

    def _after_init(self, extra: dict[str, Any]) -> None:
        if extra:
            given = {"name": self._name, "trainable": self._trainable, "dtype": self.dtype_policy}
            self._set_base(**{**given, **extra})
        if self._name is None:
            self._name = auto_name(type(self))

    def _set_base(
        self,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        activity_regularizer: Any = None,
        autocast: bool = True,
        batch_shape: Any = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ArgumentError(f"{type(self).__name__} got name={name!r}", "a non-empty text without '/'")
        own = vars(self)
        own.setdefault("_calls", [])
        own.setdefault("_own_trainable", [])
        own.setdefault("_own_frozen", [])
        own.setdefault("_in_call", {})
        own.setdefault("_call_losses", [])
        own.setdefault("_known", {})
        own.setdefault("built", False)
        own.setdefault("_build_shapes", None)
        own.setdefault("_called_with", None)
        own["_name"] = name
        own["_path"] = None
        own["_trainable"] = bool(trainable)
        own["dtype_policy"] = dtype_policies.get(dtype)
        own["activity_regularizer"] = regularizers.get(activity_regularizer)
        own["autocast"] = autocast
        own["_batch_shape"] = batch_shape
        own.setdefault("input_spec", None)
        own.setdefault("supports_masking", type(self).compute_mask is not Layer.compute_mask)

    # ------------------------------------------------ names, dtypes

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

    # ------------------------------------------------ weights

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
        return children(self, (Layer,), _internal)

    def _own(self) -> tuple[list[Variable], list[Variable], list["Layer"]]:
        """Own trainable variables, own others, and the layers held directly."""
        trainable, frozen = list(self._own_trainable), list(self._own_frozen)
        known = {id(v) for v in (*trainable, *frozen)}
        layers = []
        for item in self._children():
            if isinstance(item, Layer):
                layers.append(item)
            elif id(item) not in known:
                known.add(id(item))
                (trainable if item.trainable else frozen).append(item)
                if item.path == item.name:
                    item.path = f"{self.path}/{item.name}"
        return trainable, frozen, layers

    def _graph_layers(self) -> list["Layer"] | None:
        """The layers that files keep under `layers`; a model with a graph has them."""
        return None

    def _sublayers(self) -> list["Layer"]:
        return self._own()[2]

    def _flatten_layers(self, include_self: bool = True) -> list["Layer"]:
        """This layer and all below it, each once, depth first."""
        found: list[Layer] = []
        seen: set[int] = set()
        pending: list[Layer] = [self]
        while pending:
            layer = pending.pop()
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if layer is not self or include_self:
                found.append(layer)
            pending.extend(reversed(layer._sublayers()))
        return found

    @property
    def variables(self) -> list[Variable]:
        """All variables, in Keras's order: own trainable ones, own others, then those of the layers inside."""
        found: dict[int, Variable] = {}
        for layer in self._flatten_layers():
            trainable, frozen, _ = layer._own()
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

    # ------------------------------------------------ losses

    def add_loss(self, loss: Any) -> None:
        """Add a penalty to the loss of the step in progress.

        Args:
            loss: a scalar, or a list of scalars, or a function that gives one.
        """
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
        for layer in self._flatten_layers():
            layer._call_losses.clear()

    # ------------------------------------------------ what subclasses write

    def build(self, input_shape: Any) -> None:
        """Make the weights; the default makes none (they may be made in `call`).

        Args:
            input_shape: Keras's shape (`None` for unknown sizes), or one argument `<name>_shape` per tensor of `call`.
        """
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The computation."""
        raise UnsupportedError(f"layer {type(self).__name__} has no `call`", "a method call(self, inputs)")

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The mask of the output: by default that of the input."""
        return previous_mask

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The Specs of the output, by running `call` on Specs."""
        with context.abstract():
            return tree.map_structure(to_spec, self(*specs_of(args), **specs_of(kwargs)))

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shape of the output for shapes of the inputs (Keras's form, `None` for unknown).

        Args:
            args: a shape for each tensor argument, or a structure of shapes.
        """
        specs = [shapes_to_specs(shape, self.compute_dtype) for shape in args]
        named = {
            key.removesuffix("_shape"): shapes_to_specs(shape, self.compute_dtype) for key, shape in kwargs.items()
        }
        return tree.map_structure(lambda s: keras_shape(s.shape), self.compute_output_spec(*specs, **named))

    def get_config(self) -> dict[str, Any]:
        """The arguments of `__init__`, and name, trainable and dtype."""
        found: dict[str, Any] = {"name": self.name, "trainable": self._trainable, "dtype": self.dtype_policy}
        if self.activity_regularizer is not None:
            found["activity_regularizer"] = self.activity_regularizer
        return {**found, **self._arguments_by_name(), **found}

    def _arguments_by_name(self) -> dict[str, Any]:
        found = super()._arguments_by_name()
        return {key: value for key, value in found.items() if key not in ("autocast",) or value is not True}

    # ------------------------------------------------ the call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer, or record it if an argument is symbolic."""
        if user_tensors(args) or (kwargs and user_tensors(kwargs)):
            return self._record(args, kwargs)
        return self._run(args, kwargs)

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signature = signature_of(type(self))
        implied = self._masks_for(signature, args, kwargs, whole=True)
        kwargs = {**implied, **kwargs}
        found: list[Any] = []
        token = constraints.set(found)
        try:
            with context.abstract():
                specs = tree.map_structure(to_spec, self._run(specs_of(args), specs_of(kwargs), recording=True))
        except CornuError as error:
            error.locate(layer=f"{self.path!r} ({type(self).__name__})", inputs=self._describe(args, kwargs))
            raise
        finally:
            constraints.reset(token)
        node = record(self, args, kwargs, specs, found, tuple(implied))
        if self._sublayers():
            node.send_masks()
        self._symbolic_mask(signature, node, specs, args, kwargs)
        return node.structure

    def _symbolic_mask(self, signature: _Signature, node: Any, specs: Any, args: Any, kwargs: Any) -> None:
        """Give the outputs of a recorded call their masks."""
        masked = [tensor for tensor in node.given if tensor.mask is not None]
        custom = self._has_mask_rule()
        if custom or (self.supports_masking and masked):
            inputs = self._first(args, kwargs)
            previous = tree.map_structure(lambda t: getattr(t, "mask", None), inputs)
            if kwargs.get("mask") is not None and not isinstance(kwargs["mask"], bool):
                previous = kwargs["mask"]
            produced = self.compute_mask(inputs, previous)
            if not custom and len(node.outputs) != len(tree.leaves(produced)):
                produced = [masks.combined(tuple(t.mask for t in masked))] * len(node.outputs)
            flat = tree.leaves(produced) if produced is not None else []
            for output, mask in zip(node.outputs, flat, strict=False):
                output.mask = mask if mask is None or type(mask) is SymbolicTensor else constant(mask)
            return
        for output, spec in zip(node.outputs, tree.leaves(specs), strict=True):
            tag = getattr(spec, "mask", None)
            if tag is None:
                continue
            if tag.lost is None and all(type(source) is SymbolicTensor for source in tag.sources):
                output.mask = masks.combined(tag.sources)
            elif tag.lost is None and tag.through is None:
                output.mask = carried(output, to_spec(tag.sources[0]))
            elif tag.lost is None:
                self._warn(
                    f"the output of layer {self.path!r} ({type(self).__name__}) has no mask: one made inside was "
                    "left behind by "
                    f"arithmetic in its `call` ({tag.through!r}; the layer is called at {node.where}); define "
                    "compute_mask, "
                    "compute with layers, or drop the mask (cornu.ops.drop_mask(x))",
                    "a mask handed on by a layer",
                )
            elif not signature.mask_for:
                self._warn_lost(tag.lost, node.where)

    def _has_mask_rule(self) -> bool:
        """Whether `compute_mask` is written for this layer."""
        return type(self).compute_mask is not Layer.compute_mask

    def _warn_lost(self, op_name: str, where: str | None) -> None:
        text = (
            f"layer {self.path!r} ({type(self).__name__}) got an input with a mask and loses it in {op_name!r} "
            f"(at {where}); take an "
            "argument `mask` in call, define compute_mask, or pass cornu.ops.drop_mask(x)"
        )
        self._warn(text, "a layer that knows masks")

    def _warn(self, text: str, expected: str) -> None:
        if config.is_strict():
            raise MaskError(text, expected)
        warnings.warn(text, MaskWarning, stacklevel=4)

    def _first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0] if args else next(iter(kwargs.values()), None)

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by the names `call` gives them."""
        names = signature_of(type(self)).names
        if len(args) > len(names):  # call(*inputs)
            names = [*names, *(f"argument_{i}" for i in range(len(names), len(args)))]
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def _masks_for(self, signature: _Signature, args: Any, kwargs: Any, whole: bool = False) -> dict[str, Any]:
        """The masks `call` asks for and the caller did not give; if `whole`, `None` for those that are not there."""
        if not signature.mask_for:
            return {}
        given = self._by_name(args, kwargs)
        filled: dict[str, Any] = {}
        for name, parameter in signature.mask_for.items():
            if name in given and parameter not in given:
                found = tree.map_structure(masks.mask_of, given[name])
                if any(mask is not None for mask in tree.leaves(found)):
                    filled[parameter] = found
                elif whole:
                    filled[parameter] = None
        return filled

    def _describe(self, args: Any, kwargs: Any) -> str:
        return describe({key: value for key, value in self._by_name(args, kwargs).items() if not key.endswith("mask")})

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], recording: bool = False) -> Any:
        """The layer on values or Specs."""
        signature = signature_of(type(self))
        parent = current.get()
        training = self._training(signature, args, kwargs, parent)
        if self._path is None or not self.built:
            vars(self)["_path"] = f"{parent.path}/{self.name}" if parent is not None and parent.path else self.name
        call = Call(self, parent, training, self._scope_path())
        if parent is None and not recording:
            self._clear_losses()
        token = current.set(call)
        kept = masks._kept.set(call.root.kept) if parent is None else None
        try:
            with context.autocast(self.compute_dtype if self.autocast else None):
                given, named = args, kwargs
                if not recording:
                    self._check_left_behind(signature, args, kwargs)
                    kwargs = {**self._masks_for(signature, args, kwargs), **kwargs}
                args, kwargs = self._prepared(args, kwargs)
                if self.input_spec is not None:
                    check_inputs(self.input_spec, self._first(args, kwargs), self.name)
                if not self.built:
                    self._build(args, kwargs)
                    if self.input_spec is not None:
                        check_inputs(self.input_spec, self._first(args, kwargs), self.name)
                if signature.takes_training:
                    if "training" not in kwargs and not self._positional_training(signature, args):
                        kwargs = {**kwargs, "training": bool(training)}
                elif "training" in kwargs and not signature.variadic:
                    kwargs = {key: value for key, value in kwargs.items() if key != "training"}
                outputs = self._called(args, kwargs)
                if self.activity_regularizer is not None:
                    for output in tree.leaves(outputs):
                        penalty = self.activity_regularizer(output)
                        rows = shape_of(output)[0] if shape_of(output) else 1
                        # By row, as in Keras: it counts the same whatever the batch.
                        self.add_loss(penalty if isinstance(rows, Dim) else divide(penalty, rows))
                if not recording:
                    self._mask_outputs(signature, given, {**kwargs, **named}, outputs)
        except CornuError as error:
            if not recording:  # `_record` knows the names of the tensors
                error.locate(layer=f"{self.path!r} ({type(self).__name__})", inputs=self._describe(args, kwargs))
            raise
        finally:
            current.reset(token)
            if kept is not None:
                masks._kept.reset(kept)
                masks.forget(call.root.kept)
        if parent is not None:
            parent.inner.append(self)
        if call.inner:
            self._check_tracked(call)
        return outputs

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `call` gives; where its functions do not know Specs, the shape that `compute_output_shape` gives."""
        if not context.is_abstract():
            return self.call(*args, **kwargs)
        try:
            return self.call(*args, **kwargs)
        except (TypeError, AttributeError) as error:
            if isinstance(error, CornuError):
                raise
            if type(self).compute_output_shape is not Layer.compute_output_shape:
                return self._stated_output(args, kwargs)
            if _raised_by_a_library(error):
                raise EngineError(
                    f"layer {self.name!r} ({type(self).__name__}) calls a function that cannot infer shapes: "
                    f"{type(error).__name__}: "
                    f"{str(error).splitlines()[0][:200] if str(error) else ''}",
                    "a call written with cornu.ops",
                    "or say its shape: def compute_output_shape(self, input_shape)",
                ) from error
            raise

    def _stated_output(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Specs of the shapes that the layer's own `compute_output_shape` gives."""
        given = {
            k: v
            for k, v in self._by_name(args, kwargs).items()
            if not k.endswith("mask") and _is_structure_of_arrays(v)
        }
        shapes = {
            name: tree.map_structure(lambda leaf: keras_shape(shape_of(leaf)), value) for name, value in given.items()
        }
        parameters = list(inspect.signature(self.compute_output_shape).parameters)
        if len(parameters) == 1:
            shape = self.compute_output_shape(next(iter(shapes.values())))
        else:
            shape = self.compute_output_shape(
                **{p: shapes[p.removesuffix("_shape")] for p in parameters if p.removesuffix("_shape") in shapes}
            )
        known = [shape_of(leaf) for leaf in tree.leaves(given) if leaf is not None]
        stated = shapes_to_specs(shape, self.compute_dtype)
        return tree.map_structure(lambda spec: Spec(_with_sizes_of(spec.shape, known), spec.dtype), stated)

    def _scope_path(self) -> str:
        """The path that the names of layers inside begin with."""
        return self.path

    def _positional_training(self, signature: _Signature, args: tuple[Any, ...]) -> bool:
        return "training" in signature.names and signature.names.index("training") < len(args)

    def _training(self, signature: _Signature, args: Any, kwargs: Any, parent: Call | None) -> bool | None:
        """Whether to train: what the caller said, else what holds around, else the default of `call`."""
        given = kwargs.get("training")
        if given is None and self._positional_training(signature, args):
            given = args[signature.names.index("training")]
        if given is None and parent is not None:
            given = parent.training
        if given is None and isinstance(signature.training_default, bool):
            given = signature.training_default
        return given

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Array arguments on the engine in force, floats in the compute dtype."""
        return tuple(self._convert(a) for a in args), {k: self._convert(v) for k, v in kwargs.items()}

    def _convert(self, argument: Any) -> Any:
        kind = type(argument)
        if kind is bool or kind is str or argument is None or kind is int or kind is float:
            return argument
        if kind is list and argument and not any(_is_array(leaf) for leaf in tree.leaves(argument)):
            if all(isinstance(leaf, (int, float)) for leaf in tree.leaves(argument)):
                return self._convert_leaf(host_array(argument))  # numbers in nested lists
        if kind in (list, tuple, dict):
            return tree.map_structure(self._convert_leaf, argument)
        return self._convert_leaf(argument)

    def _convert_leaf(self, value: Any) -> Any:
        if interpreter_of(value) is None:
            if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
                raise DtypeError(
                    f"layer {self.name!r} got an array of dtype {value.dtype}",
                    "numbers or booleans",
                    "turn text into numbers first (an index, one-hot or hash)",
                )
            if not isinstance(value, (np.ndarray, np.generic)):
                return value
            given = value
            value = to_spec(given) if context.is_abstract() else as_tensor(given)
            if value is given and type(given) is np.ndarray and masks.mask_of(given) is None:
                value = given.view()  # a mask that a layer sets on it must not stay on the caller's array
        elif isinstance(value, Variable):
            value = value.value
        dtype = self.compute_dtype
        if self.autocast and dtype_of(value) != dtype and dtype_of(value) in dtypes.FLOATS:
            mask = masks.mask_of(value)
            value = cast_to(value, dtype=dtype)
            masks.set_mask(value, mask)
        return value

    # ------------------------------------------------ building

    def _build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arrays = {
            name: value
            for name, value in self._by_name(args, kwargs).items()
            if not name.endswith("mask") and _is_structure_of_arrays(value)
        }
        if self._builds_by_calling():
            vars(self)["_called_with"] = {
                name: tree.map_structure(
                    lambda leaf: {"shape": keras_shape(shape_of(leaf)), "dtype": dtype_of(leaf)}, value
                )
                for name, value in arrays.items()
            }
        self._build_with(
            {n: tree.map_structure(lambda leaf: keras_shape(shape_of(leaf)), v) for n, v in arrays.items()}
        )

    def _builds_by_calling(self) -> bool:
        """Whether the weights are made as `call` runs, for want of a `build` of its own."""
        return type(self).build is Layer.build

    def _build_with(self, shapes: dict[str, Any]) -> None:
        """Call `build` with the shapes it asks for."""
        if not self._builds_by_calling():
            parameters = _build_parameters(type(self))
            if len(parameters) == 1 and not (parameters[0].endswith("_shape") and parameters[0][:-6] in shapes):
                first = next(iter(shapes.values()), None)
                chosen: dict[str, Any] = {parameters[0]: first}
            else:
                chosen = {p: shapes[p.removesuffix("_shape")] for p in parameters if p.removesuffix("_shape") in shapes}
            vars(self)["_build_shapes"] = chosen
            vars(self)["_building"] = True
            try:
                self.build(**chosen)
            finally:
                vars(self)["_building"] = False
        else:
            vars(self)["_build_shapes"] = {"input_shape": next(iter(shapes.values()), None)}
        self.built = True

    def get_build_config(self) -> dict[str, Any] | None:
        """The shapes it was built with, for files."""
        shapes = self._build_shapes
        if shapes is None:
            return None
        found = {"input_shape": next(iter(shapes.values()))} if len(shapes) == 1 else {"shapes_dict": shapes}
        # With no `build` of its own it is built by a call: on these arguments.
        return found if self._called_with is None or not self.variables else {**found, "call": self._called_with}

    def _build_by_calling(self, arguments: dict[str, Any]) -> None:
        """Make the weights by running `call` on Specs, given as shapes and dtypes."""

        def spec(value: Any) -> Any:
            if isinstance(value, dict) and set(value) == {"shape", "dtype"}:
                return shapes_to_specs(_tuples(value["shape"]), value["dtype"])
            if isinstance(value, dict):
                return {key: spec(part) for key, part in value.items()}
            return [spec(part) for part in value]

        with context.abstract():
            self(**{name: spec(value) for name, value in arguments.items()})

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build with the shapes of a file."""
        if not config or self.built:
            return
        if "call" in config and self._builds_by_calling():
            self._build_by_calling(config["call"])
            return
        shapes = config.get("shapes_dict") or {key: value for key, value in config.items() if key != "call"}
        token = current.set(Call(self, current.get(), None, self.path))
        try:
            vars(self)["_building"] = True
            if type(self).build is not Layer.build:
                parameters = _build_parameters(type(self))
                values = [_tuples(shape) for shape in shapes.values()]
                if len(parameters) == 1:
                    self.build(values[0])
                else:
                    self.build(**{key: _tuples(shape) for key, shape in shapes.items() if key in parameters})
            vars(self)["_build_shapes"] = {key: _tuples(shape) for key, shape in shapes.items()}
            self.built = True
        finally:
            vars(self)["_building"] = False
            current.reset(token)

    def _check_tracked(self, call: Call) -> None:
        """Refuse a call that used a layer which this one does not hold."""
        known = self._known
        if all(id(layer) in known for layer in call.inner) or self._graph_layers() is not None:
            return
        known.clear()
        known.update((id(layer), layer) for layer in self._flatten_layers(include_self=False))
        for layer in call.inner:
            if id(layer) not in known and layer is not self and layer.variables:
                raise BuildError(
                    f"layer {self.name!r} ({type(self).__name__}) calls layer {layer.name!r} "
                    f"({type(layer).__name__}), which it does not hold: "
                    "its weights would be neither trained nor saved",
                    "layers made in __init__ or build and kept in an attribute (or a list, dict or object in one)",
                    f"keep it: self.{layer.name} = {type(layer).__name__}(...)",
                )
            known[id(layer)] = layer

    def _mask_outputs(self, signature: _Signature, args: Any, kwargs: Any, outputs: Any) -> None:
        """Let masks travel on with values (or with Specs, inside a call that is being recorded)."""
        custom = self._has_mask_rule()
        if not custom and not self.supports_masking:
            self._keep_aligned(signature, args, kwargs, outputs)
            return
        for output in tree.leaves(outputs):
            if type(output) is Spec:
                output.mask = None
        inputs = self._first(args, kwargs)
        previous = tree.map_structure(masks.mask_of, inputs)
        if kwargs.get("mask") is not None and not isinstance(kwargs["mask"], bool):
            previous = kwargs["mask"]
        if not custom and all(mask is None for mask in tree.leaves(previous)):
            return
        produced = self.compute_mask(inputs, previous)
        if produced is None:
            return
        for output, mask in zip(tree.leaves(outputs), tree.leaves(produced), strict=False):
            if mask is not None and masks.mask_of(output) is None:
                masks.set_mask(output, mask)

    def _keep_aligned(self, signature: _Signature, args: Any, kwargs: Any, outputs: Any) -> None:
        """Let masks travel through a layer without a rule, if its ops keep their positions."""
        given = [leaf for leaf in tree.leaves([args, kwargs]) if leaf is not None]
        if context.is_abstract():
            behind = next((leaf.mask.through for leaf in given if type(leaf) is Spec and leaf.mask is not None), None)
            for output in tree.leaves(outputs):
                tag = output.mask if type(output) is Spec else None
                if tag is None:
                    continue
                if tag.lost is not None and not signature.mask_for:
                    self._warn_lost(tag.lost, user_line())
                output.mask = None if tag.lost is not None else masks.Tag(tag.sources, None, behind)
            return
        parent = current.get().parent  # type: ignore[union-attr]
        found = [masks.mask_of(leaf) for leaf in given]
        if all(mask is None for mask in found) or getattr(parent and parent.layer, "_function", None) is not None:
            return  # in a graph masks have nodes of their own
        for output, sources in zip(tree.leaves(outputs), self._alignment(args, kwargs, given, found), strict=True):
            if sources and masks.mask_of(output) is None:
                masks.set_mask(output, masks.combined(tuple(found[i] for i in sources)))

    def _alignment(self, args: Any, kwargs: Any, given: list[Any], found: list[Any]) -> list[list[int]]:
        """For each output the arguments whose masks hold for it; worked out on Specs, once for each set of shapes."""
        key = tuple(
            (shape_of(x), dtype_of(x), None if m is None else len(shape_of(m)))
            for x, m in zip(given, found, strict=True)
        )
        known = vars(self).setdefault("_aligned", {})
        if key not in known:
            place = {id(mask): i for i, mask in enumerate(found) if mask is not None}
            tags = {id(x): masks.Tag((m,)) for x, m in zip(given, found, strict=True) if m is not None}

            def spec(leaf: Any) -> Any:
                return Spec(shape_of(leaf), dtype_of(leaf), tags.get(id(leaf))) if _is_array(leaf) else leaf

            layers = self._flatten_layers()
            noted = [list(layer._call_losses) for layer in layers]
            token = current.set(None)
            try:
                with context.abstract(), context.bind([], []):
                    specs = self._run(tree.map_structure(spec, args), tree.map_structure(spec, kwargs), recording=True)
            finally:
                current.reset(token)
                for layer, losses in zip(layers, noted, strict=True):
                    layer._call_losses[:] = losses
            kept = [getattr(leaf, "mask", None) for leaf in tree.leaves(specs)]
            known[key] = [
                []
                if tag is None or tag.lost is not None
                else [place[id(source)] for source in tag.sources if id(source) in place]
                for tag in kept
            ]
        result: list[list[int]] = known[key]
        return result

    def _check_left_behind(self, signature: _Signature, args: Any, kwargs: Any) -> None:
        """Say that a mask does not come along with a value's own arithmetic in a `call` (only a graph's masks do)."""
        if not context.is_abstract() or not (signature.mask_for or self.supports_masking):
            return
        for leaf in tree.leaves([args, kwargs]):
            tag = leaf.mask if type(leaf) is Spec else None
            if tag is None or tag.lost is not None or tag.through is None:
                continue
            leaf.mask = None
            if signature.mask_for and not any(kwargs.get(name) is not None for name in signature.mask_for.values()):
                self._warn(
                    f"layer {self.path!r} ({type(self).__name__}) gets no mask: its input had one, which "
                    "arithmetic in a `call` "
                    f"({tag.through!r}, before {user_line()}) leaves behind; pass it on (mask=...), compute with "
                    "a layer, or drop it "
                    "(cornu.ops.drop_mask(x))",
                    "a mask handed on by hand",
                )

    # ------------------------------------------------ pure calls, inputs and outputs

    def stateless_call(
        self,
        trainable_variables: list[Any],
        non_trainable_variables: list[Any],
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call without side effects.

        Args:
            trainable_variables: a value for each of `trainable_variables`.
            non_trainable_variables: a value for each of `non_trainable_variables`.
            args: arguments of the call.
            return_losses: whether to give the losses too.
            kwargs: arguments of the call.

        Returns:
            `(outputs, new non-trainable values)`, and the losses if asked for.
        """
        own, others = self.trainable_variables, self.non_trainable_variables
        values = [*trainable_variables, *non_trainable_variables]
        if len(values) != len(own) + len(others):
            raise ShapeError(
                f"stateless_call of {self.name!r} got {len(trainable_variables)} and "
                f"{len(non_trainable_variables)} values",
                f"{len(own)} and {len(others)}",
            )
        with context.bind([*own, *others], values) as scope:
            outputs = self(*args, **kwargs)
            new = [scope.values[id(v)] for v in others]
            if return_losses:
                return outputs, new, self.losses
        return outputs, new

    def _only_node(self, what: str) -> Any:
        nodes = [node for reference in self._calls if (node := reference()) is not None]
        if len(nodes) != 1:
            state = "has not been called in a graph" if not nodes else f"was called {len(nodes)} times"
            raise BuildError(
                f"layer {self.name!r} {state}, so its {what} is not defined",
                "a layer called once",
                "take the tensor itself from the call, or model.get_tensor(path)",
            )
        return nodes[0]

    @property
    def input(self) -> Any:
        """The symbolic input of its one call."""
        node = self._only_node("input")
        return self._first(node.args, node.kwargs) if node.parents else node.structure

    @property
    def output(self) -> Any:
        """The symbolic output of its one call."""
        return self._only_node("output").structure

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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_calls": [], "_call_losses": [], "_known": {}}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def _raised_by_a_library(error: BaseException) -> bool:
    """Whether an error comes from a library's code, neither the user's nor Cornu's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    module = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    return module != "cornu" and not is_user_file(trace.tb_frame.f_code.co_filename)


def _with_sizes_of(stated: tuple[Any, ...], known: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A stated shape, in which an unknown size is that of the inputs on the same axis if that is unknown too."""
    sizes = []
    for axis, size in enumerate(stated):
        if isinstance(size, Dim):
            same = [shape[axis] for shape in known if axis < len(shape) and isinstance(shape[axis], Dim)]
            size = same[0] if same else size
        sizes.append(size)
    return tuple(sizes)


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
}
_INTERNAL |= {"optimizer", "_objective", "_cache", "_compile_arguments", "history"}  # a model's, for training


def _internal(name: str) -> bool:
    return name in _INTERNAL


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or interpreter_of(value) is not None


def _is_structure_of_arrays(value: Any) -> bool:
    leaves = tree.leaves(value)
    return (
        bool(leaves)
        and all(leaf is None or _is_array(leaf) for leaf in leaves)
        and not all(leaf is None for leaf in leaves)
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(size is None or isinstance(size, (int, Dim)) for size in value)


def _tuples(shape: Any) -> Any:
    """A shape, or structure of shapes, from a file: lists become tuples."""
    if _is_shape(shape):
        return tuple(shape)
    if isinstance(shape, dict):
        return {key: _tuples(part) for key, part in shape.items()}
    return [_tuples(part) for part in shape] if isinstance(shape, (list, tuple)) else shape


_unknown_names = iter(range(10**9))


def shapes_to_specs(shape: Any, dtype: str) -> Any:
    """Specs for shapes in Keras's form: the first unknown size is the batch, each other one a new name."""
    if shape is None:
        return None
    if _is_shape(shape):
        sizes = []
        for i, size in enumerate(shape):
            if size is None:
                size = Dim("batch") if i == 0 else Dim(f"axis{i}.{next(_unknown_names)}")
            sizes.append(size)
        return Spec(tuple(sizes), dtype)
    if isinstance(shape, dict):
        return {key: shapes_to_specs(part, dtype) for key, part in shape.items()}
    return [shapes_to_specs(part, dtype) for part in shape]
