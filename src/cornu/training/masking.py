"""Whether a model leaves padding out: asked of its layers, then tried on a row of the user's own."""

from typing import Any

import numpy as np

from cornu import layers
from cornu.core import context, tree
from cornu.core.errors import DataError
from cornu.engines import registry
from cornu.graph import masks
from cornu.layers._native import bound_engine
from cornu.ops._declare import dtype_of
from cornu.ops.creation import convert_to_numpy
from cornu.training.objective import flat_names

__all__ = ["check_masking"]

# How far outputs may differ by rounding, against their largest.
_ROUNDING = {"float64": 1e-8, "float32": 1e-4}
_ROUNDING_OF_HALVES = 3e-2
_LEAST = 1e-2  # what the largest is taken to be at least: sums that cancel out


def check_masking(model: Any, exact: Any, padded: Any, length: int, values: list[Any], timed: Any, what: str) -> None:
    """Refuse a model whose outputs, or losses, depend on how far a row is padded.

    Args:
        model: the model.
        exact: its inputs for a row, not padded.
        padded: the same, padded.
        length: how many steps of the row count.
        values: what sequences are padded with.
        timed: names or places of the outputs whose targets have steps; `True` for a single one.
        what: who asks, for messages.

    Raises:
        DataError: if no layer makes a mask for the padding, the outputs differ, or an output with a target per step
            has no mask.
    """
    if not any(_may_mask(layer, values) for layer in model._flatten_layers()):
        raise DataError(
            f"{what} pads with {', '.join(sorted({repr(float(value)) for value in values}))}, and model {model.name!r} "
            "has no layer that makes a mask of it: the padding would count as data",
            "Embedding(mask_zero=True) after value=0, or Masking(mask_value=value)",
            "x = cornu.layers.Masking(mask_value=0.0)(x) as the first layer",
        )
    bound = bound_engine(model._flatten_layers())
    with context.use_engine(registry.get(bound) if bound else registry.reference()):
        plain, filled = _called(model, exact), _called(model, padded)
        names = flat_names(filled, model._known_output_names())
        for name, one, other in zip(names, tree.leaves(plain), tree.leaves(filled), strict=True):
            _compare(model, name, one, other, length, what)
        single = len(names) == 1
        for place, (name, output) in enumerate(zip(names, tree.leaves(filled), strict=True)):
            if (single and timed) or name in timed or place in timed:
                _check_output(model, name, output, what)


def _called(model: Any, x: Any) -> Any:
    """The outputs; what the call assigns (the states of stateful layers) is let go."""
    with context.bind([], []):
        return model(x, training=False)


def _may_mask(layer: Any, values: list[Any]) -> bool:
    if isinstance(layer, layers.Embedding):
        return bool(layer.mask_zero) and any(value == 0 for value in values)
    if isinstance(layer, layers.Masking):
        return any(value == np.asarray(layer.mask_value, np.asarray(value).dtype) for value in values)
    return not type(layer).__module__.startswith("cornu.")  # what a user's own does is found by trying


def _compare(model: Any, name: str, one: Any, other: Any, length: int, what: str) -> None:
    tolerance = _ROUNDING.get(dtype_of(one), _ROUNDING_OF_HALVES)
    plain, filled = (np.asarray(convert_to_numpy(part), np.float64) for part in (one, other))
    if plain.shape != filled.shape and filled.ndim > 1:
        filled = filled[:, :length]
    largest = float(np.nanmax(np.abs(plain), initial=0.0)) + _LEAST
    if plain.shape == filled.shape and np.allclose(plain, filled, rtol=0, atol=tolerance * largest, equal_nan=True):
        return
    apart = f"by up to {np.max(np.abs(plain - filled)):.2g}" if plain.shape == filled.shape else "in shape"
    raise DataError(
        f"padding changes what model {model.name!r} computes: its output {name!r} for a row of {length} steps differs "
        f"{apart} from that of the padded row ({what})",
        "outputs that do not depend on padding",
        "let the mask reach each layer that looks along time; convolutions, Flatten and pooling over time without a "
        "mask take padding for data",
    )


def _check_output(model: Any, name: str, output: Any, what: str) -> None:
    if masks.mask_of(output) is None:
        raise DataError(
            f"output {name!r} of model {model.name!r} has no mask, and its targets have steps: padded steps would "
            f"count in the mean of the loss and in metrics ({what})",
            "an output to which the mask travels",
            "layers that keep the mask up to the output (Dense, TimeDistributed, recurrent layers with "
            "return_sequences=True)",
        )
