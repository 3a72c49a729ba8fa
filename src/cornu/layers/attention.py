"""Attention: `MultiHeadAttention`, `GroupedQueryAttention`, `Attention`, `AdditiveAttention`.

Masks of query, value and key arrive by themselves; where a query may see nothing, the output is a number, as in Keras.
"""

import math
import string
from typing import Any

from cornu import constraints, initializers, ops, random, regularizers
from cornu.core.config import FRACTION, POSITIVE, Field, one_of
from cornu.core.dims import shape_text
from cornu.core.errors import ArgumentError, ShapeError, UnsupportedError
from cornu.layers.activation import masked_softmax
from cornu.layers.base import Layer
from cornu.layers.dropout import Dropout, draw_key, seed_of
from cornu.layers.einsum_dense import EinsumDense
from cornu.ops._declare import dtype_of, shape_of

__all__ = ["AdditiveAttention", "Attention", "GroupQueryAttention", "GroupedQueryAttention", "MultiHeadAttention"]

_WINDOW = Field(lambda v: v is None or POSITIVE.valid(v), "a whole number above zero, or None")


class _HeadAttention(Layer):
    """What attention with projected heads shares: options, projections, masks, and the attention itself."""

    kernel_initializer: Any
    bias_initializer: Any
    kernel_regularizer: Any
    bias_regularizer: Any
    kernel_constraint: Any
    bias_constraint: Any

    def _set(
        self,
        dropout: float,
        use_bias: bool,
        sliding_window: Any,
        flash_attention: Any,
        use_gate: bool,
        seed: Any,
        **parts: Any,
    ) -> None:
        owner = type(self).__name__
        FRACTION.check(owner, "dropout", dropout)
        _WINDOW.check(owner, "sliding_window", sliding_window)
        if flash_attention:
            raise UnsupportedError(
                f"{owner} with flash_attention={flash_attention!r}", "None or False", "leave it out; the engine chooses"
            )
        self.dropout = dropout
        self.use_bias = use_bias
        self.sliding_window = sliding_window
        self.flash_attention = flash_attention
        self.use_gate = use_gate
        self.seed = seed_of(owner, seed)
        families = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints}
        for name, value in parts.items():
            setattr(self, name, families[name.rpartition("_")[2]].get(value))
        self.supports_masking = True

    def _projection(
        self, name: str, equation: str, sizes: Any, bias_axes: str, input_shape: Any, activation: Any = None
    ) -> EinsumDense:
        """A projection, with its weights made."""
        layer = EinsumDense(
            equation,
            output_shape=sizes,
            activation=activation,
            bias_axes=bias_axes if self.use_bias else None,
            kernel_initializer=_another(self.kernel_initializer),
            bias_initializer=_another(self.bias_initializer),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            activity_regularizer=self._projection_penalty(),
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )
        vars(layer)["_path"] = f"{self.path}/{name}"
        layer._build_with({"inputs": tuple(input_shape)})
        return layer

    def _projection_penalty(self) -> Any:
        return self.activity_regularizer

    def _set_dropout(self) -> None:
        self._dropout_layer = Dropout(self.dropout, seed=self.seed, dtype=self.dtype_policy)

    def _visible(
        self, query: Any, value: Any, masks: tuple[Any, Any, Any], attention_mask: Any, causal: bool, pairs: int
    ) -> Any:
        """All masks together, true where a query may see: `(batch, time, source)`, or sizes of 1; or `None`."""
        query_mask, value_mask, key_mask = masks
        found = []
        if query_mask is not None:
            found.append(ops.expand_dims(ops.cast(query_mask, "bool"), -1))
        for mask in (value_mask, key_mask):
            if mask is not None:
                found.append(ops.expand_dims(ops.cast(mask, "bool"), -2))
        if causal or self.sliding_window is not None:
            rows = ops.expand_dims(ops.arange(ops.shape(query)[1]), (0, 2))
            columns = ops.expand_dims(ops.arange(ops.shape(value)[1]), (0, 1))
            if causal:
                found.append(ops.greater_equal(rows, columns))
            if self.sliding_window is not None:
                found.append(ops.less(ops.abs(ops.subtract(rows, columns)), self.sliding_window))
        if attention_mask is not None:
            found.append(ops.cast(attention_mask, "bool"))
        if not found:
            return None
        rank = max(len(shape_of(mask)) for mask in found)
        result, *others = (_with_heads(mask, rank, pairs) for mask in found)
        for other in others:
            result = ops.logical_and(result, other)
        return result

    def _attend(
        self, query: Any, key: Any, value: Any, mask: Any, causal: bool, training: Any, scores: bool, plan: Any
    ) -> tuple[Any, Any]:
        """Attention of projected arrays; `plan` is (equation of the scores, equation of the output, pairs of axes)."""
        scale = 1.0 / math.sqrt(shape_of(query)[-1])
        score_equation, output_equation, pairs = plan
        if self.dropout == 0 and not scores and len(shape_of(query)) == 4:
            if mask is not None:
                mask = _with_heads(mask, 4, pairs)
            return ops.dot_product_attention(query, key, value, mask=mask, scale=scale, is_causal=causal), None
        query = ops.multiply(query, ops.cast(scale, dtype_of(query)))
        weights = ops.einsum(score_equation, query, key)
        rank = len(shape_of(weights))
        if mask is not None:
            mask = _with_heads(mask, rank, pairs)
        weights = masked_softmax(weights, mask, tuple(range(rank - pairs, rank)))
        dropped = self._dropout_layer(weights, training=training) if self.dropout > 0 else weights
        return ops.einsum(output_equation, dropped, value), weights

    def compute_mask(self, query: Any, previous_mask: Any = None) -> Any:
        """The query's mask, for the output (not for the scores)."""
        return previous_mask


