"""Products that sum: matrices, general contractions, convolutions, pooling windows.

Convolutions and windows are stated for arrays `(batch, *space, channels)` and kernels `(*window, channels / groups,
filters)`; `ops.nn` puts Keras's arguments (`"same"`, `channels_first`) on top. A convolution and its two gradients
are three primitives closed under differentiation; so are max pooling, its gradient and the gradient's own.
"""

from typing import Any

from cornu.core.dims import Dim, Size
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.spec import Spec
from cornu.ops import arithmetic as _a
from cornu.ops import movement as _m
from cornu.ops import reduction as _r
from cornu.ops._declare import op, primitive, shape_of
from cornu.ops._rules import axis_of, broadcast_shapes, require_equal

__all__ = ["dot", "dot_general", "einsum", "inner", "matmul", "outer", "tensordot", "vdot"]


@primitive(promote=True, family="contraction")
def matmul(x1: Spec, x2: Spec) -> Spec:
    """The matrix product over the last two axes; axes before them broadcast.

    Args:
        x1: array `(..., n, k)`, or a vector `(k,)`.
        x2: array `(..., k, m)`, or a vector `(k,)`.

    Returns:
        array `(..., n, m)`; the axis of a vector is left out.

    Raises:
        ShapeError: if the inner sizes differ.
    """
    if not x1.ndim or not x2.ndim:
        raise ShapeError(f"matmul of {x1!r} and {x2!r}", "at least one axis each")
    inner_1, inner_2 = x1.shape[-1], x2.shape[-2] if x2.ndim > 1 else x2.shape[0]
    if inner_1 != inner_2 and not isinstance(inner_1, Dim) and not isinstance(inner_2, Dim):
        raise ShapeError(f"matmul of {x1!r} and {x2!r}: inner sizes {inner_1} and {inner_2}", "equal inner sizes")
    require_equal(inner_1, inner_2, "inner sizes of matmul")
    batch = broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    rows = x1.shape[-2:-1]
    columns = x2.shape[-1:] if x2.ndim > 1 else ()
    return Spec((*batch, *rows, *columns), x1.dtype)


@op(promote=True, family="contraction")
def linear(x: Spec, kernel: Spec, bias: Spec) -> Spec:
    """`matmul(x, kernel) + bias`, which engines may compute at once."""
    return _a.add(matmul(x, kernel), bias)


@primitive(promote=True, family="contraction")
def dot_general(x1: Spec, x2: Spec, contract=((), ()), batch=((), ())) -> Spec:
    """The general product: pairs of axes summed over, pairs of axes kept in step.

    Args:
        x1: array.
        x2: array.
        contract: axes of `x1`, and the axes of `x2` they are summed with.
        batch: axes of `x1`, and the axes of `x2` they go along with.

    Returns:
        array of the batch axes, the free axes of `x1`, the free axes of `x2`.
    """
    for what, (axes_1, axes_2) in (("summed", contract), ("batch", batch)):
        for a, b in zip(axes_1, axes_2, strict=True):
            require_equal(
                x1.shape[a], x2.shape[b], f"{what} sizes of axes {a} and {b} in a product of {x1!r} and {x2!r}"
            )
    free_1 = [a for a in range(x1.ndim) if a not in contract[0] and a not in batch[0]]
    free_2 = [a for a in range(x2.ndim) if a not in contract[1] and a not in batch[1]]
    shape = [x1.shape[a] for a in (*batch[0], *free_1)] + [x2.shape[a] for a in free_2]
    return Spec(tuple(shape), x1.dtype)


@op(family="contraction")
def tensordot(x1: Spec, x2: Spec, axes=2) -> Spec:
    """The sum of products over axes: the last `axes` of `x1` with the first of `x2`, or two lists of axes."""
    rank_1, rank_2 = len(shape_of(x1)), len(shape_of(x2))
    if hasattr(axes, "__index__"):
        first, second = list(range(rank_1 - axes, rank_1)), list(range(axes))
    else:
        first, second = ([a] if hasattr(a, "__index__") else list(a) for a in axes)
    first = [axis_of(a, rank_1) for a in first]
    second = [axis_of(a, rank_2) for a in second]
    return dot_general(x1, x2, contract=(tuple(first), tuple(second)))


@op(family="contraction")
def dot(x1: Spec, x2: Spec) -> Spec:
    """NumPy's dot: sum over the last axis of `x1` and the last but one of `x2`."""
    rank_1, rank_2 = len(shape_of(x1)), len(shape_of(x2))
    if not rank_1 or not rank_2:
        return _a.multiply(x1, x2)
    return dot_general(x1, x2, contract=((rank_1 - 1,), (max(rank_2 - 2, 0),)))


