"""Automatic names: `dense`, `dense_1`, ... by class, as Keras counts them."""

import re
from collections import Counter

__all__ = ["auto_name", "clear_session", "snake_case"]

_counts: Counter[str] = Counter()


def snake_case(name: str) -> str:
    """A class's name as Keras writes it in names and files.

    Example:
        >>> snake_case("Conv2DTranspose"), snake_case("LSTMCell"), snake_case("MyLayer")
        ('conv2d_transpose', 'lstm_cell', 'my_layer')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def auto_name(cls: type) -> str:
    """The next free name for an object of a class."""
    base = snake_case(cls.__name__).lstrip("_") or "layer"
    count = _counts[base]
    _counts[base] += 1
    return base if count == 0 else f"{base}_{count}"


def clear_session() -> None:
    """Begin the automatic names anew."""
    _counts.clear()
