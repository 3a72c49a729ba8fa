"""A Cornu layer or model as a `torch.nn.Module`, for PyTorch's optimizers, loops and tools."""

from collections.abc import Iterator
from typing import Any

import torch

from cornu.core.errors import BuildError
from cornu.core.variable import Variable
from cornu.engines import registry
from cornu.layers.base import Layer
from cornu.saving.state import own_variables, walk

__all__ = ["Module"]


class Module(torch.nn.Module):
    """A Cornu layer as a PyTorch module: its weights are this module's parameters, and the other way round.

    What PyTorch's optimizers do to the parameters the layer sees, on every engine; what `fit` does to the layer the
    parameters show. State that does not train (moving averages) is in buffers.

    Args:
        layer: a layer or model whose weights are made.

    Raises:
        BuildError: if they are not made yet.

    Example:
        >>> import cornu, torch
        >>> x = cornu.Input((3,))
        >>> module = Module(cornu.Model(x, cornu.layers.Dense(2)(x)))
        >>> module(torch.ones(4, 3)).sum().backward()
        >>> [tuple(parameter.grad.shape) for parameter in module.parameters()]
        [(3, 2), (2,)]
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if not layer.built:
            raise BuildError(
                f"interop.torch.Module got the layer {layer.name!r}, whose weights are not made yet",
                "a layer that has been called, or a model made from Input(...)",
                f"{layer.name}.build(input_shape) first",
            )
        self._layer = [layer]  # in a list: PyTorch need not look at it
        self._names: dict[str, Variable] = {}
        engine = registry.get("torch")
        for name, variable in _named(layer):
            home: Any = variable.find_home(engine, always=True)
            self._names[name] = variable
            if variable.trainable and isinstance(home.native, torch.nn.Parameter):
                self.register_parameter(name, home.native)
            else:
                self.register_buffer(name, home.native.detach())
                home.native = self._buffers[name]

    @property
    def layer(self) -> Layer:
        """The layer."""
        return self._layer[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer on PyTorch; `training` is the module's mode unless given."""
        with registry.engine("torch"):
            return self.layer(*args, **{"training": self.training, **kwargs})

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        # Buffers and parameters that are moved or cast may become other tensors.
        result = super()._apply(*args, **kwargs)
        for name, variable in self._names.items():
            if variable.home is not None:
                variable.home.native = self._parameters.get(name, self._buffers.get(name))
        return result


def _named(layer: Layer) -> Iterator[tuple[str, Variable]]:
    """The layer's variables by names that hang on where they are in it, as in files, not on automatic layer names."""
    taken: set[str] = set()
    for path, item in walk(layer):
        for variable in own_variables(item) if isinstance(item, Layer) else ():
            name = "_".join(part for part in (*path.split("/"), variable.name) if part not in ("", "layers"))
            name = base = name.replace(".", "_")
            count = 0
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            taken.add(name)
            yield name, variable