@op(family="contraction")
def inner(x1: Spec, x2: Spec) -> Spec:
    """The sum of products over both last axes."""
    return dot_general(x1, x2, contract=((len(shape_of(x1)) - 1,), (len(shape_of(x2)) - 1,)))


@op(family="contraction")
def outer(x1: Spec, x2: Spec) -> Spec:
    """All products of an element of `x1` (flattened) with one of `x2`, as `(n, m)`."""
    return dot_general(_m.ravel(x1), _m.ravel(x2))


@op(family="contraction")
def vdot(x1: Spec, x2: Spec) -> Spec:
    """The sum of products of two flattened arrays."""
    return dot_general(_m.ravel(x1), _m.ravel(x2), contract=((0,), (0,)))


def einsum(subscripts: str, *operands: Any) -> Any:
    """Sums of products written with an index per axis (Einstein's convention).

    Args:
        subscripts: `"abc,cd->abd"`; `...` stands for leading axes, and the part from `->` may be left out.
        operands: one array per term.

    Returns:
        array with the axes named after `->`.

    Raises:
        ArgumentError: if terms and operands do not fit.
        ShapeError: if axes of one name have different sizes.

    Example:
        >>> import cornu
        >>> cornu.ops.einsum("ij,j->i", [[1, 2], [3, 4]], [1, 1]).tolist()
        [3, 7]
    """
    return einsum_of(list(operands), subscripts=subscripts)


@op(promote=True, family="contraction")
def einsum_of(operands: list[Spec], subscripts="") -> Spec:
    """`einsum` with its operands in a list."""
    terms, result = _parse(subscripts, [len(shape_of(x)) for x in operands])
    parts = [
        _summed(x, term, [result, *terms[:i], *terms[i + 1 :]])
        for i, (x, term) in enumerate(zip(operands, terms, strict=True))
    ]
    x, term = parts[0]
    for i, (other, other_term) in enumerate(parts[1:], start=2):
        later = result + "".join(t for _, t in parts[i:])
        x, term = _multiplied(x, term, other, other_term, later)
    return x if term == result else _m.permute(x, axes=tuple(term.index(name) for name in result))


def _parse(subscripts: str, ranks: list[int]) -> tuple[list[str], str]:
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ArgumentError(f"einsum {subscripts!r} got {len(ranks)} arrays", f"{len(terms)} arrays")
    if not arrow:
        letters = sorted(set(left) - set(",."))
        right = ("..." if "..." in left else "") + "".join(c for c in letters if left.count(c) == 1)
    spare = [chr(c) for c in range(0x3B1, 0x3C9)]
    dots = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    longest = max(dots, default=0)
    names = []
    for term, rank in zip(terms, ranks, strict=True):
        if "..." in term:
            count = rank - len(term) + 3
            if count < 0:
                raise ArgumentError(
                    f"einsum {subscripts!r}: term {term!r} for an array with {rank} axes", "a shorter term"
                )
            term = term.replace("...", "".join(spare[longest - count : longest]))
        if len(term) != rank:
            raise ArgumentError(
                f"einsum {subscripts!r}: term {term!r} for an array with {rank} axes", f"{rank} letters"
            )
        names.append(term)
    right = right.replace("...", "".join(spare[:longest]))
    missing = set(right) - set("".join(names))
    if missing or len(set(right)) != len(right):
        raise ArgumentError(f"einsum {subscripts!r}", "after '->', each letter once and from the left side")
    return names, right


def _summed(x: Any, term: str, others: list[str]) -> tuple[Any, str]:
    """Sum away the axes that nobody else names."""
    if len(set(term)) != len(term):
        raise ArgumentError(f"einsum names an axis twice in {term!r}", "each letter once per term", "use ops.diagonal")
    alone = [i for i, name in enumerate(term) if not any(name in other for other in others)]
    if not alone:
        return x, term
    return _r.sum(x, axis=tuple(alone)), "".join(name for name in term if term.index(name) not in alone)


