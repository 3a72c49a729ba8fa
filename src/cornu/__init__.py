"""Cornu: Keras 3's API on a new design, in which the engine is a choice per call.

`import cornu` imports next to nothing: each part below is imported when it is first used, an engine when something is
first computed on it.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> (module, name in it; "" for the module itself)
_PUBLIC: dict[str, tuple[str, str]] = {
    **{
        name: (f"cornu.{name}", "")
        for name in (
            "activations", "autodiff", "callbacks", "constraints", "core", "dtype_policies", "engines", "initializers",
            "inspect", "interop", "layers", "losses", "metrics", "models", "ops", "optimizers", "random",
            "regularizers", "saving", "training", "utils",
        )
    },
    "config": ("cornu.configuration", ""),
    "errors": ("cornu.core.errors", ""),
    "mixed_precision": ("cornu.dtype_policies", ""),
    "DTypePolicy": ("cornu.dtype_policies", "DTypePolicy"),
    "Functional": ("cornu.models", "Functional"),
    "Initializer": ("cornu.initializers", "Initializer"),
    "Input": ("cornu.layers", "Input"),
    "InputSpec": ("cornu.layers", "InputSpec"),
    "KerasTensor": ("cornu.graph", "SymbolicTensor"),
    "Layer": ("cornu.layers", "Layer"),
    "Loss": ("cornu.losses", "Loss"),
    "Metric": ("cornu.metrics", "Metric"),
    "Model": ("cornu.models", "Model"),
    "Optimizer": ("cornu.optimizers", "Optimizer"),
    "RematScope": ("cornu.layers._remat", "RematScope"),
    "Regularizer": ("cornu.regularizers", "Regularizer"),
    "Sequential": ("cornu.models", "Sequential"),
    "Spec": ("cornu.core.spec", "Spec"),
    "SymbolicTensor": ("cornu.graph", "SymbolicTensor"),
    "Variable": ("cornu.core.variable", "Variable"),
    "check_layer": ("cornu.inspect.check_layer", "check_layer"),
    "clear_auto_cache": ("cornu.engines", "clear_auto_cache"),
    "engine": ("cornu.engines", "engine"),
    "remat": ("cornu.layers._remat", "remat"),
    "set_auto_budget": ("cornu.engines", "set_auto_budget"),
    "set_compile_cache": ("cornu.engines", "set_compile_cache"),
    "set_engine": ("cornu.engines", "set_engine"),
    "set_strict": ("cornu.core.config", "set_strict"),
    "tree": ("cornu.core.tree", ""),
    "value_and_grad": ("cornu.autodiff", "value_and_grad"),
}  # fmt: skip

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cornu' has no attribute {name!r}")
    importlib.import_module("cornu.engines")  # so that host data finds the engine in force
    module, attribute = _PUBLIC[name]
    found = importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from cornu import activations as activations
    from cornu import initializers as initializers
    from cornu import layers as layers
    from cornu import losses as losses
    from cornu import metrics as metrics
    from cornu import ops as ops
    from cornu import optimizers as optimizers
    from cornu.autodiff import value_and_grad as value_and_grad
    from cornu.core import errors as errors
    from cornu.core.variable import Variable as Variable
    from cornu.engines import engine as engine
    from cornu.engines import set_compile_cache as set_compile_cache
    from cornu.engines import set_engine as set_engine
    from cornu.inspect.check_layer import check_layer as check_layer
    from cornu.layers import Input as Input
    from cornu.layers import Layer as Layer
    from cornu.layers._remat import RematScope as RematScope
    from cornu.layers._remat import remat as remat
    from cornu.models import Functional as Functional
    from cornu.models import Model as Model
    from cornu.models import Sequential as Sequential
