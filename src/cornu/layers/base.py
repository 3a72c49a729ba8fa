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
from typing import Any

import numpy as np

from cornu import dtype_policies, regularizers
from cornu.core import config, context, dtypes, tree
from cornu.core.dims import Dim, keras_shape
from cornu.core.errors import (
    ArgumentError,
    BuildError,
    CornuError,
    DtypeError,
    EngineError,
    ShapeError,
    UnsupportedError,
    near_miss,
)
from cornu.core.names import auto_name
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines import registry
from cornu.graph import masks
from cornu.graph.symbolic import describe, record, specs_of, user_tensors
from cornu.layers._arguments import (
    Signature,
    is_array,
    is_structure_of_arrays,
    shapes_to_specs,
    signature_of,
    to_tuples,
    with_sizes_of,
)
from cornu.layers._context import Call, current
from cornu.layers._masking import Masking
from cornu.layers._native import Native, bound_engine, check_engine, infer, native_of
from cornu.layers._remat import RematMode, call_rematerialized, mode_in_force
from cornu.layers.input_spec import InputSpec, check_inputs
from cornu.ops._declare import ENGINE_RANK, dtype_of, host_array, interpreter_of, shape_of, to_spec
from cornu.ops._rules import constraints
from cornu.ops.arithmetic import divide
from cornu.ops.creation import as_tensor
from cornu.ops.elementwise import cast_to

__all__ = ["InputSpec", "Layer"]


@functools.cache
def _build_parameters(cls: type) -> list[str]:
    """The names of what `build` of a layer class takes."""
    return [name for name in inspect.signature(cls.build).parameters if name != "self"]  # type: ignore[attr-defined]


class Layer(Masking):
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

    autograph_info__: dict[str, Any] = {}  # what TensorFlow's AutoGraph looks for on callables to leave alone
    _base_arguments = ("name", "trainable", "dtype", "activity_regularizer", "autocast")
    _remat: RematMode | None = None

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
        own["_remat"] = mode_in_force()
        own.setdefault("input_spec", None)
        own.setdefault("_native", None)
        own.setdefault("supports_masking", type(self).compute_mask is not Layer.compute_mask)

    # ------------------------------------------------ names, dtypes

    # ------------------------------------------------ weights

    # ------------------------------------------------ losses

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
        """Run the layer, or record it if an argument is symbolic.

        Args:
            args: arguments of `call`.
            kwargs: arguments of `call`; and `engine`, the engine for this call (by default the one of the `with` block,
                else of the values given, else the default). Values of another engine are brought over.
        """
        if user_tensors(args) or (kwargs and user_tensors(kwargs)):
            return self._record(args, kwargs)
        if current.get() is not None or context.is_abstract():
            return self._run(args, kwargs)
        name = kwargs.pop("engine", None) if "engine" in kwargs and self._engine_is_ours() else None
        engine = registry.get(name) if name is not None else self._engine_for((args, kwargs))
        with context.use_engine(engine):
            return self._run(args, kwargs)

    def _engine_is_ours(self) -> bool:
        """Whether `engine` is no argument of the layer's own `call`."""
        signature = signature_of(type(self))
        return "engine" not in signature.names and not signature.variadic

    def _engine_for(self, values: Any) -> Any:
        """The engine for a call that names none."""
        bound = bound_engine(self._flatten_layers()) if Native.count else None
        return registry.get(bound) if bound and context.chosen_engine() is None else registry.choose(values)

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
        told = context.on_call.get()
        if told is not None:
            told(call, outputs)
        if parent is not None:
            parent.inner.append(self)
        if call.inner:
            self._check_tracked(call)
        return outputs

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `call` gives; on Specs, where its functions know none, what their engine infers."""
        if not context.is_abstract():
            if self._native is not None:
                check_engine(self)
            return self._checked(self._computed(args, kwargs))
        if self._native is None:
            try:
                return self._computed(args, kwargs)
            except Exception as error:
                native = native_of(error)
                if native is None:
                    raise
                vars(self)["_native"] = native
        if type(self).compute_output_shape is not Layer.compute_output_shape:
            return self._stated_output(args, kwargs)
        return infer(self, args, kwargs)

    def _computed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `call` gives, computed again on the way back if the layer was made in a `RematScope` that says so."""
        if self._remat is None or (context.is_abstract() and context.tape.get() is None):
            return self.call(*args, **kwargs)
        return call_rematerialized(self, self._remat, args, kwargs)

    def _checked(self, outputs: Any) -> Any:
        """The outputs, which must be values of the engine in force.

        Raises:
            EngineError: if they are another engine's.
        """
        for leaf in tree.leaves(outputs):
            owner = interpreter_of(leaf)
            if owner is not None and owner.rank == ENGINE_RANK and owner is not context.engine_in_force():
                raise EngineError(
                    f"layer {self.path!r} ({type(self).__name__}) gave a value of engine {owner.name!r} "
                    f"where {context.engine_in_force().name!r} runs the model",
                    "values of the engine in force",
                    f"engine={owner.name!r} for this call, or a `call` written with cornu.ops",
                )
        return outputs

    def _stated_output(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Specs of the shapes that the layer's own `compute_output_shape` gives."""
        given = {
            k: v for k, v in self._by_name(args, kwargs).items() if not k.endswith("mask") and is_structure_of_arrays(v)
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
        return tree.map_structure(lambda spec: Spec(with_sizes_of(spec.shape, known), spec.dtype), stated)

    def _scope_path(self) -> str:
        """The path that the names of layers inside begin with."""
        return self.path

    def _positional_training(self, signature: Signature, args: tuple[Any, ...]) -> bool:
        return "training" in signature.names and signature.names.index("training") < len(args)

    def _training(self, signature: Signature, args: Any, kwargs: Any, parent: Call | None) -> bool | None:
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
        if kind is list and argument and not any(is_array(leaf) for leaf in tree.leaves(argument)):
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
        else:
            value = _brought_over(value)
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
            if not name.endswith("mask") and is_structure_of_arrays(value)
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
                return shapes_to_specs(to_tuples(value["shape"]), value["dtype"])
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
                values = [to_tuples(shape) for shape in shapes.values()]
                if len(parameters) == 1:
                    self.build(values[0])
                else:
                    self.build(**{key: to_tuples(shape) for key, shape in shapes.items() if key in parameters})
            vars(self)["_build_shapes"] = {key: to_tuples(shape) for key, shape in shapes.items()}
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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_calls": [], "_call_losses": [], "_known": {}}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def _brought_over(value: Any) -> Any:
    """Another engine's value on the engine in force."""
    owner = interpreter_of(value)
    if owner.rank != ENGINE_RANK:
        return value
    engine = context.engine_in_force()
    return value if owner is engine or context.is_abstract() else engine.from_any(value)
