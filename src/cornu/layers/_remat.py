"""Rematerialisation: what a layer computes is not kept for the way back but computed again there.

`RematScope` says it of the layers made in its block, `remat` of one function. A function that is computed again must do
nothing but compute: `_Recomputed` runs it in the same surroundings each time (the values of variables, the numbers of
random draws), and takes what else it did - assigned variables, penalties, masks - out as results.
"""

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from cornu import random
from cornu.core import context, tree
from cornu.core.dims import Dim
from cornu.core.errors import ArgumentError
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.graph import masks
from cornu.graph.symbolic import user_tensors
from cornu.layers._clock import Numbers, is_compiling, numbers
from cornu.layers._context import current
from cornu.layers._weights import Weights, _with_penalties
from cornu.ops._declare import Tree, interpreter_of, op, to_spec
from cornu.ops.control import rematerialized

__all__ = ["RematMode", "RematScope", "call_rematerialized", "mode_in_force", "remat"]

_MODES = ("full", "activations", "larger_than", "list_of_layers", None)


class RematMode(NamedTuple):
    """What a layer remembers of the scope in which it was made.

    Attributes:
        mode: one of the modes of `RematScope`.
        output_size_threshold: for `"larger_than"`.
        layer_names: for `"list_of_layers"`.
    """

    mode: str
    output_size_threshold: int
    layer_names: tuple[str, ...]


_scope: ContextVar[RematMode | None] = ContextVar("cornu_remat", default=None)


class RematScope:
    """Layers made in this block do not keep what they compute for the way back, but compute it again there.

    That takes less memory in training and more time; numbers are the same. A model is a layer too: made in the block,
    it is computed again as a whole, and its layers within that each by itself.

    Args:
        mode: `"full"` for every layer; `"activations"` for the function in a layer's attribute `activation` alone;
            `"larger_than"` for calls whose output is large; `"list_of_layers"` for layers of some names; `None` for
            none (in a block within another).
        output_size_threshold: for `"larger_than"`: elements of the output, above which a call is computed again.
        layer_names: for `"list_of_layers"`: the names.

    Raises:
        ArgumentError: for another mode.

    Example:
        >>> import cornu
        >>> x = cornu.Input((8,))
        >>> with cornu.RematScope("list_of_layers", layer_names=["wide"]):
        ...     h = cornu.layers.Dense(512, activation="gelu", name="wide")(x)
        ...     h = cornu.layers.Dense(8, name="narrow")(h)
        >>> model = cornu.Model(x, h)
    """

    def __init__(self, mode: str | None = "full", output_size_threshold: int = 1024, layer_names: Any = None) -> None:
        if mode not in _MODES:
            raise ArgumentError(f"RematScope got mode={mode!r}", f"one of {', '.join(map(repr, _MODES))}")
        if isinstance(layer_names, str):
            raise ArgumentError(f"RematScope got layer_names={layer_names!r}", "a list of names", f"[{layer_names!r}]")
        self.mode = mode
        self.output_size_threshold = output_size_threshold
        self.layer_names = list(layer_names or ())
        self._tokens: list[Token[RematMode | None]] = []

    def __enter__(self) -> "RematScope":
        chosen = None
        if self.mode is not None:
            chosen = RematMode(self.mode, self.output_size_threshold, tuple(self.layer_names))
        self._tokens.append(_scope.set(chosen))
        return self

    def __exit__(self, *_: object) -> None:
        _scope.reset(self._tokens.pop())


def mode_in_force() -> RematMode | None:
    """What the innermost scope says, `None` where nothing is to be computed again."""
    return _scope.get()


