"""What of a model decides how fast it runs, as plain values and as a key: its structure, not its weights or names."""

import hashlib
import json
import types
from typing import Any

from cornu.core import dtypes, tree
from cornu.core.config import Configurable
from cornu.core.variable import Variable
from cornu.dtype_policies import DTypePolicy
from cornu.graph.symbolic import SymbolicTensor
from cornu.layers.base import Layer
from cornu.ops._declare import Op, dtype_of, shape_of

__all__ = ["batch_of", "fingerprint", "key_of"]

# Arguments that change numbers and not the work.
_ASIDE = ("name", "seed", "rng_seed")


def key_of(plain: Any) -> str:
    """A key of plain values: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def batch_of(batch: Any) -> list[str]:
    """Path, shape and dtype of each array of a batch, in words."""
    found = []
    for path, leaf in tree.flatten_with_path(batch):
        kind = "None" if leaf is None else f"{tuple(map(int, shape_of(leaf)))} {dtype_of(leaf)}"
        found.append(f"{'/'.join(map(str, path))}: {kind}")
    return found


def fingerprint(model: Any, kind: str) -> dict[str, Any]:
    """Plain values that are equal for models that do the same work.

    Args:
        model: the model, whose variables are made.
        kind: `"train"`, `"test"` or `"predict"`.
    """
    layers = model._flatten_layers()
    describe = _Describe({id(layer): number for number, layer in enumerate(layers)})
    found: dict[str, Any] = {
        "kind": kind,
        "layers": [describe.layer(layer) for layer in layers],
        "eager": model.run_eagerly,
        "thorough": (model._compile_arguments or {}).get("jit_compile") is True,
        "floatx": dtypes.floatx(),
    }
    if kind != "predict":
        found["compile"] = describe.value(
            {name: value for name, value in (model._compile_arguments or {}).items() if name != "optimizer"}
        )
    if kind == "train":
        found["optimizer"] = describe.value(model.optimizer)
        found["guard"] = model._guard
    return found


class _Describe:
    """Describes objects in plain values.

    Args:
        numbers: id of a layer -> its number, by which it is named.
    """

    def __init__(self, numbers: dict[int, int]) -> None:
        self.numbers = numbers

    def layer(self, layer: Any) -> dict[str, Any]:
        """A layer: its class, arguments and weights, and its graph if it has one."""
        own = [variable for group in layer._own()[:2] for variable in group]
        function = getattr(layer, "_function", None)
        return {
            "class": self.type(type(layer)),
            "arguments": self.arguments(layer),
            "policy": layer.dtype_policy.name,
            "trainable": layer._trainable,
            "weights": [self.value(variable) for variable in own],
            "inner": [self.numbers.get(id(inner)) for inner in layer._sublayers()],
            "graph": None if function is None else self.graph(function.plan),
        }

    def graph(self, plan: Any) -> list[Any]:
        """The calls of a graph, in their order, with tensors named by where they come from."""
        places = {id(tensor): ["input", number] for number, tensor in enumerate(plan.inputs)}
        calls = []
        for number, node in enumerate(plan.nodes):
            places.update(
                (id(tensor), [number, i]) for i, tensor in enumerate(node.outputs) if id(tensor) not in places
            )
            given = tree.map_structure(lambda leaf: places.get(id(leaf), leaf), (node.args, node.kwargs))
            calls.append([self.value(node.operation), self.value(given)])
        return [calls, [places.get(id(tensor)) for tensor in plan.outputs]]

    def arguments(self, owner: Configurable) -> Any:
        """What an object was made with."""
        given = owner._arguments_by_name()
        return {name: self.value(value) for name, value in given.items() if name not in _ASIDE}

    def value(self, value: Any) -> Any:
        """Anything."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value) if isinstance(value, float) else value
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {str(name): self.value(item) for name, item in value.items()}
        if id(value) in self.numbers:
            return ["layer", self.numbers[id(value)]]
        if isinstance(value, Op):
            return ["op", value.name]
        if isinstance(value, Variable):
            return ["variable", list(value.shape), value.dtype, value.trainable]
        if isinstance(value, DTypePolicy):
            return ["policy", value.name]
        if isinstance(value, SymbolicTensor):
            return ["tensor", len(value.shape), value.dtype]
        if isinstance(value, Configurable) and not isinstance(value, Layer):
            return [self.type(type(value)), self.arguments(value)]
        if isinstance(value, type):
            return self.type(value)
        if isinstance(value, types.FunctionType):
            return ["function", value.__qualname__, _code(value.__code__)]
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return ["array", [*map(str, shape_of(value))], str(value.dtype)]
        return self.type(type(value))

    def type(self, cls: type) -> Any:
        """A class by name; one of a user's with what its functions do, for they may be edited."""
        foreign = [base for base in cls.__mro__ if not base.__module__.startswith(("cornu.", "builtins", "abc"))]
        own = [
            [name, _code(function.__code__)]
            for base in foreign
            for name, member in sorted(vars(base).items())
            if isinstance(function := getattr(member, "__func__", member), types.FunctionType)
        ]
        return [f"{cls.__module__}.{cls.__qualname__}", *own]


def _code(code: types.CodeType) -> str:
    """A short digest of what a function does."""
    digest = hashlib.sha256(code.co_code)
    for name in (*code.co_names, *code.co_freevars):
        digest.update(name.encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            digest.update(_code(constant).encode())
        elif isinstance(constant, frozenset):  # whose order changes from process to process
            digest.update(repr(sorted(map(repr, constant))).encode())
        else:
            digest.update(repr(constant).encode())
    return digest.hexdigest()[:16]
