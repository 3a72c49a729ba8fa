"""`EinsumDense`: a product with an array of weights over any axes."""

import copy
import re
from typing import Any

from cornu import activations, constraints, initializers, ops, regularizers
from cornu.core.errors import ArgumentError, ShapeError
from cornu.layers.base import InputSpec, Layer

__all__ = ["EinsumDense"]

_EQUATION = re.compile(r"(\.\.\.)?([a-zA-Z]+)(\.\.\.)?,([a-zA-Z]+)->(\.\.\.)?([a-zA-Z]+)(\.\.\.)?")


class EinsumDense(Layer):
    """`activation(einsum(equation, inputs, kernel) + bias)`.

    Args:
        equation: as for `ops.einsum`, with the input first and the kernel second: `"abc,cd->abd"`, `"...x,xy->...y"` or
            `"ab...,bc->ac..."`.
        output_shape: sizes of the output without the batch and without what `...` stands for; `None` for one that is
            the input's.
        activation: function of the output, or its name.
        bias_axes: the letters of the output that the bias has axes for; `None` for no bias.
        kernel_initializer: first values of the kernel.
        bias_initializer: first values of the bias.
        kernel_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        kernel_constraint: what the kernel is kept to.
        bias_constraint: what the bias is kept to.
        activity_regularizer: penalty on the output.

    Raises:
        ArgumentError: if the equation has another form, or `output_shape` or `bias_axes` do not fit it.
        ShapeError: if the input does not fit, or a size of the weights is unknown.

    Example:
        >>> import cornu
        >>> layer = cornu.layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4), bias_axes="de")
        >>> layer(cornu.Input((None, 8))).shape
        (None, None, 2, 4)
    """

    def __init__(
        self,
        equation: str,
        output_shape: Any,
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        *,
        activity_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.equation = equation
        self.output_shape = (output_shape,) if hasattr(output_shape, "__index__") else tuple(output_shape)
        self.activation = activations.get(activation)
        self.bias_axes = bias_axes
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self._terms = _parsed(equation)

    def build(self, input_shape: Any) -> None:
        """Make the kernel, and the bias."""
        sizes, elided = self._letter_sizes(input_shape)
        _, kernel, result, dots = self._terms
        kernel_initializer = self.kernel_initializer
        if isinstance(kernel_initializer, initializers.VarianceScaling) and (
            kernel_initializer.input_axes is None or kernel_initializer.output_axes is None
        ):
            kernel_initializer = copy.copy(kernel_initializer)
            kernel_initializer.input_axes = [i for i, letter in enumerate(kernel) if letter not in result]
            kernel_initializer.output_axes = [i for i, letter in enumerate(kernel) if letter in result]
        self.kernel = self.add_weight(
            name="kernel",
            shape=tuple(self._known_size(letter, sizes, input_shape) for letter in kernel),
            initializer=kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.bias_axes is not None:
            axes = result[min(map(result.find, self.bias_axes)) :]
            shape = [self._known_size(letter, sizes, input_shape) if letter in self.bias_axes else 1 for letter in axes]
            self.bias = self.add_weight(
                name="bias",
                shape=(*shape, *([1] * elided if dots == "right" else [])),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = InputSpec(ndim=len(input_shape))
        self.built = True

    def _letter_sizes(self, input_shape: Any) -> tuple[dict[str, Any], int]:
        """The size of each letter of the input and output, and for how many axes `...` stands."""
        term, kernel, result, dots = self._terms
        owner = f"EinsumDense({self.equation!r})"
        elided = len(input_shape) - len(term)
        if elided < 0 or (elided and not dots):
            raise ShapeError(
                f"{owner} got an input of shape {input_shape}",
                f"{'at least ' if dots else ''}{len(term)} axes",
            )
        own = input_shape[elided:] if dots == "left" else input_shape[: len(term)]
        sizes = dict(zip(term, own, strict=True))
        given = list(self.output_shape)
        if dots != "left" or not elided:  # the batch is a letter of the output
            given.insert(0, input_shape[0])
        if len(given) != len(result):
            count = len(result) - len(given) + len(self.output_shape)
            expected = f"{count} sizes: those of the output's letters, without the batch"
            raise ArgumentError(f"{owner} got output_shape={self.output_shape}", expected)
        for letter, size in zip(result, given, strict=True):
            if letter not in term and letter not in kernel:
                raise ArgumentError(f"{owner} was made", f"{letter!r} in the input or the kernel")
            have = sizes.get(letter)
            if size is not None and have is not None and size != have:
                raise ShapeError(
                    f"{owner} got an input of shape {input_shape} and output_shape={self.output_shape}",
                    f"one size for {letter!r}, not {have} and {size}",
                )
            sizes[letter] = have if size is None else size
        for letter in kernel:
            if letter not in sizes:
                raise ArgumentError(f"{owner} was made", f"{letter!r} in the input or the output")
        for letter in self.bias_axes or "":
            if letter not in result:
                raise ArgumentError(f"{owner} got bias_axes={self.bias_axes!r}", f"letters of the output {result!r}")
        return sizes, elided

    def _known_size(self, letter: str, sizes: dict[str, Any], input_shape: Any) -> int:
        size = sizes[letter]
        if size is None:
            raise ShapeError(
                f"EinsumDense({self.equation!r}) got an input of shape {input_shape}; the size of {letter!r} is open",
                "a known size for every axis of the weights",
                "give it in output_shape, or in Input(shape=...)",
            )
        return int(size)

    def call(self, inputs: Any) -> Any:
        """Multiply, add, activate."""
        outputs = ops.einsum(self.equation, inputs, self.kernel)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)


def _parsed(equation: str) -> tuple[str, str, str, str | None]:
    """The letters of input, kernel and output, and on which side `...` stands (`"left"`, `"right"` or `None`)."""
    found = _EQUATION.fullmatch(str(equation).replace(" ", ""))
    if found is not None:
        left, term, right, kernel, out_left, result, out_right = found.groups()
        if (left, right) == (out_left, out_right) and not (left and right):
            return term, kernel, result, "left" if left else "right" if right else None
    raise ArgumentError(
        f"EinsumDense got the equation {equation!r}", "the form 'abc,cd->abd', '...x,xy->...y' or 'ab...,bc->ac...'"
    )
