"""An eager call once more, without the way there: the functions of an engine's table that it came down to, in a row.

The first calls of a graph find interpreters, promote, look for masks and place errors. What they come down to for
inputs of the same shapes and dtypes is always the same functions on the same places; a `Recorder` notes them as they
run, and a `Replay` runs them again. They are the engine's own eager functions, so its own autodiff follows them.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from cornu.core import context, tree
from cornu.core.variable import Variable
from cornu.ops._declare import Op, dtype_of, interpreter_of, prepare, shape_of

__all__ = ["Recorder", "Replay"]

_WIDE = ("int64", "uint64", "float64", "complex128")  # an engine may compute these under a setting of its own
_DRAWS = ("threefry2x32",)


class _Unlike(Exception):
    """The call does something that would not be the same the next time."""


class Replay:
    """What a call came down to.

    Values have places in the order in which they come: inputs, constants, variables, results of the steps.

    Args:
        inputs: how many values it takes.
        constants: values that are the same every time.
        variables: those that are read.
        steps: `(function, place, places or None for each argument, how many results, whether they are a sequence)`.
        outputs: the places of the results.
    """

    __slots__ = ("run", "variables")

    def __init__(
        self, inputs: int, constants: list[Any], variables: list[Variable], steps: list[Any], outputs: list[int]
    ) -> None:
        self.variables = variables
        self.run = _written(inputs, constants, len(variables), steps, outputs)

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """The results for values of the inputs; the engine is in force."""
        return self.run(inputs, _read(self.variables))


def _written(
    inputs: int, constants: list[Any], variables: int, steps: list[Any], outputs: list[int]
) -> Callable[[list[Any], list[Any]], list[Any]]:
    """The steps as one Python function of the inputs and the variables' values."""
    first = inputs + len(constants)
    scope: dict[str, Any] = {f"v{inputs + i}": value for i, value in enumerate(constants)}

    def unpacked(places: range, source: str) -> str:
        return f"{''.join(f'v{place}, ' for place in places)}= {source}" if places else ""

    def text(place: Any) -> str:
        if isinstance(place, list):
            return f"[{', '.join(map(text, place))}]"
        return "None" if place is None else f"v{place}"

    lines = [unpacked(range(inputs), "inputs"), unpacked(range(first, first + variables), "variables")]
    made = first + variables
    for number, ((function, arguments, count, several), over) in enumerate(
        zip(steps, _last_needed(steps, made, set(outputs)), strict=True)
    ):
        scope[f"f{number}"] = function
        called = f"f{number}({', '.join(map(text, arguments))})"
        lines.append(unpacked(range(made, made + count), called) if several else f"v{made} = {called}")
        if over:
            lines.append(f"del {', '.join(map(text, over))}")
        made += count
    source = "\n    ".join(["def run(inputs, variables):", *filter(None, lines), f"return {text(outputs)}"])
    exec(compile(source, "<cornu replay>", "exec"), scope)
    run: Callable[[list[Any], list[Any]], list[Any]] = scope["run"]
    return run


def _last_needed(steps: list[Any], first: int, kept: set[int]) -> list[list[int]]:
    """For each step the places of results that nobody needs after it."""
    last: dict[int, int] = {}
    made = first
    for i, (_, arguments, count, _) in enumerate(steps):
        last.update((place, i) for place in tree.leaves(arguments) if place is not None and place >= first)
        last.update((place, i) for place in range(made, made + count))
        made += count
    over: list[list[int]] = [[] for _ in steps]
    for place, i in last.items():
        if place not in kept:
            over[i].append(place)
    return over


def _read(variables: list[Variable]) -> list[Any]:
    """The values under the engine in force, without autocast; of variables with a home there in a short way."""
    engine = context.engine_in_force() if context.bindings.get() is None else None
    return [
        home.tracked()
        if (home := variable.home) is not None and home.engine is engine and variable.holder is None
        else variable.value
        for variable in variables
    ]


