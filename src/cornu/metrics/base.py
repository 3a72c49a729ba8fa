"""`Metric`: a number gathered over batches; its state is in variables, so that a compiled step can carry it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cornu.core import context, dtypes, tree
from cornu.core.config import Configurable
from cornu.core.errors import ArgumentError, UnsupportedError
from cornu.core.names import auto_name
from cornu.core.variable import Variable
from cornu.losses.base import compute_dtype

__all__ = ["Metric", "zeros"]


class Metric(Configurable):
    """Base of all metrics.

    A subclass makes its variables in `__init__` with `add_variable`, gathers in `update_state`, and tells in `result`.

    Args:
        dtype: dtype (or policy) of the computation; the default float if left out.
        name: its name; made from the class's if left out.

    Attributes:
        variables: its own, then those of metrics it holds (as attributes, or in lists or dicts).

    Example:
        >>> from cornu import ops
        >>> class Largest(Metric):
        ...     def __init__(self, name="largest"):
        ...         super().__init__(name=name)
        ...         self.largest = self.add_variable((), "zeros", name="largest")
        ...     def update_state(self, y_true, y_pred, sample_weight=None):
        ...         self.largest.assign(ops.maximum(self.largest, ops.max(y_pred)))
        ...     def result(self):
        ...         return self.largest
        >>> metric = Largest()
        >>> metric.update_state([0.0], [3.0])
        >>> float(metric([0.0], [2.0]))
        3.0
    """

    _base_arguments = ("name", "dtype")
    # Which way is better, `"up"` or `"down"`, for callbacks that are not told.
    _direction: str | None = None
    name: str
    _variables: list[Variable]

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self.name = name or auto_name(type(self))
        self._dtype = compute_dtype(dtype)

    def _before_init(self) -> None:
        vars(self).update(name=None, _dtype=dtypes.floatx(), _variables=[])

    def _after_init(self, extra: dict[str, Any]) -> None:
        if "dtype" in extra:
            self._dtype = compute_dtype(extra["dtype"])
        if "name" in extra:
            self.name = extra["name"]
        self._ensure_name()

    def _ensure_name(self) -> str:
        if self.name is None:
            self.name = auto_name(type(self))
        return self.name

    def __setattr__(self, key: str, value: Any) -> None:
        if isinstance(value, Variable):
            self._track(value)
        super().__setattr__(key, value)

    def _track(self, variable: Variable) -> None:
        if not any(variable is known for known in self._variables):
            self._variables.append(variable)

    @property
    def dtype(self) -> str:
        """The dtype it computes in."""
        return self._dtype

    # ------------------------------------------------ state

    def add_variable(
        self,
        shape: Any,
        initializer: Any = None,
        dtype: Any = None,
        aggregation: str = "sum",
        name: str | None = None,
    ) -> Variable:
        """A new variable of the metric's state.

        Args:
            shape: sizes, all known.
            initializer: `"zeros"`, `"ones"`, or a function of `(shape, dtype)`; zeros if left out.
            dtype: the dtype's name; the default float if left out.
            aggregation: how replicas' values are brought together.
            name: its name.

        Returns:
            the variable, which is not trainable.
        """
        made = Variable(
            _initial(initializer),
            (shape,) if hasattr(shape, "__index__") else tuple(shape),
            dtypes.standardize_dtype(dtype),
            trainable=False,
            autocast=False,
            aggregation=aggregation,
            name=name,
        )
        made.path = f"{self._ensure_name().replace('/', '>')}/{made.name}"
        self._track(made)
        return made

    def add_weight(
        self, shape: Any = (), initializer: Any = None, dtype: Any = None, name: str | None = None
    ) -> Variable:
        """A new variable of the metric's state (see `add_variable`)."""
        return self.add_variable(shape, initializer, dtype, name=name)

    @property
    def variables(self) -> list[Variable]:
        """The metric's variables, then those of the metrics it holds, each once."""
        found: dict[int, Variable] = {}
        seen: set[int] = set()
        pending: list[Metric] = [self]
        while pending:
            metric = pending.pop()
            if id(metric) in seen:
                continue
            seen.add(id(metric))
            inner: list[Metric] = []
            found.update((id(variable), variable) for variable in metric._variables)
            for key, value in vars(metric).items():
                if key in ("_variables", "_arguments"):
                    continue
                for part in _parts(value):
                    if isinstance(part, Variable):
                        found.setdefault(id(part), part)
                    elif isinstance(part, Metric):
                        inner.append(part)
            pending.extend(reversed(inner))
        return list(found.values())

    def reset_state(self) -> None:
        """Set all variables to zero."""
        for variable in self.variables:
            variable.assign(zeros(variable.shape, variable.dtype))

    # ------------------------------------------------ what a subclass writes

    def update_state(self, *args: Any, **kwargs: Any) -> Any:
        """Gather a batch, commonly `(y_true, y_pred, sample_weight=None)`."""
        raise UnsupportedError(f"{type(self).__name__} has no update_state", "def update_state(self, ...)")

    def result(self) -> Any:
        """The metric's value so far: a scalar, an array, or a dict of them."""
        raise UnsupportedError(f"{type(self).__name__} has no result", "def result(self)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Gather a batch, and give the value so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    # ------------------------------------------------ the same, as pure functions

    def _check_state(self, values: Any) -> list[Variable]:
        variables = self.variables
        if len(values) != len(variables):
            raise ArgumentError(
                f"{self.name} got {len(values)} values for its variables",
                f"{len(variables)}: {', '.join(variable.path for variable in variables) or 'it has none yet'}",
                "call update_state once, if its variables depend on the shapes of the data",
            )
        return variables

    def stateless_update_state(self, metric_variables: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """`update_state` as a pure function.

        Args:
            metric_variables: a value for each of `variables`.
            *args: passed on to `update_state`.
            **kwargs: passed on to `update_state`.

        Returns:
            the new values.

        Raises:
            ArgumentError: if the number of values is wrong.
        """
        variables = self._check_state(metric_variables)
        with context.bind(variables, list(metric_variables)) as scope:
            self.update_state(*args, **kwargs)
            return [scope.values[id(variable)] for variable in variables]

    def stateless_result(self, metric_variables: list[Any]) -> Any:
        """`result` as a pure function of a value for each of `variables`."""
        variables = self._check_state(metric_variables)
        with context.bind(variables, list(metric_variables)):
            return tree.map_structure(_value, self.result())

    def stateless_reset_state(self) -> list[Any]:
        """The values of `variables` after `reset_state`, which leaves the variables as they are."""
        variables = self.variables
        with context.bind([], []) as scope:
            self.reset_state()
            return [scope.values.get(id(v), v.value) for v in variables]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros, as the first value of a variable."""
    return np.zeros(shape, dtypes.numpy_dtype(dtype))


def _ones(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.ones(shape, dtypes.numpy_dtype(dtype))


def _initial(initializer: Any) -> Callable[..., Any]:
    """A function of `(shape, dtype)` from what `add_variable` takes."""
    if isinstance(initializer, type):
        initializer = initializer()
    if initializer is None or initializer in ("zeros", "Zeros"):
        return zeros
    if isinstance(initializer, str) and initializer in ("ones", "Ones"):
        return _ones
    if not callable(initializer):
        raise ArgumentError(f"add_variable got initializer={initializer!r}", "'zeros', 'ones', or a function")
    return initializer


def _parts(value: Any) -> Iterator[Any]:
    """What an attribute holds, lists and dicts opened, in order."""
    if isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)
    else:
        yield value


def _value(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Variable) else leaf
