"""Every primitive in TensorFlow, and the ops for which TensorFlow has a faster way than their composition."""

from collections.abc import Callable
from typing import Any

from cornu.engines.tensorflow import (
    activations,
    bits,
    elementwise,
    indexing,
    loops,
    normalization,
    places,
    recurrent,
    windows,
)

__all__ = ["TABLE"]

TABLE: dict[str, Callable[..., Any]] = {
    **activations.TABLE,
    **bits.TABLE,
    **elementwise.TABLE,
    **indexing.TABLE,
    **windows.TABLE,
    **loops.TABLE,
    **places.TABLE,
    **recurrent.TABLE,
    **normalization.TABLE,
}