def remat(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function that computes the same, of which nothing but its arguments is kept for the way back.

    Args:
        f: a function of arrays, or a layer. What it closes over and the variables it reads have gradients too; what it
            assigns is assigned once.

    Returns:
        function of the same arguments.

    Example:
        >>> import cornu
        >>> class Slow(cornu.layers.Layer):
        ...     def call(self, x):
        ...         return cornu.remat(self.steps)(x)
        ...     def steps(self, x):
        ...         for _ in range(3):
        ...             x = x + 0.1 * cornu.ops.tanh(x)
        ...         return x
        >>> Slow()(cornu.Input((4,))).shape
        (None, 4)
    """

    @functools.wraps(f, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        if user_tensors((args, kwargs)):
            return remat_call((args, kwargs), f)
        return _run(f, args, kwargs)

    return run


@op
def remat_call(arguments: Tree, f: Callable) -> Any:
    """`remat(f)` for `(args, kwargs)`, as a call that a graph can hold."""
    given: Any = arguments
    return _run(f, *given)


def call_rematerialized(layer: Any, mode: RematMode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A layer's `call`, computed again on the way back where its mode says so."""
    if mode.mode == "activations":
        with _activation_again(layer):
            return layer.call(*args, **kwargs)
    if (
        mode.mode == "full"
        or (mode.mode == "list_of_layers" and layer.name in mode.layer_names)
        or (mode.mode == "larger_than" and _output_size(layer, args, kwargs) > mode.output_size_threshold)
    ):
        return _run(layer.call, args, kwargs)
    return layer.call(*args, **kwargs)


_lock = threading.Lock()


@contextlib.contextmanager
def _activation_again(layer: Any) -> Iterator[None]:
    """Have `layer.activation` computed again within the block; several threads may be in it at once."""
    own = vars(layer)
    if own.get("activation") is None:
        yield
        return
    with _lock:
        inside = own.setdefault("_remat_activation", [0, None])
        if inside[0] == 0:
            inside[1] = own["activation"]
            own["activation"] = remat(inside[1])
        inside[0] += 1
    try:
        yield
    finally:
        with _lock:
            inside[0] -= 1
            if inside[0] == 0:
                own["activation"] = inside[1]
                del own["_remat_activation"]


def _output_size(layer: Any, args: Any, kwargs: Any) -> int:
    """How many elements a layer's call gives, from the shapes of its arguments."""

    def spec(leaf: Any) -> Any:
        return to_spec(leaf) if _is_value(leaf) else leaf

    given = tree.map_structure(spec, (args, kwargs))
    with _untouched(), context.abstract(), context.bind([], []):
        outputs = layer._called(*given)
    sizes = [leaf.shape for leaf in tree.leaves(outputs) if isinstance(leaf, Spec)]
    return sum(math.prod(1 if isinstance(size, Dim) else size for size in shape) for shape in sizes)


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """Leave no trace of what layers do in the block: draws, penalties."""
    call = current.get()
    draws = {} if call is None else dict(call.root.draws)
    variables: tuple[ContextVar[Any], ...] = (context.tape, context.on_spec, numbers)
    tokens = [(var, var.set(None)) for var in variables]
    try:
        with _penalties_apart():
            yield
    finally:
        for var, token in tokens:
            var.reset(token)
        if call is not None:
            call.root.draws = draws


@contextlib.contextmanager
def _penalties_apart(told: Any = None) -> Iterator[list[tuple[Any, Any]]]:
    """A list of the penalties that layers add in the block, each with its layer, when the block has ended.

    They are kept nowhere else. `told` is told of the calls of layers in the block.
    """
    call = current.get()
    holders = call.layer._flatten_layers() if call is not None and _with_penalties else []
    before = {id(loss): loss for layer in holders for loss in layer._call_losses}
    called = {} if call is None else {id(call.layer): call.layer}

    def ended(inner: Any, outputs: Any) -> None:
        called[id(inner.layer)] = inner.layer
        if told is not None:
            told(inner, outputs)

    found: list[tuple[Any, Any]] = []
    token = context.on_call.set(ended)
    try:
        yield found
    finally:
        context.on_call.reset(token)
        layers = {id(part): part for layer in called.values() for part in layer._flatten_layers()}
        for layer in layers.values() if _with_penalties else ():
            found += [(layer, loss) for loss in layer._call_losses if id(loss) not in before]
            layer._call_losses[:] = [loss for loss in layer._call_losses if id(loss) in before]


def _is_value(leaf: Any) -> bool:
    """Whether something is an array to differentiate for, rather than host data that is at hand."""
    if isinstance(leaf, Variable):
        return False
    return interpreter_of(leaf) is not None or context.engine_in_force().owns(type(leaf))


def _run(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`f(*args, **kwargs)`, computed again on the way back if there is one."""
    if context.is_abstract() and context.tape.get() is None:
        return f(*args, **kwargs)
    return _Recomputed(f, args, kwargs)()


class _Recomputed:
    """One call of a function that may be called again on the way back, where it must compute the same.

    Args:
        f: the function.
        args: its arguments, in any structure.
        kwargs: those by name.
    """

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.f = f
        self.given = (args, kwargs)
        self.leaves = tree.leaves(self.given)
        self.places = [i for i, leaf in enumerate(self.leaves) if _is_value(leaf)]
        self.values = [self.leaves[i] for i in self.places]
        found = [None if isinstance(value, Spec) else masks.mask_of(value) for value in self.values]
        self.masked = [i for i, mask in enumerate(found) if mask is not None]
        self.masks = [found[i] for i in self.masked]
        for i in self.places:
            self.leaves[i] = None
        self.call = current.get()
        self.draws = {} if self.call is None else dict(self.call.root.draws)
        self.numbers = Numbers(is_compiling(), numbers.get())
        self.outer = context.bindings.get()
        self.bound = {} if self.outer is None else dict(self.outer.values)
        self.held: list[Variable] = []
        self.watcher, self.flag = context.watcher.get(), context.flag.get()
        self.ran = False

    def __call__(self) -> Any:
        """The result, with all that the function did done once."""
        self._bind(self._first_variables())
        found = self._compute()
        if self._bind(self._met()):
            found = self._compute()  # now with the variables that an engine's own autodiff follows
        values = iter(found)
        leaves = list(self.rest)
        for i in self.found_at:
            leaves[i] = next(values)
        for i in self.masked_results:
            masks.set_mask(leaves[i], next(values))
        for variable in self.assigned:
            variable.assign(next(values))
        for layer in self.penalised:
            layer.add_loss(next(values))
        return tree.pack(self.like, leaves)

    def _compute(self) -> Any:
        self.ran = False
        operands = (*self.values, *self.masks)
        tape = context.tape.get()
        if tape is not None:
            return tape.apply(rematerialized, {"operands": operands}, {"f": self.pure})
        return rematerialized(operands, self.pure)

    def pure(self, *values: Any) -> list[Any]:
        """All that the function gives and does, as a list of arrays, for the arrays among its arguments."""
        root = None if self.call is None else self.call.root
        draws = {} if root is None else root.draws
        if root is not None:
            root.draws = dict(self.draws)
        self.numbers.at = 0
        scope = context.Bindings(dict(self.bound))
        kept: list[int] = []
        tokens: list[tuple[ContextVar[Any], Any]] = [
            (context.bindings, context.bindings.set(scope)),
            (masks._kept, masks._kept.set(kept)),
            (numbers, numbers.set(self.numbers)),
            # Who watches every op of a step watches in here too.
            (context.watcher, context.watcher.set(self.watcher if self.flag is not None else context.watcher.get())),
        ]
        try:
            with _penalties_apart(None if self.ran else context.on_call.get()) as penalties:
                result = self._called(values)
            found = self._results(result, scope, penalties)
        finally:
            for var, token in tokens:
                var.reset(token)
            masks.forget(kept)
            if root is not None and self.ran:
                root.draws = draws
        if not self.ran:
            self.ran, self.scope = True, scope
        return found

    def _called(self, values: tuple[Any, ...]) -> Any:
        leaves = list(self.leaves)
        for i, value in zip(self.places, values, strict=False):
            leaves[i] = value
        for i, mask in zip(self.masked, values[len(self.places) :], strict=True):
            masks.set_mask(values[i], mask)
        args, kwargs = tree.pack(self.given, leaves)
        return self.f(*args, **kwargs)

    def _results(self, result: Any, scope: context.Bindings, penalties: list[tuple[Any, Any]]) -> list[Any]:
        leaves = tree.leaves(result)
        places = [i for i, leaf in enumerate(leaves) if _is_value(leaf)]
        marks = [i for i in places if not isinstance(leaves[i], Spec) and masks.mask_of(leaves[i]) is not None]
        found = [leaves[i] for i in places]
        found += [masks.mask_of(leaves[i]) for i in marks]
        found += [scope.values[key] for key in scope.assigned]
        found += [loss for _, loss in penalties]
        if not self.ran:
            self.like = tree.map_structure(lambda _: None, result)
            self.rest = [None if i in places else leaf for i, leaf in enumerate(leaves)]
            self.found_at, self.masked_results = places, marks
            self.assigned = list(scope.assigned.values())
            self.penalised = [layer for layer, _ in penalties]
        return found

    # ------------------------------------------------ variables

    def _first_variables(self) -> list[Variable]:
        """The variables that the function is known to read, outside of a block that binds them."""
        owner = getattr(self.f, "__self__", self.f)
        known = owner.variables if isinstance(owner, Weights) else []
        if self.outer is not None:
            known = [variable for variable in known if variable.is_seed]
        return [*known, random.global_generator().state]

    def _met(self) -> list[Variable]:
        """The variables that the function read and that had no value here."""
        met = list(self.scope.missed.values())
        if self.outer is not None:
            self.outer.missed.update(self.scope.missed)
        return met

    def _bind(self, variables: list[Variable]) -> bool:
        """Give variables the values they have now for every time the function is called; whether one has a home."""
        engine = context.engine_in_force()
        homes = False
        for variable in variables:
            if id(variable) in self.bound:
                continue
            self.held.append(variable)
            if self.outer is not None or context.is_abstract():
                value = variable._under(engine)
            else:
                homes = homes or variable.find_home(engine) is not None
                with context.autocast(None):
                    value = engine.own(variable.value)
            self.bound[id(variable)] = value
        return homes
