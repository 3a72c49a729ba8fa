"""`compare`: where two engines part on one model, op by op.

The model runs once on an engine whose values are several engines' values side by side. Each op is computed by the
reference on its own values, and by every other engine twice: on the reference's values, so that a difference is that
op's *own*, and on what that engine itself computed so far, which shows how differences *add up*.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, tree
from cornu.core.errors import ArgumentError
from cornu.core.variable import Variable, read_all
from cornu.engines import registry
from cornu.inspect._calls import Calls
from cornu.inspect._side_by_side import Difference, Judge, SideBySide
from cornu.inspect._table import number_text, table
from cornu.layers.base import Layer
from cornu.ops import arithmetic as _a
from cornu.ops import reduction as _r
from cornu.ops.creation import convert_to_numpy
from cornu.ops.elementwise import cast
from cornu.random import at_step

__all__ = ["Comparison", "compare"]

_BEFORE, _SHOWN = 3, 12


class Comparison:
    """What `compare` found; it is true if the engines agree, and prints as a table.

    Attributes:
        model: the model's name.
        reference: the engine the others are measured against.
        engines: the names of the others.
        rows: a `Difference` per op and engine, in the order of execution.
        whole: a `Difference` per engine (the reference too) between the outputs of the whole model, compiled, and those
            of the reference op by op.
        rtol: relative difference allowed.
        atol: absolute difference allowed.
    """

    def __init__(self, model: str, names: list[str], rtol: float, atol: float) -> None:
        self.model = model
        self.reference, self.engines = names[0], names[1:]
        self.rtol, self.atol = rtol, atol
        self.rows: list[Difference] = []
        self.whole: list[Difference] = []

    @property
    def ok(self) -> bool:
        """Whether no op parts, alone or by what adds up, and neither does the whole model, compiled."""
        return self.first is None

    @property
    def first(self) -> Difference | None:
        """The first op that parts on the reference's values; else the first to which differences add up; else the whole
        model, compiled; `None` if the engines agree."""
        ways = (
            (row for row in self.rows if row.parts),
            (row for row in self.rows if row.drifts),
            (row for row in self.whole if row.parts or row.drifts),
        )
        return next((row for way in ways for row in way), None)

    @property
    def worst(self) -> Difference | None:
        """The op whose own difference is largest, measured by what is allowed."""
        return max(self.rows, key=lambda row: row.excess, default=None)

    def __bool__(self) -> bool:
        return self.ok

    def table(self, rows: Sequence[Difference] | None = None) -> str:
        """A row per op and engine.

        Args:
            rows: those to show; by default all.
        """
        head = ["op", "name", "layer", "output", "engine", "own abs", "own rel", "added abs", "added rel", ""]
        lines = [row.cells() for row in (self.rows if rows is None else rows)]
        return "\n".join(table(head, lines, left=(1, 2, 3, 4, 9)))

    def __str__(self) -> str:
        count = len({row.number for row in self.rows})
        lines = [
            f"{self.model}: {', '.join(self.engines)} against {self.reference}, {count} ops "
            f"(rtol {self.rtol:g}, atol {self.atol:g})",
            *self._verdict(),
            self.table(self._chosen()),
        ]
        if self.whole:
            found = ", ".join(f"{row.engine} {number_text(row.absolute)}" for row in self.whole)
            lines.append(f"largest difference of the outputs, the model compiled whole: {found}")
        return "\n".join(lines)

    __repr__ = __str__

    def _verdict(self) -> list[str]:
        first = self.first
        if first is None:
            return ["they agree; the ops with the largest differences:"]
        if first in self.whole:
            return [
                f"every op agrees, but the model compiled whole parts on {first.engine}: {first.told(self.reference)}"
            ]
        where = f"op {first.number}, {first.name!r} in {first.layer!r}" if first.layer else (
            f"op {first.number}, {first.name!r}"
        )  # fmt: skip
        if first.parts:
            return [f"they part first at {where} on {first.engine}: {first.told(self.reference)}"]
        return [
            "no op parts by itself, but differences add up: first beyond what is allowed at "
            f"{where} on {first.engine}, by {number_text(first.added_absolute)}"
        ]

    def _chosen(self) -> list[Difference]:
        """The rows to show: around the first, and those that part; or the largest."""
        first = self.first
        if first is None or first in self.whole:
            largest = sorted(self.rows, key=lambda row: -row.excess)[:_SHOWN]
            return sorted(largest, key=lambda row: row.place)
        near = {row.place for row in self.rows[max(0, first.place - _BEFORE) : first.place + 1]}
        parting = [row.place for row in self.rows if row.parts or (row.drifts and not first.parts)]
        near.update(parting[: _SHOWN - len(near)])
        return [row for row in self.rows if row.place in near]


def compare(
    model: Layer,
    engines: Sequence[str],
    data: Any,
    *,
    reference: str | None = None,
    training: bool = False,
    gradients: bool = False,
    compiled: bool = True,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    step: int = 0,
) -> Comparison:
    """The first op at which engines part on a model, and by how much.

    Args:
        model: the model or layer; it stays as it is.
        engines: names of at least two engines.
        data: the model's input: an array, or a list or dict of arrays.
        reference: the engine to measure against, by default the first.
        training: whether the model runs as in training, with the same draws on every engine.
        gradients: whether the gradients of the trainable variables are compared too, those of half the sum of the
            squared outputs, by the tape's rules.
        compiled: whether the outputs of the whole model, compiled on each engine, are compared too.
        rtol: relative difference allowed: of each element, or, for ops that sum, of the largest magnitude in the
            result. For 16-bit floats at least eight units in the last place are allowed.
        atol: absolute difference allowed.
        step: number of the training step, which decides what random layers draw.

    Returns:
        a `Comparison`: `.ok`, `.first` (a row: op, layer, differences, where), `.rows`; it prints as a table. A
        composed op that an engine has in a version of its own is compared as a whole; a loop step by step, and whole.

    Raises:
        ArgumentError: if there are not two engines.

    Example:
        >>> import cornu, numpy as np
        >>> x = cornu.Input((4,))
        >>> model = cornu.Model(x, cornu.layers.Dense(3, activation="tanh", name="hidden")(x), name="net")
        >>> report = cornu.inspect.compare(model, ["numpy", "jax"], np.ones((2, 4), "float32"))
        >>> report.ok, report.first
        (True, None)
        >>> [row.name for row in report.rows if row.layer == "hidden"]
        ['matmul', 'add', 'tanh']
    """
    names = _names(model, engines, reference)
    chosen = [registry.get(name) for name in names]
    report = Comparison(model.name, names, rtol, atol)
    calls, judge = Calls(model), Judge(rtol, atol)
    side = SideBySide(chosen, judge)
    number = np.int32(step)
    with np.errstate(all="ignore"), at_step(number):
        if not model.built or not model.variables:
            with context.use_engine(chosen[0]), context.bind([], []):
                model(data, training=training)
        variables = model.variables
        given = [side.from_any(variable.stored()) for variable in variables]
        with side.listening(calls), context.use_engine(side), context.bind(variables, given) as scope:
            try:
                outputs = _run(model, data, training, gradients)
            finally:
                _forget(scope, side)
        report.rows = judge.finished(calls)
        found = [side.to_host(leaf) for leaf in tree.leaves(outputs) if hasattr(leaf, "dtype")]
        for engine in chosen if compiled else []:
            report.whole += judge.outputs(engine.name, found, _whole(model, engine, data, training, number))
    return report


def _names(model: Any, engines: Sequence[str], reference: str | None) -> list[str]:
    if not isinstance(model, Layer):
        raise ArgumentError(f"compare got {model!r:.80} ({type(model).__name__})", "a model or layer")
    given = [engines] if isinstance(engines, str) else [str(getattr(name, "name", name)) for name in engines]
    names = list(dict.fromkeys([*([reference] if reference is not None else []), *given]))
    if len(names) < 2:
        raise ArgumentError(
            f"compare got the engines {', '.join(map(repr, names)) or 'none'}",
            "the names of two or more engines",
            f"one of {', '.join(registry.available())} beside it",
        )
    return names


def _run(model: Any, data: Any, training: bool, gradients: bool) -> Any:
    """The outputs, side by side; with gradients, by the tape."""
    trained: list[Variable] = model.trainable_variables if gradients else []
    if not trained:
        return model(data, training=training)

    def forward(values: list[Any]) -> tuple[Any, Any]:
        with context.bind(trained, values):
            outputs = model(data, training=training)
        total: Any = 0.0
        for leaf in tree.leaves(outputs):
            total = _a.add(total, _r.sum(_a.multiply(_a.multiply(cast(leaf, "float32"), cast(leaf, "float32")), 0.5)))
        return total, outputs

    (_, outputs), _ = tape_value_and_grad(forward)(read_all(trained))
    return outputs


def _forget(scope: Any, side: SideBySide) -> None:
    """Take back what variables that are not the model's remember of their values side by side."""
    for variable in scope.missed.values():
        variable._converted.pop(side.name, None)


def _whole(model: Any, engine: Any, data: Any, training: bool, step: Any) -> list[np.ndarray]:
    """The outputs of the model compiled whole on one engine."""
    variables = model.variables

    def run(values: list[Any], number: Any, data: Any) -> Any:
        with context.bind(variables, values), at_step(number):
            return model(data, training=training)

    with context.use_engine(engine):
        fed = tree.map_structure(lambda leaf: None if leaf is None else engine.feed(np.asarray(leaf)), data)
        outputs = engine.compile(run)(read_all(variables), step, fed)
        return [np.asarray(convert_to_numpy(leaf)) for leaf in tree.leaves(outputs) if hasattr(leaf, "dtype")]