class Recorder:
    """Notes what a call comes down to while it runs: the watcher of its ops.

    Args:
        engine: the engine that computes.
        inputs: its values, from which the call begins.
        variables: what the call may read.
    """

    def __init__(self, engine: Any, inputs: list[Any], variables: list[Variable]) -> None:
        self.engine = engine
        self.inputs = inputs
        self.variables = variables
        self.versions = [variable.version for variable in variables]
        self.constants: list[Any] = []
        self.steps: list[tuple[Callable[..., Any], list[Any], int, bool]] = []
        self.why: str | None = None
        self._kept: list[Any] = [*inputs]  # so that no id is used twice
        self._places: dict[int, Any] = {id(value): ("input", i) for i, value in enumerate(inputs)}
        self._known = {id(variable): i for i, variable in enumerate(variables)}
        self._casts: dict[Any, Any] = {}
        self._made = 0
        with context.autocast(None):
            for i, variable in enumerate(variables):
                self._keep(variable.value, ("variable", i))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Note what is computed in this block."""
        token, looks = context.watcher.set(self), context.on_look.set(self._looked)
        try:
            yield
        finally:
            context.on_look.reset(looks)
            context.watcher.reset(token)

    def _looked(self) -> None:
        self.why = self.why or "it looks at elements"

    def __call__(self, op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any) -> None:
        """Note an op that has been computed."""
        if self.why is not None:
            return
        try:
            self._note(op, arrays, static, result)
        except _Unlike as reason:
            self.why = str(reason)

    def _note(self, op: Op, arrays: dict[str, Any], static: dict[str, Any], result: Any) -> None:
        if op.family in ("control", "random") or op.name in _DRAWS or op.trees:
            raise _Unlike(f"it computes {op.name!r}")
        if any(interpreter_of(leaf) is not None for leaf in tree.leaves(list(static.values()))):
            raise _Unlike(f"an argument of {op.name!r} is a value")
        dtypes: list[str] = []
        ranks: list[int] = []

        def place(value: Any, dtype: str | None) -> Any:
            dtypes.append(dtype or dtype_of(value))
            ranks.append(len(shape_of(value)))
            return self._place(value, dtype)

        ready = prepare(op, arrays, place)
        if op.name == "cast_to":
            if result is arrays.get("x"):
                return  # it had that dtype
            self._casts.setdefault((*ready.values(), static["dtype"]), ("result", self._made))
        if op.name in self.engine.ruled and self.engine.ruled[op.name](static):
            function: Callable[..., Any] = functools.partial(_by_rule, self.engine, op, tuple(ready), static)
        else:
            function = self.engine.fitted(self.engine.table[op.name], dtypes, ranks)
            if static:
                function = functools.partial(function, **static)
        self._step(function, list(ready.values()), result)

    def _step(self, function: Callable[..., Any], arguments: list[Any], result: Any) -> None:
        several = isinstance(result, (list, tuple))
        results = list(result) if several else [result]
        for value in results:
            if not self.engine.owns(type(value)) or dtype_of(value) in _WIDE:
                raise _Unlike(f"it computes a {type(value).__name__} of a kind that is not followed")
            self._keep(value, ("result", self._made))
            self._made += 1
        self.steps.append((function, arguments, len(results), several))

    def _keep(self, value: Any, place: Any) -> None:
        self._kept.append(value)
        self._places[id(value)] = place

    def _place(self, value: Any, dtype: str | None = None) -> Any:
        """The place of an argument, cast where it must be."""
        if isinstance(value, Variable):
            return self._of_variable(value, dtype)
        place = self._places.get(id(value))
        if place is None:
            return self._of_constant(value, dtype)
        return self._cast(value, place, dtype)

    def _of_variable(self, variable: Variable, dtype: str | None) -> Any:
        number = self._known.get(id(variable))
        if number is None:
            raise _Unlike(f"it reads {variable.path!r}, which is none of its variables")
        read = dtype_of(variable)  # under autocast
        with context.autocast(None):
            value = variable.value
        return self._cast(value, ("variable", number), dtype or read)

    def _of_constant(self, value: Any, dtype: str | None) -> Any:
        if interpreter_of(value) is not None:
            raise _Unlike("it computes with values from elsewhere")
        own = self.engine.own(value, dtype)
        if dtype_of(own) in _WIDE:
            raise _Unlike("it computes with 64 bits")
        self.constants.append(own)
        return ("constant", len(self.constants) - 1)

    def _cast(self, value: Any, place: Any, dtype: str | None) -> Any:
        if dtype is None or dtype_of(value) == dtype:
            return place
        known = self._casts.get((place, dtype))
        if known is None:
            result = self.engine.table["cast_to"](value, dtype)
            known = self._casts[(place, dtype)] = ("result", self._made)
            self._step(functools.partial(self.engine.table["cast_to"], dtype=dtype), [place], result)
        return known

    def replay(self, outputs: list[Any]) -> Replay | None:
        """The call as it can be run again, `None` (and `why`) if it cannot.

        Args:
            outputs: the engine's values that the call gave.
        """
        if self.why is None and self.versions != [variable.version for variable in self.variables]:
            self.why = "it assigns variables"
        if self.why is None and not all(id(value) in self._places for value in outputs):
            self.why = "its outputs do not follow from its ops"
        if self.why is not None:
            return None
        starts = {"input": 0, "constant": len(self.inputs), "variable": len(self.inputs) + len(self.constants)}
        starts["result"] = starts["variable"] + len(self.variables)

        def number(place: Any) -> Any:
            return [number(item) for item in place] if isinstance(place, list) else starts[place[0]] + place[1]

        ends = [number(self._places[id(value)]) for value in outputs]
        steps = [
            (function, [None if a is None else number(a) for a in arguments], count, several)
            for function, arguments, count, several in self.steps
        ]
        return Replay(len(self.inputs), self.constants, self.variables, steps, ends)


def _by_rule(engine: Any, op: Op, names: tuple[str, ...], static: dict[str, Any], *values: Any) -> Any:
    return engine.by_rule(op, dict(zip(names, values, strict=True)), static)
