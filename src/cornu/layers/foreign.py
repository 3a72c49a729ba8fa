"""Functions and modules of other libraries as layers: `JaxLayer`, `FlaxLayer`, `TorchModuleWrapper`.

Their weights are ordinary variables, which Cornu's optimizers train and its files keep. They run on their own engine
only. No library is imported here: what is called belongs to the user's objects.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError, GraphError, ShapeError
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines import registry
from cornu.layers._arguments import shapes_to_specs
from cornu.layers._clock import layer_key
from cornu.layers._native import Native
from cornu.layers.base import Layer
from cornu.layers.dropout import seed_of
from cornu.ops.creation import convert_to_numpy

__all__ = ["FlaxLayer", "JaxLayer", "TorchModuleWrapper"]


def _variables(layer: Layer, values: Any, trainable: bool, names: str) -> Any:
    """Variables of a layer in the structure of arrays (what is no array stays as it is)."""
    found = {}
    for path, leaf in tree.flatten_with_path(values):
        if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
            name = "_".join(map(str, (names, *path)))
            host = np.asarray(convert_to_numpy(leaf))
            found[path] = layer.add_weight(
                shape=host.shape, dtype=host.dtype, trainable=trainable, autocast=False, name=name,
                initializer=lambda shape, dtype, host=host: host,
            )  # fmt: skip
        else:
            found[path] = leaf
    return tree.pack(values, found.values())


def _values(variables: Any) -> Any:
    return tree.map_structure(lambda leaf: leaf.value if isinstance(leaf, Variable) else leaf, variables)


class JaxLayer(Layer):
    """A JAX function as a layer, with parameters and state.

    Args:
        call_fn: function with arguments among `params`, `state`, `rng`, `inputs`, `training` (by name, in any order);
            gives the outputs, or `(outputs, new state)` if it takes `state`.
        init_fn: function with arguments among `rng`, `inputs`, `training`; gives the first `params`, or `(params,
            state)` if `call_fn` takes `state`. Called when the layer is built, unless `params` or `state` are given.
        params: structure of arrays that train.
        state: structure of arrays that do not.
        seed: seed of what `rng` follows from, or `None` to draw one now.

    Raises:
        ArgumentError: if a function takes other arguments, or nothing says what the parameters are.

    Example:
        >>> import cornu, numpy as np
        >>> layer = cornu.layers.JaxLayer(
        ...     lambda params, inputs: inputs @ params["w"], params={"w": np.ones((3, 2), "float32")}
        ... )
        >>> layer(np.ones((1, 3), "float32")).tolist()
        [[3.0, 3.0]]
    """

    def __init__(
        self,
        call_fn: Callable[..., Any],
        init_fn: Callable[..., Any] | None = None,
        params: Any = None,
        state: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.call_fn = call_fn
        self.init_fn = init_fn
        self.seed = seed_of("JaxLayer", seed)
        self._native = Native("jax", f"the function {getattr(call_fn, '__name__', call_fn)!r}")
        self._takes = _takes(call_fn, "call_fn", ("params", "state", "rng", "inputs", "training"))
        self._init_takes = () if init_fn is None else _takes(init_fn, "init_fn", ("rng", "inputs", "training"))
        needs = {"params", "state"} & set(self._takes)
        if needs and init_fn is None and params is None and state is None:
            raise ArgumentError(
                f"JaxLayer got a call_fn that takes {' and '.join(sorted(needs))}, and nothing that gives them",
                "init_fn, params or state",
            )
        self.params = _variables(self, params, True, "params")
        self.state = _variables(self, state, False, "state")
        self._made = params is not None or state is not None

    def build(self, input_shape: Any) -> None:
        """Make the parameters with `init_fn`, unless they were given."""
        if not self._made and self.init_fn is not None:
            specs = shapes_to_specs(input_shape, self.compute_dtype)
            with context.abstract(False), registry.engine("jax") as engine:
                given = {"rng": engine.own(layer_key(self, self.seed)), "training": True}
                given["inputs"] = tree.map_structure(lambda spec: engine.from_host(_sample(spec)), specs)
                made = self.init_fn(*(given[name] for name in self._init_takes))
            params, state = made if "state" in self._takes else (made, None)
            self.params = _variables(self, params, True, "params")
            self.state = _variables(self, state, False, "state")
        self._made = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Call the function."""
        given: dict[str, Any] = {"inputs": inputs, "training": training}
        given["params"], given["state"] = _values(self.params), _values(self.state)
        if "rng" in self._takes:
            given["rng"] = registry.get("jax").own(layer_key(self, self.seed))
        result = self.call_fn(*(given[name] for name in self._takes))
        if "state" not in self._takes:
            return result
        outputs, state = result
        if not tree.same_structure(state, self.state):
            raise GraphError(
                f"the call_fn of JaxLayer {self.name!r} gave a state of another structure than it got",
                f"the structure {tree.structure(self.state)!r}",
            )
        tree.map_structure(lambda old, new: old.assign(new) if isinstance(old, Variable) else None, self.state, state)
        return outputs


def _sample(spec: Spec) -> np.ndarray:
    """An array of a Spec's shape, unknown sizes 1."""
    return np.ones([1 if isinstance(size, Dim) else size for size in spec.shape], dtypes.numpy_dtype(spec.dtype))


