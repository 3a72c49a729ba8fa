"""Whether JAX keeps the parts of an array in several places."""

from typing import Any

import jax

__all__ = ["is_placed"]


def is_placed(array: Any) -> bool:
    """Whether an array's type says where its parts are: inside `shard_map`, or on a mesh of explicit axes.

    What that makes of an operation only JAX's own functions know.
    """
    sharding = jax.typeof(array).sharding
    return bool(sharding.mesh.manual_axes) or any(axis is not None for axis in sharding.spec)