def _another(initializer: Any) -> Any:
    """An initializer like this one, with a draw of its own if it was given no seed."""
    kind = type(initializer)
    return kind.from_config(initializer.get_config()) if hasattr(kind, "from_config") else initializer


def _with_heads(mask: Any, rank: int, pairs: int) -> Any:
    """A mask with axes of size 1 before those of queries and sources, so that it has `rank` axes."""
    missing = rank - len(shape_of(mask))
    if missing <= 0:
        return mask
    at = max(len(shape_of(mask)) - 2 * pairs, 0)
    return ops.expand_dims(mask, tuple(range(at, at + missing)))


def _check_sources(owner: str, value_shape: Any, key_shape: Any) -> None:
    if tuple(value_shape[1:-1]) != tuple(key_shape[1:-1]):
        raise ShapeError(
            f"{owner} got a value of shape {value_shape} and a key of shape {key_shape}",
            "equal sizes on all axes but the batch and the last",
        )


class MultiHeadAttention(_HeadAttention):
    """Attention with several heads (Vaswani et al., "Attention is all you need", 2017).

    Args:
        num_heads: how many heads.
        key_dim: size of a head's queries and keys.
        value_dim: size of a head's values; by default `key_dim`.
        dropout: part of the attention scores dropped in training.
        use_bias: whether the projections have biases.
        output_shape: sizes of the output after the query's axes; by default the query's last size.
        attention_axes: axes attended over; by default all but batch, heads and features.
        sliding_window: a query sees only sources less than so many places away; `None` for all.
        flash_attention: `None` or `False`; the engine chooses its own way.
        kernel_initializer: first values of the kernels.
        bias_initializer: first values of the biases.
        kernel_regularizer: penalty on the kernels.
        bias_regularizer: penalty on the biases.
        activity_regularizer: penalty on the outputs of the projections.
        kernel_constraint: what the kernels are kept to.
        bias_constraint: what the biases are kept to.
        use_gate: whether the attention's output is multiplied with a sigmoid projection of the query.
        seed: of the dropout: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Called with:
        query: array `(batch, time, features)`.
        value: array `(batch, source, features')`.
        key: array `(batch, source, features'')`; by default `value`.
        query_mask: booleans `(batch, time)`, filled in from the query's mask; so are `value_mask` and `key_mask`,
            `(batch, source)`.
        attention_mask: booleans that broadcast to `(batch, time, source)` or `(batch, heads, time, source)`: true where
            a query may see.
        return_attention_scores: whether to give the scores `(batch, heads, time, source)` too.
        use_causal_mask: whether a query sees only sources up to its own place.

    Returns:
        array `(batch, time, features)`, or `(output, scores)`.

    Raises:
        ArgumentError: if an argument is outside its limits.
        ShapeError: if value and key have different lengths.

    Example:
        >>> import cornu
        >>> x = cornu.Input((None, 16))
        >>> cornu.layers.MultiHeadAttention(num_heads=2, key_dim=8)(x, x, use_causal_mask=True).shape
        (None, None, 16)
    """

    query_dense: EinsumDense
    key_dense: EinsumDense
    value_dense: EinsumDense
    _gate_dense: EinsumDense

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: Any = None,
        attention_axes: Any = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        POSITIVE.check("MultiHeadAttention", "num_heads", num_heads)
        POSITIVE.check("MultiHeadAttention", "key_dim", key_dim)
        if value_dim is not None:
            POSITIVE.check("MultiHeadAttention", "value_dim", value_dim)
        self.num_heads = int(num_heads)
        self.key_dim = int(key_dim)
        self.value_dim = int(value_dim or key_dim)
        self.output_shape = _sizes("output_shape", output_shape) or None
        self.attention_axes = _sizes("attention_axes", attention_axes)
        # The projections bear this penalty, the output itself does not.
        self._activity_regularizer = regularizers.get(activity_regularizer)
        self._set(
            dropout,
            use_bias,
            sliding_window,
            flash_attention,
            use_gate,
            seed,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    def _projection_penalty(self) -> Any:
        return self._activity_regularizer

    def build(  # type: ignore[override]  # one shape per argument of `call`
        self, query_shape: Any, value_shape: Any, key_shape: Any = None
    ) -> None:
        """Make the projections."""
        key_shape = value_shape if key_shape is None else key_shape
        _check_sources("MultiHeadAttention", value_shape, key_shape)
        heads = self.num_heads
        shapes = {"query": query_shape, "key": key_shape, "gate": query_shape, "value": value_shape}
        sizes = {"query": self.key_dim, "key": self.key_dim, "gate": self.value_dim, "value": self.value_dim}
        for name, shape in shapes.items():
            if name == "gate" and not self.use_gate:
                continue
            equation, bias_axes = _projected(len(shape) - 1, 1, 2)
            activation = "sigmoid" if name == "gate" else None
            full = (*[None] * (len(shape) - 2), heads, sizes[name])
            attribute = "_gate_dense" if name == "gate" else f"{name}_dense"
            setattr(self, attribute, self._projection(name, equation, full, bias_axes, shape, activation))
        rank = len(query_shape) + 1
        axes = tuple(range(1, rank - 2)) if self.attention_axes is None else self.attention_axes
        axes = tuple(axis if axis >= 0 else rank - 1 + axis for axis in axes)
        if not axes or any(not 0 <= axis < rank - 2 for axis in axes):
            raise ArgumentError(
                f"MultiHeadAttention got attention_axes={self.attention_axes} and a query of shape {query_shape}",
                "axes of the query other than the last",
            )
        self._plan = (*_attention_equations(rank, axes), len(axes))
        self._set_dropout()
        outputs = self.output_shape or (query_shape[-1],)
        equation, bias_axes = _projected(len(query_shape) - 1, 2, len(outputs))
        self.output_dense = self._projection(
            "attention_output",
            equation,
            (*[None] * (len(query_shape) - 2), *outputs),
            bias_axes,
            (*query_shape[:-1], heads, self.value_dim),
        )
        self.built = True

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        """Project, attend, project back."""
        key = value if key is None else key
        masks = (query_mask, value_mask, key_mask)
        # What follows mixes positions: the masks are taken into account here, and do not travel on by themselves.
        query, value, key = ops.drop_mask(query), ops.drop_mask(value), ops.drop_mask(key)
        alone = all(mask is None for mask in (*masks, attention_mask, self.sliding_window))
        fused = alone and self.dropout == 0 and not return_attention_scores and len(shape_of(query)) == 3
        visible = self._visible(query, value, masks, attention_mask, use_causal_mask and not fused, self._plan[2])
        gate = self._gate_dense(query) if self.use_gate else None
        query, key, value = self.query_dense(query), self.key_dense(key), self.value_dense(value)
        causal = bool(use_causal_mask and fused)
        output, scores = self._attend(query, key, value, visible, causal, training, return_attention_scores, self._plan)
        output = self.output_dense(output if gate is None else ops.multiply(output, gate))
        return (output, scores) if return_attention_scores else output

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "activity_regularizer": self._activity_regularizer}


