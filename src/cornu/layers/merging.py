"""Layers that make one array of several, and the functions of the same names in small letters.

Arrays of fewer axes get axes of size 1 after the batch, as in Keras. A list of masks becomes one: for the elementwise
layers a position counts if it counts in any input (and there is no mask if some input has none).
"""

from collections.abc import Callable
from typing import Any

from cornu import ops
from cornu.core.dims import Dim, Size, shape_text
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers.base import Layer
from cornu.ops._declare import dtype_of, shape_of
from cornu.ops.contraction import dot_general

__all__ = [
    "Add", "Average", "Concatenate", "Dot", "Maximum", "Merge", "Minimum", "Multiply", "Subtract", "add", "average",
    "concatenate", "dot", "maximum", "minimum", "multiply", "subtract",
]  # fmt: skip


def _texts(inputs: Any) -> str:
    return ", ".join(shape_text(shape_of(x)) for x in inputs)


class Merge(Layer):
    """Base of the layers called on a list of arrays. A subclass writes `merge(inputs, masks)`."""

    # How many inputs it takes; `None` for any number from one on.
    count: int | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def merge(self, inputs: list[Any], masks: list[Any]) -> Any:
        """The output, from inputs with the same number of axes (and the mask of each, or `None`)."""
        raise NotImplementedError

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Merge the arrays."""
        parts = self._parts(inputs)
        masks = list(mask) if isinstance(mask, (list, tuple)) else [None] * len(parts)
        rank = max(len(shape_of(x)) for x in parts)
        # An array that gets axes is taken without its mask, as in Keras.
        masks = [None if len(shape_of(x)) < rank else one for x, one in zip(parts, masks, strict=True)]
        return self.merge(self._broadcastable(parts, rank), masks)

    def _parts(self, inputs: Any) -> list[Any]:
        owner = type(self).__name__
        if not isinstance(inputs, (list, tuple)) or not inputs:
            raise ArgumentError(f"{owner} was called on {_words(inputs)}", "a list of arrays", f"{owner}()([x, y])")
        if self.count is not None and len(inputs) != self.count:
            raise ArgumentError(f"{owner} was called on {len(inputs)} arrays", f"a list of exactly {self.count}")
        return list(inputs)

    def _broadcastable(self, inputs: list[Any], rank: int) -> list[Any]:
        """The inputs with equally many axes.

        Raises:
            ShapeError: if they do not broadcast.
        """
        wide = [_with_axes(x, rank) for x in inputs]
        for axis in range(rank):
            sizes = [shape_of(x)[axis] for x in wide]
            known = {size for size in sizes if not isinstance(size, Dim) and size != 1}
            if len(known) > 1:
                raise ShapeError(
                    f"{type(self).__name__} got inputs of shapes {_texts(inputs)}",
                    f"sizes that are equal or 1; axis {axis} has {' and '.join(map(str, sorted(known)))}",
                )
        return wide

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Where any input counts; `None` if some input has no mask."""
        if not isinstance(previous_mask, (list, tuple)) or any(mask is None for mask in previous_mask):
            return None
        rank = max(len(shape_of(mask)) for mask in previous_mask)
        result, *others = (_with_axes(mask, rank) for mask in previous_mask)
        for other in others:
            result = ops.logical_or(result, other)
        return result


