"""Dtype policies: in which dtype a layer keeps its weights, and in which it computes."""

from typing import Any

from cornu.core import dtypes
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError
from cornu.core.family import Family

__all__ = ["DTypePolicy", "FloatDTypePolicy", "deserialize", "dtype_policy", "get", "serialize", "set_dtype_policy"]


class DTypePolicy(Configurable):
    """The dtype of a layer's weights and of its arithmetic.

    Args:
        name: a dtype (`"float32"`), or `"mixed_float16"`, `"mixed_bfloat16"`: half-width arithmetic on float32 weights.

    Raises:
        ArgumentError: for any other name.

    Example:
        >>> policy = DTypePolicy("mixed_bfloat16")
        >>> policy.compute_dtype, policy.variable_dtype
        ('bfloat16', 'float32')
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or dtypes.floatx()
        if self.name in ("mixed_float16", "mixed_bfloat16"):
            self.compute_dtype, self.variable_dtype = self.name.removeprefix("mixed_"), "float32"
        elif self.name in dtypes.ALL:
            self.compute_dtype = self.variable_dtype = self.name
        else:
            raise ArgumentError(f"dtype policy {name!r}", "a dtype's name, 'mixed_float16' or 'mixed_bfloat16'")

    def __repr__(self) -> str:
        return f"<DTypePolicy {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


FloatDTypePolicy = DTypePolicy
_global: list[DTypePolicy | None] = [None]
_made: dict[str, DTypePolicy] = {}


def dtype_policy() -> DTypePolicy:
    """The policy of layers that name none."""
    return _global[0] or get(dtypes.floatx())


def set_dtype_policy(policy: Any) -> None:
    """Set the policy of layers that name none: a policy, its name, or `None` for the default float."""
    _global[0] = None if policy is None else get(policy)


def get(identifier: Any) -> DTypePolicy:
    """A policy from a policy, a name, a dtype, a config, or `None` (the global one)."""
    if identifier is None:
        return dtype_policy()
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    name = identifier if isinstance(identifier, str) else dtypes.standardize_dtype(identifier)
    if name not in _made:
        _made[name] = DTypePolicy(name)
    return _made[name]


KERAS = Family("policy or model", "keras", [DTypePolicy], check=lambda value: True)
serialize = KERAS.serialize


def deserialize(config: dict[str, Any]) -> DTypePolicy:
    """The policy of a config."""
    return get(config["config"]["name"])
