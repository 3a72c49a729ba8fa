"""`Identity`, and `Lambda`, which makes a layer of a function."""

import inspect
from collections.abc import Callable
from typing import Any

from cornu.core import context, tree
from cornu.core.errors import ArgumentError
from cornu.core.spec import Spec
from cornu.graph import masks
from cornu.graph.symbolic import SymbolicTensor
from cornu.layers.base import Layer
from cornu.ops._declare import to_spec

__all__ = ["Identity", "Lambda"]


class Identity(Layer):
    """Its input, unchanged; any structure of arrays."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The input."""
        return inputs


class Lambda(Layer):
    """A function as a layer.

    Layers and variables that the function closes over are this layer's own: they train and are saved with it.

    Args:
        function: takes the input; also `mask` and `training`, if it has arguments of these names.
        output_shape: taken for Keras's sake; shapes follow from the function.
        mask: the mask of the output: an array, or a function of `(inputs, mask)`; `None` to let the input's mask travel
            on where the function keeps positions in place.
        arguments: further keyword arguments of the function.

    Raises:
        ArgumentError: if `function` cannot be called.

    Example:
        >>> import cornu
        >>> cornu.layers.Lambda(lambda x: x * 2)([1.0, 2.0]).tolist()
        [2.0, 4.0]
    """

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Any = None,
        mask: Any = None,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise ArgumentError(f"Lambda got function={function!r:.80}", "a function", "Lambda(lambda x: x * 2)")
        self.function = function
        self.output_shape = output_shape
        self.mask = mask
        self.arguments = dict(arguments or {})
        self.supports_masking = mask is not None
        try:
            self._takes = set(inspect.signature(function).parameters)
        except (TypeError, ValueError):  # a built-in function without a signature
            self._takes = set()

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Call the function."""
        given = {"mask": mask, "training": training}
        return self.function(inputs, **{**self.arguments, **{k: v for k, v in given.items() if k in self._takes}})

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The mask that was asked for, or else the input's if the function keeps positions in place."""
        if callable(self.mask):
            return self.mask(inputs, previous_mask)
        if self.mask is not None:
            return self.mask
        found = [mask for mask in tree.leaves(previous_mask) if mask is not None]
        symbolic = any(type(leaf) is SymbolicTensor for leaf in tree.leaves(inputs))
        if not found or (not symbolic and self._sublayers()):  # layers inside have set the masks of values themselves
            return None
        return self._carried(inputs, previous_mask)

    def _carried(self, inputs: Any, previous: Any) -> Any:
        """What becomes of the input's mask: the function is run on Specs that carry it."""

        def spec(value: Any, mask: Any = None) -> Any:
            if value is None:
                return None
            known = value.spec if type(value) is SymbolicTensor else to_spec(value)
            return Spec(known.shape, known.dtype, None if mask is None else masks.Tag((mask,)))

        with context.abstract():
            outputs = self.call(tree.map_structure(spec, inputs, previous), tree.map_structure(spec, previous))
        results = []
        for output in tree.leaves(outputs):
            tag = getattr(output, "mask", None)
            if tag is not None and tag.lost is not None and "mask" not in self._takes:
                self._warn_lost(tag.lost, None)
            results.append(None if tag is None or tag.lost is not None else masks.combined(tag.sources))
        return results if isinstance(outputs, (list, tuple, dict)) else results[0]