def _words(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"an array of shape {shape_text(tuple(shape))}" if shape is not None else f"{value!r:.60}"


def _with_axes(x: Any, rank: int) -> Any:
    """An array with axes of size 1 after the batch, so that it has `rank` axes."""
    missing = rank - len(shape_of(x))
    return ops.expand_dims(x, tuple(range(1, 1 + missing)) if shape_of(x) else tuple(range(missing))) if missing else x


def _over(mask: Any, x: Any) -> Any:
    """A mask of an array's first axes, in the array's shape."""
    sizes = shape_of(x)
    missing = len(sizes) - len(shape_of(mask))
    wide = ops.expand_dims(mask, tuple(range(-missing, 0))) if missing > 0 else mask
    return ops.broadcast_to(wide, sizes)


class Add(Merge):
    """The sum of a list of arrays.

    Example:
        >>> import cornu
        >>> cornu.layers.Add()([cornu.Input((4, 3)), cornu.Input((3,))]).shape
        (None, 4, 3)
    """

    def merge(self, inputs: list[Any], masks: list[Any]) -> Any:
        """The sum."""
        return _summed(inputs)


def _summed(inputs: list[Any]) -> Any:
    total = inputs[0]
    for x in inputs[1:]:
        total = ops.add(total, x)
    return total


class Subtract(Merge):
    """The first of two arrays less the second."""

    count = 2

    def merge(self, inputs: list[Any], masks: list[Any]) -> Any:
        """The difference."""
        return ops.subtract(*inputs)


class Multiply(Merge):
    """The product of a list of arrays. What is masked in one input counts as 1; what is masked in all gives 0."""

    def merge(self, inputs: list[Any], masks: list[Any]) -> Any:
        """The product."""
        wide = [None if mask is None else _over(mask, x) for x, mask in zip(inputs, masks, strict=True)]
        product: Any = None
        for x, mask in zip(inputs, wide, strict=True):
            factor = x if mask is None else ops.where(mask, x, ops.cast(1, dtype_of(x)))
            product = factor if product is None else ops.multiply(product, factor)
        if any(mask is None for mask in wide):
            return product
        kept, *others = wide
        for other in others:
            kept = ops.logical_or(kept, other)
        return ops.where(kept, product, ops.cast(0, dtype_of(product)))


class Average(Merge):
    """The mean of a list of arrays."""

    def merge(self, inputs: list[Any], masks: list[Any]) -> Any:
        """The mean."""
        return ops.divide(_summed(inputs), len(inputs))


def _extreme(choose: Callable[[Any, Any], Any], inputs: list[Any], masks: list[Any]) -> Any:
    """The extreme of arrays pair by pair, where a masked element yields to one that is not."""
    best: Any = None
    kept: Any = None
    for i, (x, mask) in enumerate(zip(inputs, masks, strict=True)):
        mask = None if mask is None else _over(mask, x)
        if i == 0:
            best, kept = x, mask
            continue
        if mask is not None:
            x = ops.where(mask, x, best)
        if kept is not None:
            best = ops.where(kept, best, x)
        kept = ops.logical_or(kept, mask) if kept is not None and mask is not None else None
        best = choose(best, x)
    return best


class Maximum(Merge):
    """The largest of a list of arrays, element by element; a masked element yields to one that is not."""

    def merge(self, inputs: list[Any], masks: list[Any]) -> Any:
        """The largest."""
        return _extreme(ops.maximum, inputs, masks)


class Minimum(Merge):
    """The smallest of a list of arrays, element by element; a masked element yields to one that is not."""

    def merge(self, inputs: list[Any], masks: list[Any]) -> Any:
        """The smallest."""
        return _extreme(ops.minimum, inputs, masks)


class Concatenate(Merge):
    """Arrays joined along an axis they have.

    Where some inputs have a mask, the others count everywhere; the masks are joined too.

    Args:
        axis: the axis to join along.

    Raises:
        ShapeError: if sizes on other axes differ.

    Example:
        >>> import cornu
        >>> cornu.layers.Concatenate(axis=1)([cornu.Input((2, 5)), cornu.Input((1, 5))]).shape
        (None, 3, 5)
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Any) -> Any:  # type: ignore[override]  # masks do not change the numbers
        """Join the arrays."""
        parts = self._parts(inputs)
        ranks = {len(shape_of(x)) for x in parts}
        rank = min(ranks)
        came = f"Concatenate(axis={self.axis}) got inputs of shapes {_texts(parts)}"
        if len(ranks) > 1 or not -rank <= self.axis < rank:
            raise ShapeError(came, "arrays with equally many axes, among them that one")
        for axis in range(rank):
            known = {size for x in parts if not isinstance(size := shape_of(x)[axis], Dim)}
            if len(known) > 1 and axis != self.axis % rank:
                sizes = " and ".join(map(str, sorted(known)))
                raise ShapeError(came, f"equal sizes on all other axes; axis {axis} has {sizes}")
        return ops.concatenate(parts, axis=self.axis)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The masks joined along the axis; with one of features, where any input counts."""
        if not isinstance(previous_mask, (list, tuple)) or all(mask is None for mask in previous_mask):
            return None
        rank = max(len(shape_of(mask)) for mask in previous_mask if mask is not None)
        wide = [
            ops.ones(shape_of(x), "bool") if mask is None else _over(mask, x)
            for x, mask in zip(inputs, previous_mask, strict=True)
        ]
        axes = len(shape_of(inputs[0]))
        return ops.any(ops.concatenate(wide, axis=self.axis), axis=tuple(range(min(rank, axes - 1), axes)))


class Dot(Merge):
    """The product of two arrays that sums over one axis of each, for each element of the batch.

    Args:
        axes: the axis to sum over in both, or one for each input; not the batch's (0).
        normalize: whether vectors along these axes are scaled to length 1 first: then the output is their cosine.

    Output `(batch, *other axes of the first, *other axes of the second)`; `(batch, 1)` if there are none.

    Raises:
        ArgumentError: if `axes` is no whole number and no pair of them, or names the batch.
        ShapeError: if the sizes of the two axes differ.

    Example:
        >>> import cornu
        >>> cornu.layers.Dot(axes=(1, 2))([cornu.Input((3, 5)), cornu.Input((10, 3))]).shape
        (None, 5, 10)
    """

    count = 2

    def __init__(self, axes: Any, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        pair = axes if isinstance(axes, (list, tuple)) else (axes, axes)
        if len(pair) != 2 or not all(hasattr(axis, "__index__") and axis != 0 for axis in pair):
            raise ArgumentError(f"Dot got axes={axes!r}", "a whole number other than 0 (the batch), or two of them")
        self.axes = axes
        self.normalize = normalize

    def call(self, inputs: Any) -> Any:  # type: ignore[override]
        """Multiply and sum."""
        x1, x2 = self._parts(inputs)
        pair = self.axes if isinstance(self.axes, (list, tuple)) else (self.axes, self.axes)
        at = [self._axis(axis, x, inputs) for axis, x in zip(pair, (x1, x2), strict=True)]
        self._check_equal(shape_of(x1)[at[0]], shape_of(x2)[at[1]], inputs, f"on axes {at[0]} and {at[1]}")
        self._check_equal(shape_of(x1)[0], shape_of(x2)[0], inputs, "of the batch (axis 0)")
        if self.normalize:
            x1, x2 = ops.normalize(x1, axis=at[0]), ops.normalize(x2, axis=at[1])
        output = dot_general(x1, x2, contract=((at[0],), (at[1],)), batch=((0,), (0,)))
        return output if len(shape_of(output)) > 1 else ops.expand_dims(output, 1)

    def _axis(self, axis: int, x: Any, inputs: Any) -> int:
        rank = len(shape_of(x))
        if rank < 2 or not -rank <= axis < rank or axis % rank == 0:
            expected = "at least two axes each, and axes other than the batch's"
            raise ShapeError(f"Dot(axes={self.axes}) got inputs of shapes {_texts(inputs)}", expected)
        return axis % rank

    def _check_equal(self, a: Size, b: Size, inputs: Any, where: str) -> None:
        if not isinstance(a, Dim) and not isinstance(b, Dim) and a != b:
            got = f"Dot(axes={self.axes}) got inputs of shapes {_texts(inputs)}"
            raise ShapeError(got, f"equal sizes {where}; {a} and {b} differ")

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """There is none."""


# ---------------------------------------------------------------- functions


def add(inputs: Any, **kwargs: Any) -> Any:
    """The sum of a list of arrays; see `Add`."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Any, **kwargs: Any) -> Any:
    """The first of two arrays less the second; see `Subtract`."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Any:
    """The product of a list of arrays; see `Multiply`."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Any, **kwargs: Any) -> Any:
    """The mean of a list of arrays; see `Average`."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Any, **kwargs: Any) -> Any:
    """The largest of a list of arrays, element by element; see `Maximum`."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Any, **kwargs: Any) -> Any:
    """The smallest of a list of arrays, element by element; see `Minimum`."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """Arrays joined along an axis; see `Concatenate`."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Any, axes: Any = -1, **kwargs: Any) -> Any:
    """The product of two arrays that sums over an axis; see `Dot`."""
    return Dot(axes=axes, **kwargs)(inputs)