def _multiplied(x: Any, term: str, y: Any, other: str, later: str) -> tuple[Any, str]:
    shared = [name for name in term if name in other]
    kept = [name for name in shared if name in later]
    summed = [name for name in shared if name not in later]
    sizes_x, sizes_y = shape_of(x), shape_of(y)
    for name in list(kept):  # an axis of size 1 under an ellipsis broadcasts
        a, b = sizes_x[term.index(name)], sizes_y[other.index(name)]
        if a != b and 1 in [s for s in (a, b) if not isinstance(s, Dim)]:
            target: Size = Dim.operation("broadcast", a, b)
            x = _m.broadcast_to(x, tuple(target if n == name else s for n, s in zip(term, sizes_x, strict=True)))
            y = _m.broadcast_to(y, tuple(target if n == name else s for n, s in zip(other, sizes_y, strict=True)))
            sizes_x, sizes_y = shape_of(x), shape_of(y)
    product = dot_general(
        x,
        y,
        contract=(tuple(term.index(n) for n in summed), tuple(other.index(n) for n in summed)),
        batch=(tuple(term.index(n) for n in kept), tuple(other.index(n) for n in kept)),
    )
    names = kept + [n for n in term if n not in shared] + [n for n in other if n not in shared]
    return product, "".join(names)


# ---------------------------------------------------------------- convolution


def _window_size(size: Size, window: int, stride: int, pads: tuple[Size, Size], dilation: int) -> Size:
    reach = (window - 1) * dilation + 1
    room = size + pads[0] + pads[1] - reach
    if not isinstance(room, Dim) and room < 0:
        raise ShapeError(
            f"a window of {reach} over an axis of {size} with padding {pads}", "a window that fits", "padding='same'"
        )
    return room // stride + 1


@primitive(promote=True, family="convolution")
def convolution(x: Spec, kernel: Spec, strides=(), padding=(), dilation=(), groups=1) -> Spec:
    """The convolution (cross-correlation) of `(batch, *space, channels)` with `(*window, channels / groups, filters)`.

    Args:
        x: array.
        kernel: array.
        strides: steps per spatial axis.
        padding: zeros added before and after, a pair per spatial axis.
        dilation: distance between the kernel's elements, per spatial axis.
        groups: how many groups channels and filters are divided into.

    Returns:
        array `(batch, *space', filters)`.
    """
    channels, filters = x.shape[-1], kernel.shape[-1]
    if isinstance(channels, Dim):
        raise ShapeError(f"a convolution of {x!r}", "a known number of channels")
    if channels != kernel.shape[-2] * groups or filters % groups:
        raise ShapeError(
            f"a convolution of {x!r} with a kernel {kernel!r} in {groups} groups",
            f"{kernel.shape[-2] * groups} channels, and filters that {groups} divides",
        )
    space = [
        _window_size(*row)  # type: ignore[arg-type]
        for row in zip(x.shape[1:-1], kernel.shape[:-2], strides, padding, dilation, strict=True)
    ]
    return Spec((x.shape[0], *space, filters), x.dtype)


@primitive(promote=True, family="convolution")
def convolution_input_gradient(g: Spec, kernel: Spec, shape=(), strides=(), padding=(), dilation=(), groups=1) -> Spec:
    """The gradient of `convolution` for its input of this `shape`; also what a transposed convolution computes."""
    return Spec(shape, g.dtype)


@primitive(promote=True, family="convolution")
def convolution_kernel_gradient(x: Spec, g: Spec, shape=(), strides=(), padding=(), dilation=(), groups=1) -> Spec:
    """The gradient of `convolution` for its kernel of this `shape`."""
    return Spec(shape, g.dtype)


# ---------------------------------------------------------------- windows


def _pooled(x: Spec, window: Any, strides: Any, padding: Any) -> Spec:
    space = [_window_size(*row, 1) for row in zip(x.shape[1:-1], window, strides, padding, strict=True)]
    return Spec((x.shape[0], *space, x.shape[-1]), x.dtype)


@primitive(family="pooling")
def window_sum(x: Spec, window=(), strides=(), padding=()) -> Spec:
    """The sum over windows of `(batch, *space, channels)`; sizes per spatial axis, `padding` in pairs."""
    return _pooled(x, window, strides, padding)


@primitive(family="pooling")
def window_sum_gradient(g: Spec, shape=(), window=(), strides=(), padding=()) -> Spec:
    """The gradient of `window_sum` for its input of this `shape`."""
    return Spec(shape, g.dtype)


@primitive(family="pooling")
def window_max(x: Spec, window=(), strides=(), padding=()) -> Spec:
    """The largest over windows of `(batch, *space, channels)`; padding never wins."""
    return _pooled(x, window, strides, padding)


@primitive(promote=True, family="pooling")
def window_max_gradient(x: Spec, g: Spec, window=(), strides=(), padding=()) -> Spec:
    """The gradient of `window_max`: each window's gradient goes to its first largest element."""
    return Spec(x.shape, x.dtype)


@primitive(promote=True, family="pooling")
def window_max_take(x: Spec, values: Spec, window=(), strides=(), padding=()) -> Spec:
    """From `values`, what stands where each window of `x` has its first largest element."""
    return _pooled(x, window, strides, padding)