def _takes(function: Callable[..., Any], what: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what a function takes, in its order.

    Raises:
        ArgumentError: if they are not among those known, or `inputs` is missing.
    """
    names = tuple(inspect.signature(function).parameters)
    unknown = [name for name in names if name not in known]
    if unknown or "inputs" not in names:
        raise ArgumentError(
            f"JaxLayer got a {what} with the arguments {', '.join(names)}",
            f"`inputs`, and others among {', '.join(known)}",
        )
    return names


class FlaxLayer(JaxLayer):
    """A `flax.linen.Module` as a layer.

    Args:
        module: the module; its method takes `inputs`, and `training` if it likes.
        method: the method to call: a name, a function of the module, or `None` for `__call__`.
        variables: the module's variables, as `module.init` gives them; by default made by it when the layer is built.

    Example:
        `cornu.layers.FlaxLayer(flax.linen.Dense(8))(cornu.Input((4,)))`
    """

    def __init__(self, module: Any, method: Any = None, variables: Any = None, **kwargs: Any) -> None:
        self.module = module
        self.method = method
        function = getattr(module, method) if isinstance(method, str) else method or module.__call__
        takes_training = "training" in inspect.signature(function).parameters

        def arguments(inputs: Any, training: bool) -> tuple[Any, dict[str, Any]]:
            given = {"training": training} if takes_training else {}
            return inputs, {**given, **({} if method is None else {"method": method})}

        def initialize(rng: Any, inputs: Any, training: bool) -> Any:
            inputs, named = arguments(inputs, training)
            return _split(module.init(rng, inputs, **named))

        def apply(params: Any, state: Any, rng: Any, inputs: Any, training: bool) -> Any:
            inputs, named = arguments(inputs, training)
            known = {**({} if params is None else {"params": params}), **(state or {})}
            outputs, changed = module.apply(known, inputs, rngs={"dropout": rng}, mutable=list(state or {}), **named)
            return outputs, {**(state or {}), **changed}

        params, state = (None, None) if variables is None else _split(variables)
        super().__init__(apply, initialize, params, state, **kwargs)
        self._native = Native("jax", f"the Flax module {type(module).__name__}")


def _split(variables: Any) -> tuple[Any, Any]:
    """A module's parameters, and all its other collections."""
    plain = _plain(variables)
    return plain.get("params"), {name: part for name, part in plain.items() if name != "params"}


def _plain(mapping: Any) -> Any:
    return {key: _plain(value) for key, value in mapping.items()} if hasattr(mapping, "items") else mapping


class TorchModuleWrapper(Layer):
    """A `torch.nn.Module` as a layer. Its own parameters are the layer's weights: training the one trains the other.

    Args:
        module: the module.
        name: the layer's name.
        output_shape: taken for Keras's sake; shapes are inferred by PyTorch.

    Example:
        `cornu.layers.TorchModuleWrapper(torch.nn.Linear(4, 8))(cornu.Input((4,)))`
    """

    def __init__(self, module: Any, name: str | None = None, output_shape: Any = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if not callable(getattr(module, "named_parameters", None)):
            raise ArgumentError(f"TorchModuleWrapper got {type(module).__name__}", "a torch.nn.Module")
        self.module = module
        self.output_shape = output_shape
        self._native = Native("torch", f"the module {type(module).__name__}")
        engine = registry.get("torch")
        # Where a module inside holds a tensor: its dict, the key, the variable that stands for it, whether it is a
        # buffer, which the module may write to in place.
        self._places: list[tuple[dict[str, Any], str, Variable, bool]] = []
        known: dict[int, Variable] = {}
        for path, inner in module.named_modules():
            for store, trains in ((inner._parameters, True), (inner._buffers, False)):
                for key, tensor in store.items():
                    if tensor is None:
                        continue
                    variable = known.get(id(tensor))
                    if variable is None:
                        variable = self.add_weight(
                            shape=tuple(tensor.shape),
                            dtype=dtypes.standardize_dtype(tensor.dtype),
                            name=f"{path}.{key}".strip("."),
                            trainable=trains and tensor.requires_grad,
                            autocast=False,
                            initializer="zeros",
                        )
                        variable.home = engine.adopt(tensor)
                        known[id(tensor)] = variable
                    self._places.append((store, key, variable, not trains))

    def build(self, input_shape: Any) -> None:
        """Nothing to make: the module holds its parameters."""

    def call(self, *args: Any, training: bool = False, **kwargs: Any) -> Any:
        """Call the module with its parameters at the variables' values."""
        before = [store[key] for store, key, *_ in self._places]
        mode = self.module.training
        self.module.train(bool(training))
        try:
            for store, key, variable, is_buffer in self._places:
                store[key] = variable.value.clone() if is_buffer else variable.value
            result = self.module(*args, **kwargs)
            if training:
                for store, key, variable, is_buffer in self._places:
                    if is_buffer:
                        variable.assign(store[key].detach())
        finally:
            for (store, key, *_), tensor in zip(self._places, before, strict=True):
                store[key] = tensor
            self.module.train(mode)
        if not all(hasattr(leaf, "shape") for leaf in tree.leaves(result)):
            raise ShapeError(f"the module of {self.name!r} gave {type(result).__name__}", "tensors")
        return result