def _sizes(name: str, value: Any) -> Any:
    """A whole number or a list of them as a tuple; `None` stays."""
    if value is None:
        return None
    many = (value,) if hasattr(value, "__index__") else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not many or not all(hasattr(one, "__index__") for one in many):
        raise ArgumentError(f"MultiHeadAttention got {name}={value!r}", "a whole number, a tuple of them, or None")
    return tuple(int(one) for one in many)


def _projected(free: int, bound: int, made: int) -> tuple[str, str]:
    """The equation of a projection that keeps `free` axes, sums over `bound` and makes others; and the bias's axes."""
    letters = string.ascii_lowercase
    kept, summed, new = letters[:free], letters[free : free + bound], letters[free + bound : free + bound + made]
    return f"{kept}{summed},{summed}{new}->{kept}{new}", new


def _attention_equations(rank: int, axes: tuple[int, ...]) -> tuple[str, str]:
    """The equations of scores (query, key) and output (scores, value) for arrays with heads and features last."""
    query = string.ascii_lowercase[:rank]
    fresh = iter(string.ascii_lowercase[rank:])
    source = "".join(next(fresh) if i in axes else letter for i, letter in enumerate(query))
    batch = "".join(query[i] for i in range(rank - 1) if i not in axes)
    scores = batch + "".join(query[i] for i in axes) + "".join(source[i] for i in axes)
    return f"{query},{source}->{scores}", f"{scores},{source}->{query}"


