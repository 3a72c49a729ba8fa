"""Layers whose `call` uses one engine's own functions: which engine that is, and what shapes they give.

Such functions know no Specs. Which library they belong to shows when one is called on a Spec, or in the trace of what
they raise. Shapes are then inferred by that engine's own abstract evaluation, twice: with two sets of numbers for the
unknown sizes. A size of the result that moves with an unknown is an expression of it.
"""

import traceback
from typing import Any

from cornu.core import context, tree
from cornu.core.dims import Dim, Size, evaluate
from cornu.core.errors import CornuError, EngineError, NativeCall, is_user_file
from cornu.core.spec import Spec
from cornu.engines import registry
from cornu.ops._declare import to_spec
from cornu.random import at_step

__all__ = ["Native", "bound_engine", "check_engine", "infer", "native_of"]

# Sizes that stand for unknown ones, in two trials: different, and divisible by what layers divide by.
_TRIALS = ((24, 36, 48, 60, 72, 84, 96, 108), (120, 144, 168, 192, 216, 240, 264, 288))


class Native:
    """What binds a layer to an engine.

    Attributes:
        engine: the engine's name.
        function: the function of that engine, in words.
    """

    __slots__ = ("engine", "function")
    # How many layers of this process are bound to an engine; while there are none, nobody need look.
    count = 0

    def __init__(self, engine: str, function: str) -> None:
        self.engine = engine
        self.function = function
        Native.count += 1


def native_of(error: Exception) -> Native | None:
    """What an error says of the engine whose function was called on a Spec; `None` if it says nothing of one."""
    if isinstance(error, NativeCall):
        return Native(error.engine, error.function)
    if isinstance(error, CornuError):
        return None
    libraries = {library: name for name, (_, library, _) in registry.ENGINES.items() if name != "numpy"}
    frames = list(traceback.walk_tb(error.__traceback__))
    last = max((i for i, (frame, _) in enumerate(frames) if is_user_file(frame.f_code.co_filename)), default=-1)
    for frame, _ in frames[last + 1 :]:
        library = frame.f_globals.get("__name__", "").partition(".")[0]
        if library in libraries:
            return Native(libraries[library], f"{library}'s {frame.f_code.co_name}")
    # JAX takes its own frames out of the trace, and leaves a note that it did.
    if any("JAX has removed its internal frames" in note for note in getattr(error, "__notes__", ())):
        return Native("jax", "a function of jax")
    return None


def bound_engine(layers: list[Any]) -> str | None:
    """The engine to which native layers among these are bound, `None` if there are none.

    Raises:
        EngineError: if they are bound to two engines.
    """
    found: Any = None
    for layer in layers if Native.count else ():
        if layer._native is None:
            continue
        if found is not None and found._native.engine != layer._native.engine:
            raise EngineError(
                f"layer {found.path!r} calls {found._native.function}, and layer {layer.path!r} calls "
                f"{layer._native.function}",
                "functions of one engine in one model",
                "write one of them with cornu.ops",
            )
        found = layer
    return None if found is None else str(found._native.engine)


def check_engine(layer: Any) -> None:
    """Refuse to run a native layer on another engine than its own.

    Raises:
        EngineError: if another engine is in force.
    """
    engine, native = context.engine_in_force(), layer._native
    if engine.name != native.engine:
        raise EngineError(
            f"layer {layer.path!r} ({type(layer).__name__}) calls {native.function}, and engine {engine.name!r} is "
            "to run it",
            f"engine={native.engine!r}",
            f"fit(..., engine={native.engine!r}), or write the layer's call with cornu.ops to run it anywhere",
        )


def infer(layer: Any, args: Any, kwargs: Any) -> Any:
    """The Specs that a native layer's `call` gives for Specs.

    Raises:
        EngineError: if the shapes do not follow from those of the arguments.
    """
    given = tree.leaves((args, kwargs))
    specs = [leaf for leaf in given if isinstance(leaf, Spec)]
    names = sorted({name for spec in specs for size in spec.shape if isinstance(size, Dim) for name in size.unknowns()})
    if len(names) > len(_TRIALS[0]):
        raise EngineError(
            f"layer {layer.path!r} has {len(names)} unknown sizes among its inputs", f"at most {len(_TRIALS[0])}"
        )
    trials: list[dict[str, Any]] = [dict(zip(names, sizes, strict=False)) for sizes in _TRIALS]
    (like, first), (_, second) = (_trial(layer, args, kwargs, specs, sizes) for sizes in trials)
    found = []
    for a, b in zip(first, second, strict=True):
        if len(a.shape) != len(b.shape) or a.dtype != b.dtype:
            raise EngineError(
                f"layer {layer.path!r} gives {a!r} for {trials[0]} and {b!r} for {trials[1]}",
                "a rank and a dtype that do not hang on the sizes",
            )
        sizes = zip(a.shape, b.shape, strict=True)
        found.append(Spec(tuple(_expression(x, y, trials, layer.path) for x, y in sizes), a.dtype))
    return tree.pack(like, found)


def _trial(layer: Any, args: Any, kwargs: Any, specs: list[Spec], sizes: dict[str, Any]) -> tuple[Any, list[Spec]]:
    """The structure of what `call` gives, and its Specs, for these sizes."""
    engine = registry.get(layer._native.engine)
    structure: list[Any] = []

    def function(values: list[Any]) -> list[Any]:
        stand_ins = iter(values)
        own = tree.map_structure(lambda leaf: next(stand_ins) if isinstance(leaf, Spec) else leaf, (args, kwargs))
        result = layer.call(*own[0], **own[1])
        structure[:] = [tree.structure(result)]
        return [engine.own(leaf) for leaf in tree.leaves(result)]

    with context.abstract(False), context.use_engine(engine), context.bind([], []), at_step(0):
        found = engine.infer(function, [Spec(evaluate(spec.shape, sizes), spec.dtype) for spec in specs])
    return structure[0], [to_spec(spec) for spec in found]


def _expression(a: Any, b: Any, trials: list[dict[str, Any]], owner: str) -> Size:
    """The size that is `a` in the first trial and `b` in the second, in terms of one unknown or a product of two."""
    if a == b:
        return a
    first, second = trials
    for forms in (_linear, _divided, _products):
        for size in forms(a, b, first, second):
            if size is not None:
                return size
    return Dim(f"{owner}.{a}.{b}")


def _linear(a: int, b: int, first: dict[str, Any], second: dict[str, Any]) -> Any:
    """`k * n + c`, the simplest first."""
    found = []
    for name in first:
        factor, rest = divmod(b - a, second[name] - first[name])
        if not rest and factor > 0:
            found.append((factor, abs(a - factor * first[name]), Dim(name) * factor + (a - factor * first[name])))
    yield from (size for *_, size in sorted(found, key=lambda row: (row[1], row[0])))


def _divided(a: int, b: int, first: dict[str, Any], second: dict[str, Any]) -> Any:
    """`(n + c) // k`, as strides and windows give."""
    for name in first:
        for k in range(2, 17):
            for c in sorted(range(-16, 17), key=abs):
                if (first[name] + c) // k == a and (second[name] + c) // k == b:
                    yield (Dim(name) + c) // k


def _products(a: int, b: int, first: dict[str, Any], second: dict[str, Any]) -> Any:
    """`k * m * n`, as reshapes give."""
    for one in first:
        for other in first:
            k, rest = divmod(a, first[one] * first[other])
            if k and not rest and b == k * second[one] * second[other]:
                yield Dim(one) * Dim(other) * k