class GroupedQueryAttention(_HeadAttention):
    """Attention in which groups of query heads share a head of keys and values (Ainslie et al., EMNLP 2023).

    Args:
        head_dim: size of a head.
        num_query_heads: how many query heads.
        num_key_value_heads: how many heads of keys and values; it divides `num_query_heads`.
        dropout: part of the attention scores dropped in training.
        use_bias: whether the projections have biases.
        sliding_window: a query sees only sources less than so many places away; `None` for all.
        flash_attention: `None` or `False`; the engine chooses its own way.
        kernel_initializer: first values of the kernels.
        bias_initializer: first values of the biases.
        kernel_regularizer: penalty on the kernels.
        bias_regularizer: penalty on the biases.
        activity_regularizer: penalty on the outputs of the projections and of the layer.
        kernel_constraint: what the kernels are kept to.
        bias_constraint: what the biases are kept to.
        use_gate: whether the attention's output is multiplied with a sigmoid projection of the query.
        seed: of the dropout: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Called, and answering, as `MultiHeadAttention`.

    Raises:
        ArgumentError: if an argument is outside its limits.
        ShapeError: if value and key have different lengths.

    Example:
        >>> import cornu
        >>> x = cornu.Input((None, 16))
        >>> cornu.layers.GroupQueryAttention(head_dim=4, num_query_heads=6, num_key_value_heads=2)(x, x).shape
        (None, None, 16)
    """

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        owner = "GroupedQueryAttention"
        POSITIVE.check(owner, "head_dim", head_dim)
        POSITIVE.check(owner, "num_query_heads", num_query_heads)
        POSITIVE.check(owner, "num_key_value_heads", num_key_value_heads)
        if num_query_heads % num_key_value_heads:
            raise ArgumentError(
                f"{owner} got num_query_heads={num_query_heads} and num_key_value_heads={num_key_value_heads}",
                f"a multiple of {num_key_value_heads} query heads",
            )
        self.head_dim = int(head_dim)
        self.num_query_heads = int(num_query_heads)
        self.num_key_value_heads = int(num_key_value_heads)
        self._set(
            dropout,
            use_bias,
            sliding_window,
            flash_attention,
            use_gate,
            seed,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    def build(  # type: ignore[override]  # one shape per argument of `call`
        self, query_shape: Any, value_shape: Any, key_shape: Any = None
    ) -> None:
        """Make the projections."""
        key_shape = value_shape if key_shape is None else key_shape
        for shape in (query_shape, value_shape, key_shape):
            if len(shape) != 3:
                raise ShapeError(f"GroupedQueryAttention got an input of shape {shape}", "(batch, time, features)")
        _check_sources("GroupedQueryAttention", value_shape, key_shape)
        asked, shared = (None, self.num_query_heads, self.head_dim), (None, self.num_key_value_heads, self.head_dim)
        self._query_dense = self._projection("query", "bqm,muh->bquh", asked, "uh", query_shape)
        self._key_dense = self._projection("key", "bkm,mvh->bkvh", shared, "vh", key_shape)
        if self.use_gate:
            self._gate_dense = self._projection("gate", "bqm,muh->bquh", asked, "uh", query_shape, "sigmoid")
        self._value_dense = self._projection("value", "bkm,mvh->bkvh", shared, "vh", value_shape)
        self._set_dropout()
        sizes, heads = (None, query_shape[-1]), (None, None, self.num_query_heads, self.head_dim)
        self._output_dense = self._projection("attention_output", "bquh,uhm->bqm", sizes, "m", heads)
        self.built = True

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        """Project, attend, project back."""
        key = value if key is None else key
        masks = (query_mask, value_mask, key_mask)
        query, value, key = ops.drop_mask(query), ops.drop_mask(value), ops.drop_mask(key)
        alone = all(mask is None for mask in (*masks, attention_mask, self.sliding_window))
        fused = alone and self.dropout == 0 and not return_attention_scores
        visible = self._visible(query, value, masks, attention_mask, use_causal_mask and not fused, 1)
        gate = self._gate_dense(query) if self.use_gate else None
        query, key, value = self._query_dense(query), self._key_dense(key), self._value_dense(value)
        times = self.num_query_heads // self.num_key_value_heads
        key, value = ops.repeat(key, times, axis=2), ops.repeat(value, times, axis=2)
        causal = bool(use_causal_mask and fused)
        plan = ("bquh,bkuh->buqk", "buqk,bkuh->bquh", 1)
        output, scores = self._attend(query, key, value, visible, causal, training, return_attention_scores, plan)
        output = self._output_dense(output if gate is None else ops.multiply(output, gate))
        return (output, scores) if return_attention_scores else output


GroupQueryAttention = GroupedQueryAttention  # Keras's public name


class Attention(Layer):
    """Dot-product attention without projections (Luong et al., EMNLP 2015).

    Args:
        use_scale: whether the scores are multiplied with a learned number.
        score_mode: `"dot"` for products of query and key, `"concat"` for sums of `tanh(query + key)`
            times a learned number.
        dropout: part of the attention scores dropped in training.
        seed: of the dropout: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Called with:
        inputs: a list `[query, value]` or `[query, value, key]` of arrays `(batch, time, features)` and
            `(batch, source, features)`.
        mask: a list `[query_mask, value_mask]` of booleans, filled in from the arrays' masks. The output is 0 where the
            query is masked.
        return_attention_scores: whether to give the scores `(batch, time, source)` too.
        use_causal_mask: whether a query sees only sources up to its own place.

    Returns:
        array `(batch, time, features of value)`, or `(output, scores)`.

    Raises:
        ArgumentError: if an argument is outside its limits, or the inputs are no such list.

    Example:
        >>> import cornu
        >>> cornu.layers.Attention()([cornu.Input((4, 8)), cornu.Input((None, 8))]).shape
        (None, 4, 8)
    """

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        one_of("dot", "concat").check("Attention", "score_mode", score_mode)
        self.score_mode = score_mode
        self._set(use_scale, dropout, seed)

    def _set(self, use_scale: bool, dropout: float, seed: Any) -> None:
        owner = type(self).__name__
        FRACTION.check(owner, "dropout", dropout)
        self.use_scale = use_scale
        self.dropout = dropout
        self.seed = seed_of(owner, seed)

    def build(self, input_shape: Any) -> None:
        """Make the learned numbers."""
        self._check(input_shape)
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones") if self.use_scale else None
        learned = {"name": "concat_score_weight", "shape": (), "initializer": "ones"}
        self.concat_score_weight = self.add_weight(**learned) if self.score_mode == "concat" else None
        self.built = True

    def _check(self, inputs: Any) -> None:
        if not isinstance(inputs, (list, tuple)) or len(inputs) not in (2, 3):
            raise ArgumentError(
                f"{type(self).__name__} was called on {inputs!r:.80}", "a list [query, value] or [query, value, key]"
            )

    def _scores(self, query: Any, key: Any) -> Any:
        """Scores `(batch, time, source)`."""
        if self.score_mode == "dot":
            scores = ops.matmul(query, ops.swapaxes(key, -2, -1))
            return scores if self.scale is None else ops.multiply(scores, self.scale)
        both = _all_pairs(query, key)
        both = both if self.scale is None else ops.multiply(self.scale, both)
        return ops.multiply(self.concat_score_weight, ops.sum(ops.tanh(both), axis=-1))

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        training: bool = False,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        """Attend."""
        self._check(inputs)
        query, value, *rest = map(ops.drop_mask, inputs)
        query_mask, value_mask = self._masks(mask)
        scores = self._scores(query, rest[0] if rest else value)
        visible = None if value_mask is None else ops.expand_dims(ops.cast(value_mask, "bool"), -2)
        if use_causal_mask:
            time, source = ops.shape(scores)[-2:]
            past = ops.greater_equal(ops.expand_dims(ops.arange(time), 1), ops.expand_dims(ops.arange(source), 0))
            visible = past if visible is None else ops.logical_and(visible, past)
        if visible is not None:
            # Keras's numbers: a row in which nothing is visible stays finite.
            less = ops.subtract(scores, 65504.0 if dtype_of(scores) == "float16" else 1e9)
            scores = ops.where(visible, scores, less)
        weights = ops.softmax(scores, axis=-1)
        if training and self.dropout > 0:
            weights = random.dropout(weights, self.dropout, seed=draw_key(self, self.seed))
        output = ops.matmul(weights, value)
        if query_mask is not None:
            output = ops.where(ops.expand_dims(ops.cast(query_mask, "bool"), -1), output, 0)
        return (output, weights) if return_attention_scores else output

    def _masks(self, mask: Any) -> tuple[Any, Any]:
        if mask is None:
            return None, None
        if not isinstance(mask, (list, tuple)) or len(mask) not in (2, 3):
            raise ArgumentError(f"{type(self).__name__} got mask={mask!r:.80}", "a list [query_mask, value_mask]")
        return mask[0], mask[1]

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The query's mask."""
        return self._masks(previous_mask)[0]


def _all_pairs(query: Any, key: Any) -> Any:
    """`query + key` for each query and key, `(batch, time, source, features)`."""
    if len(shape_of(query)) < 2 or len(shape_of(key)) < 2:
        raise ShapeError(
            f"attention got a query {shape_text(shape_of(query))} and a key {shape_text(shape_of(key))}",
            "(batch, time, features) and (batch, source, features)",
        )
    return ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3))


class AdditiveAttention(Attention):
    """Additive attention without projections (Bahdanau et al., ICLR 2015): sums of `scale * tanh(query + key)`.

    Args:
        use_scale: whether `scale` is a learned vector (the number 1 if not).
        dropout: part of the attention scores dropped in training.
        seed: of the dropout: a whole number, a `SeedGenerator`, or `None` to draw a number now.

    Called, and answering, as `Attention`.
    """

    score_mode = "concat"

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, seed: Any = None, **kwargs: Any) -> None:
        Layer.__init__(self, **kwargs)
        self._set(use_scale, dropout, seed)

    def build(self, input_shape: Any) -> None:
        """Make the scale."""
        self._check(input_shape)
        self.scale = None
        if self.use_scale:
            shape = (input_shape[0][-1],)
            self.scale = self.add_weight(name="scale", shape=shape, initializer="glorot_uniform")
        self.built = True

    def _scores(self, query: Any, key: Any) -> Any:
        """Scores `(batch, time, source)`."""
        both = ops.tanh(_all_pairs(query, key))
        return ops.sum(both if self.scale is None else ops.multiply(self.scale, both), axis=-1)
