"""`RNN`: a cell over time, as one `ops.scan`. `StackedRNNCells`: several cells as one."""

from collections.abc import Callable
from typing import Any, TypeAlias

from cornu import ops
from cornu.core import context, dtypes, tree
from cornu.core.dims import Dim, shape_text
from cornu.core.errors import ArgumentError, BuildError, DtypeError, ShapeError
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines.registry import engine
from cornu.layers._arguments import shapes_to_specs, signature_of
from cornu.layers.base import InputSpec, Layer
from cornu.layers.recurrent._shared import build_inside, fresh, swapped, walk
from cornu.layers.recurrent.cells import GRUCell, LSTMCell, Noise, RecurrentCell, SimpleRNNCell, one_noise
from cornu.layers.recurrent.whole import is_standard, over_sequence
from cornu.ops._declare import dtype_of, shape_of, to_spec
from cornu.ops._rules import require_equal

__all__ = ["RNN", "StackedRNNCells"]

Step: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]

# Cells whose output is their first state.
_SHOWN = (SimpleRNNCell, LSTMCell, GRUCell)


# ---------------------------------------------------------------- cells, one or many


def _check_cell(owner: str, cell: Any) -> None:
    for name, words in (("call", "call(inputs, states)"), ("state_size", "state_size, a number or a list of numbers")):
        if not hasattr(cell, name):
            raise ArgumentError(
                f"{owner} got the cell {cell!r:.80} of type {type(cell).__name__}, which has no {name}",
                f"a cell with {words}",
                "for a layer over whole sequences use it directly; cornu.layers.LSTMCell is a cell, LSTM is not",
            )


def _output_size(cell: Any) -> Any:
    found = getattr(cell, "output_size", None)
    return tree.leaves(cell.state_size)[0] if found is None else found


def _initial_state(cell: Any, batch: Any, dtype: str) -> Any:
    """The first state of a cell: its own word, or zeros of its sizes."""
    own = getattr(cell, "get_initial_state", None)
    if own is not None:
        return own(batch_size=batch)
    dtype = getattr(cell, "compute_dtype", dtype)
    return tree.map_structure(lambda size: ops.zeros((batch, size), dtype=dtype), cell.state_size)


def _called(cell: Any, training: bool) -> Step:
    """A step of any cell, through its own call."""
    takes = isinstance(cell, Layer) and signature_of(type(cell)).takes_training
    kwargs = {"training": training} if takes else {}
    function = cell if callable(cell) else cell.call

    def step(inputs: Any, states: Any) -> tuple[Any, Any]:
        result = function(inputs, states, **kwargs)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise ArgumentError(
                f"the cell {type(cell).__name__} gave {result!r:.80}", "a pair (output, new_states) from its call"
            )
        output, after = result
        return output, after if tree.is_nested(after) else [after]

    return step


def _is_plain(layer: Layer, kind: type, dtype: str) -> bool:
    """Whether a layer's call does what `kind` says and no more, so that its parts may be used instead of it."""
    cls = type(layer)
    plain = cls.call is kind.call and cls.__call__ is Layer.__call__  # type: ignore[attr-defined]
    return plain and layer.activity_regularizer is None and layer.autocast and layer.compute_dtype == dtype


def _one_step(cell: Any, batch: Any, training: bool, dtype: str) -> tuple[Step, bool]:
    """A step of a cell, and whether it has no effect but its result."""
    if isinstance(cell, RecurrentCell) and _is_plain(cell, RecurrentCell, dtype):
        noise = cell.noise(batch, training)
        return lambda x, states: cell.advance(cell.project(x, noise), states, noise), True
    if isinstance(cell, StackedRNNCells) and _is_plain(cell, StackedRNNCells, dtype):
        found = [_one_step(part, batch, training, dtype) for part in cell.cells]
        return _through([step for step, _ in found]), all(quiet for _, quiet in found)
    return _called(cell, training), False


def _all_steps(cell: Any, xs: Any, training: bool, dtype: str) -> tuple[Any, Step, bool]:
    """What to walk over, a step of it, and whether the step is quiet.

    The part of a house cell that depends on the inputs alone is computed here for all time steps, as one product.
    """
    batch = ops.shape(xs)[1]
    if isinstance(cell, RecurrentCell) and _is_plain(cell, RecurrentCell, dtype):
        noise = cell.noise(batch, training)
        return cell.project(xs, noise), lambda x, states: cell.advance(x, states, noise), True
    if isinstance(cell, StackedRNNCells) and _is_plain(cell, StackedRNNCells, dtype):
        xs, first, quiet = _all_steps(cell.cells[0], xs, training, dtype)
        found = [_one_step(part, batch, training, dtype) for part in cell.cells[1:]]
        return xs, _through([first, *(step for step, _ in found)]), quiet and all(quiet for _, quiet in found)
    return xs, _called(cell, training), False


def _through(steps: list[Step]) -> Step:
    """One step of cells on top of each other; each has its own states."""

    def step(inputs: Any, states: Any) -> tuple[Any, Any]:
        new = []
        for one, state in zip(steps, states, strict=True):
            nested = tree.is_nested(state)
            inputs, after = one(inputs, state if nested else [state])
            new.append(after if nested or not isinstance(after, (list, tuple)) else after[0])
        return inputs, new

    return step


class StackedRNNCells(Layer):
    """Cells on top of each other, as one cell: the output of each is the input of the next.

    Args:
        cells: the cells, the lowest first.

    Inputs `(batch, features)` and a list of each cell's states; output `(batch, output size of the last)`.

    Example:
        >>> import cornu
        >>> cells = StackedRNNCells([LSTMCell(8), GRUCell(4)])
        >>> RNN(cells)(cornu.Input((None, 3))).shape
        (None, 4)
    """

    def __init__(self, cells: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(cells, (list, tuple)) or not cells:
            raise ArgumentError(f"StackedRNNCells got {cells!r:.80}", "a list of one cell or more")
        for cell in cells:
            _check_cell("StackedRNNCells", cell)
        self.cells = list(cells)

    @property
    def state_size(self) -> list[Any]:
        """The cells' state sizes."""
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> Any:
        """The last cell's output size."""
        return _output_size(self.cells[-1])

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """The cells' initial states."""
        return [_initial_state(cell, batch_size, self.compute_dtype) for cell in self.cells]

    def build(self, input_shape: Any) -> None:
        """Build the cells, each for the output of the one below."""
        shape = tuple(input_shape)
        for cell in self.cells:
            build_inside(self, cell, shape)
            size = _output_size(cell)
            shape = (shape[0], *(size if isinstance(size, (list, tuple)) else (size,)))
        self.built = True

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step of all cells.

        Args:
            inputs: `(batch, features)`.
            states: a list of each cell's states.
            training: whether dropout works.

        Returns:
            the last cell's output, and the list of the cells' next states.
        """
        return _through([_called(cell, training) for cell in self.cells])(inputs, states)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Stacked cells made from a config, with cells of their own."""
        return super().from_config(fresh(dict(config)))


# ---------------------------------------------------------------- over time


class RNN(Layer):
    """A cell over time: the state it gives at one step is what it gets at the next.

    Args:
        cell: an object with `state_size` and `call(inputs, states) -> (output, new_states)`, or a list of them (which
            are stacked). It may have `output_size` (by default the first state size) and
            `get_initial_state(batch_size)` (by default zeros). `states` is a list; `state_size` a number, or a list of
            numbers and structures of them.
        return_sequences: whether to give the outputs of all steps instead of the last.
        return_state: whether to give the last states too.
        go_backwards: whether to walk from the end; the outputs are then in the order of the walk.
        stateful: whether each batch begins with the states that the last one ended with.
        unroll: whether the loop is written out step by step; the number of steps must be known.
        zero_output_for_mask: whether the output at masked steps is 0 instead of the output before.

    Input `(batch, time, ...)`; output `(batch, output_size)`, or `(batch, time, output_size)` with `return_sequences`;
    with `return_state` a tuple of the output and the states.

    A masked step leaves the states as they are and repeats the output before it. The output's mask, with
    `return_sequences`, is the input's.

    Raises:
        ArgumentError: if the cell has no `call` or `state_size`.

    Example:
        >>> import cornu
        >>> class Sum(cornu.layers.Layer):
        ...     state_size = 3
        ...     def call(self, inputs, states):
        ...         total = states[0] + inputs
        ...         return total, [total]
        >>> RNN(Sum(), return_sequences=True)(cornu.Input((None, 3))).shape
        (None, None, 3)
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell, dtype=kwargs.get("dtype"))
        _check_cell(type(self).__name__, cell)
        size = cell.state_size
        if not isinstance(size, (int, list, tuple)) or not all(isinstance(leaf, int) for leaf in tree.leaves(size)):
            raise ArgumentError(
                f"{type(self).__name__} got a cell with state_size={size!r}",
                "a number, or a list of numbers or structures of them",
            )
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.states: Any = None
        self.supports_masking = True
        self.input_spec = InputSpec(min_ndim=2)

    @property
    def state_size(self) -> list[Any]:
        """The sizes of the states, as a list."""
        size = self.cell.state_size
        return [size] if isinstance(size, int) else list(size)

    # ------------------------------------------------ building, states

    def build(self, sequences_shape: Any) -> None:
        """Build the cell, and make the states that are kept between batches."""
        batch, _, *rest = sequences_shape
        build_inside(self, self.cell, (batch, *rest))
        self._build_in_call((batch, *rest))
        if self.stateful and self.states is None:
            if batch is None:
                raise BuildError(
                    f"{self.name!r} is stateful and got an input of shape {tuple(sequences_shape)}, of no known batch",
                    "a known batch size: each row's state is kept for the same row of the next batch",
                    "give it in Input(shape=..., batch_size=...) and to fit(..., batch_size=...)",
                )
            self._make_states(batch)
        self.built = True

    def _build_in_call(self, shape: Any) -> None:
        """Make what a cell makes only when called, before there is a loop around it."""
        if not isinstance(self.cell, Layer) or all(layer.built for layer in self.cell._flatten_layers()):
            return
        with context.abstract():
            inputs = shapes_to_specs(shape, self.compute_dtype)
            states = tree.map_structure(_as_spec, self.get_initial_state(inputs.shape[0]))
            _called(self.cell, False)(inputs, states)
        self.cell._clear_losses()

    def _make_states(self, batch: int) -> None:
        """Variables for the states, one for each array of the initial state."""
        with context.abstract():
            specs = tree.map_structure(_as_spec, self.get_initial_state(batch))
        made = []
        for i, spec in enumerate(tree.leaves(specs)):
            variable = Variable(
                lambda shape, dtype, i=i: self._first_states(batch)[i],
                shape=spec.shape,
                dtype=self.variable_dtype if spec.dtype in dtypes.FLOATS else spec.dtype,
                trainable=False,
                name="rnn_state",
            )
            variable.path = f"{self.path}/rnn_state"
            variable.is_seed = True  # type: ignore[attr-defined]  # carried through training, no weight in files
            made.append(variable)
        self.states = tree.pack(specs, made)

    def _first_states(self, batch: int) -> list[Any]:
        """The arrays of the initial state, computed now, on the host."""
        token = context.bindings.set(None)
        try:
            with context.abstract(False), context.autocast(None), engine("numpy"):
                return [ops.convert_to_numpy(leaf) for leaf in tree.leaves(self.get_initial_state(batch))]
        finally:
            context.bindings.reset(token)

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        """The states a sequence begins with, as a list."""
        states = _initial_state(self.cell, batch_size, self.compute_dtype)
        return list(states) if isinstance(states, (list, tuple)) else [states]

    def reset_state(self, states: Any = None) -> None:
        """Begin anew: set the states kept between batches to the initial ones.

        Args:
            states: arrays to set them to instead.

        Raises:
            ShapeError: if there are too few or too many, or one has another shape.
        """
        if self.states is None:
            return
        kept = tree.leaves(self.states)
        values = self._first_states(shape_of(kept[0])[0]) if states is None else tree.leaves(states)
        if len(values) != len(kept):
            raise ShapeError(f"reset_state of {self.name!r} got {len(values)} arrays", f"{len(kept)} arrays")
        for variable, value in zip(kept, values, strict=True):
            variable.assign(value)

    def reset_states(self, states: Any = None) -> None:
        """`reset_state`, by its other name."""
        self.reset_state(states)

    def _begin(self, initial_state: Any, batch: Any) -> list[Any]:
        """The states before the first step, floats in the cell's compute dtype."""
        dtype = getattr(self.cell, "compute_dtype", self.compute_dtype)
        if initial_state is None:
            states = self.states if self.stateful else self.get_initial_state(batch)
        else:
            states = self._fitted(initial_state, batch)

        def ready(state: Any) -> Any:
            return ops.convert_to_tensor(state, dtype=dtype if dtype_of(state) in (*dtypes.FLOATS, "float") else None)

        return tree.map_structure(ready, list(states))

    def _fitted(self, given: Any, batch: Any) -> list[Any]:
        """An initial state the caller gave, in the structure of the cell's own.

        Raises:
            ShapeError: if the number of arrays or one of their shapes is wrong.
        """
        wanted = self.get_initial_state(batch)
        states = list(given) if isinstance(given, (list, tuple)) else [given]
        leaves, others = tree.leaves(states), tree.leaves(wanted)
        if len(leaves) != len(others) or any(leaf is None for leaf in leaves):
            raise ShapeError(
                f"{self.name!r} got an initial_state of {sum(leaf is not None for leaf in leaves)} arrays",
                f"{len(others)}, of shapes " + ", ".join(shape_text(shape_of(other)) for other in others),
                "give one array for each state of the cell (an LSTM has two: the output and the carry)",
            )
        for i, (leaf, other) in enumerate(zip(leaves, others, strict=True)):
            what = f"array {i} of the initial_state of {self.name!r}"
            have, want = shape_of(leaf), shape_of(other)
            if len(have) != len(want):
                raise ShapeError(f"{what} has shape {shape_text(have)}", f"shape {shape_text(want)}")
            for a, b in zip(have, want, strict=True):
                require_equal(a, b, f"{what}, of shape {shape_text(have)} where {shape_text(want)} is due")
        flat = not any(tree.is_nested(state) for state in states)
        return tree.pack(wanted, leaves) if flat and not tree.same_structure(states, wanted) else states

    # ------------------------------------------------ the call

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Walk over time.

        Args:
            sequences: `(batch, time, ...)`.
            initial_state: arrays to begin with, one for each state; by default the cell's own (zeros).
            mask: `(batch, time)`, true where a step counts.
            training: whether dropout works.

        Returns:
            the output, or a tuple of the output and the last states.

        Raises:
            ShapeError: if there are no time steps, or their number is unknown with `unroll`.
        """
        batch, time = ops.shape(sequences)[:2]
        self._check_sizes(batch, time)
        xs = swapped(ops.drop_mask(sequences))
        counts = self._counts(mask, batch, time)
        states = self._begin(initial_state, batch)
        noisy = self._noisy_cells() if training else []
        with one_noise(noisy, batch):
            noise = self._noise_over_sequence(xs, states, counts, training)
            if noise is not None:
                output, states = over_sequence(self.cell, noise, xs, states, self.go_backwards, self.return_sequences)
            else:
                xs, step, quiet = _all_steps(self.cell, xs, training, self.compute_dtype)
                output, states = self._walk(xs, counts, states, step, quiet, training, time)
        output = ops.cast(output, self.compute_dtype)
        if self.return_sequences:
            output = swapped(ops.flip(output, axis=0) if self.go_backwards else output)
        states = tree.map_structure(
            lambda s: ops.cast(s, self.compute_dtype) if dtype_of(s) in dtypes.FLOATS else s, states
        )
        if self.stateful:
            for variable, state in zip(tree.leaves(self.states), tree.leaves(states), strict=True):
                variable.assign(state)
        return (output, *states) if self.return_state else output

    def _noise_over_sequence(self, xs: Any, states: Any, counts: Any, training: bool) -> Noise | None:
        """The dropout with which `over_sequence` can take the place of a loop; `None` if it cannot."""
        cell = self.cell
        if counts is not None or self.unroll or not isinstance(cell, RecurrentCell):
            return None
        if not _is_plain(cell, RecurrentCell, self.compute_dtype):
            return None
        noise = cell.noise(ops.shape(xs)[1], training)
        return noise if is_standard(cell, noise, xs, states) else None

    def _check_sizes(self, batch: Any, time: Any) -> None:
        if not isinstance(time, Dim) and time == 0:
            raise ShapeError(f"{self.name!r} got a sequence of no time steps", "one time step or more")
        if self.unroll and isinstance(time, Dim):
            raise ShapeError(
                f"{self.name!r} has unroll=True and got {time.expression!r} time steps, which is not known",
                "a known number of time steps",
                "give it in Input(shape=(time, features)), or leave unroll=False",
            )
        if self.stateful:
            kept = shape_of(tree.leaves(self.states)[0])[0]
            if isinstance(batch, Dim) or batch != kept:
                raise ShapeError(
                    f"{self.name!r} is stateful with states for {kept} rows and got a batch of {_text(batch)}",
                    f"batches of {kept} rows",
                    f"Input(shape=..., batch_size={kept}), fit(..., batch_size={kept}), and rows in multiples of it",
                )

    def _noisy_cells(self) -> list[RecurrentCell]:
        layers = self.cell._flatten_layers() if isinstance(self.cell, Layer) else []
        cells = [layer for layer in layers if isinstance(layer, RecurrentCell) and layer.built]
        return [cell for cell in cells if cell.dropout or cell.recurrent_dropout]

    def _counts(self, mask: Any, batch: Any, time: Any) -> Any:
        """The mask as booleans `(time, batch)`, or `None`."""
        mask = next((leaf for leaf in tree.leaves(mask) if leaf is not None), None)
        if mask is None:
            return None
        shape = shape_of(mask)
        if len(shape) < 2:
            raise ShapeError(f"{self.name!r} got a mask of shape {shape_text(shape)}", "shape (batch, time)")
        require_equal(shape[0], batch, f"the batch of the mask and of the input of {self.name!r}")
        require_equal(shape[1], time, f"the time steps of the mask and of the input of {self.name!r}")
        mask = ops.cast(ops.drop_mask(mask), "bool")
        if len(shape) > 2:
            mask = ops.any(mask, axis=tuple(range(2, len(shape))))
        return swapped(mask)

    def _walk(
        self, xs: Any, counts: Any, states: Any, cell_step: Step, quiet: bool, training: bool, time: Any
    ) -> tuple[Any, Any]:
        """The output (of all steps, time first, or of the last) and the last states."""
        masked, zero = counts is not None, self.zero_output_for_mask
        shown = quiet and self._output_is_state()
        collect = self.return_sequences or not shown or (masked and zero)
        follow = masked and not zero and not shown
        last = self._output_before(states, xs) if follow else ()

        def step(carry: Any, x: Any) -> Any:
            states, last = carry
            x, count = x
            output, after = cell_step(x, states)
            after = self._like(states, after)
            if masked:
                after = tree.map_structure(lambda new, old: _chosen(count, new, old), after, states)
                before = last if follow else ops.zeros_like(output) if zero else self._shown_state(states)
                if follow and not _fits(shape_of(output), shape_of(before)):
                    raise ShapeError(
                        f"the cell of {self.name!r} gave an output of shape {shape_text(shape_of(output))}",
                        f"shape {shape_text(shape_of(before))}, as its output_size or state_size says",
                        "set output_size in the cell",
                    )
                output = _chosen(count, output, before)
                if follow:
                    last = output = ops.cast(output, dtype_of(last))
            return (after, last), (output if collect else ())

        (states, _), outputs = walk(
            self,
            None if quiet else self.cell,
            step,
            (states, last),
            (xs, counts if masked else ()),
            time,
            training=training,
            reverse=self.go_backwards,
            unroll=self.unroll,
        )
        if not collect:
            return self._shown_state(states), states
        return (outputs if self.return_sequences else ops.get_item(outputs, 0 if self.go_backwards else -1)), states

    def _output_is_state(self) -> bool:
        cell = self.cell.cells[-1] if isinstance(self.cell, StackedRNNCells) else self.cell
        return type(cell) in _SHOWN

    def _shown_state(self, states: Any) -> Any:
        """The first state, of the last cell if there are many."""
        state = states[-1] if isinstance(self.cell, StackedRNNCells) else states[0]
        return tree.leaves(state)[0]

    def _output_before(self, states: Any, xs: Any) -> Any:
        """What a masked first step repeats: the initial state if its shape is the output's (as in Keras), or zeros."""
        size = _output_size(self.cell)
        shape = (ops.shape(xs)[1], *(size if isinstance(size, (list, tuple)) else (size,)))
        state = self._shown_state(states)
        if _fits(shape_of(state), shape) and dtype_of(state) in dtypes.FLOATS:
            return state
        return ops.zeros(shape, dtype=getattr(self.cell, "compute_dtype", self.compute_dtype))

    def _like(self, before: Any, after: Any) -> Any:
        """New states in the structure and dtypes of those before.

        Raises:
            ShapeError: if the cell gave another number of states, or other shapes.
        """
        old, new = tree.leaves(before), tree.leaves(after)
        if len(old) != len(new):
            raise ShapeError(
                f"the cell of {self.name!r} got {len(old)} states and gave {len(new)}",
                "as many as it gets",
                "return (output, [state, ...]) with one array for each state of state_size",
            )
        return tree.pack(before, [self._as_before(a, b) for a, b in zip(old, new, strict=True)])

    def _as_before(self, old: Any, new: Any) -> Any:
        if not _fits(shape_of(new), shape_of(old)):
            raise ShapeError(
                f"the cell of {self.name!r} got a state of shape {shape_text(shape_of(old))} "
                f"and gave {shape_text(shape_of(new))}",
                "states whose shapes stay",
                "set state_size to the sizes of the new states",
            )
        have, want = dtype_of(new), dtype_of(old)
        if have == want:
            return new
        if want not in dtypes.FLOATS and have in (*dtypes.FLOATS, "float"):
            raise DtypeError(
                f"the cell of {self.name!r} got a state of dtype {want} and gave {have}",
                "states whose dtypes stay",
                "give get_initial_state the dtype of the new states",
            )
        return ops.cast(new, want)

    def compute_mask(self, sequences: Any, previous_mask: Any = None) -> Any:
        """The input's mask if the output has time steps; the states have none."""
        mask = tree.leaves(previous_mask)[0] if self.return_sequences else None
        return [mask, *(None for _ in self.state_size)] if self.return_state else mask

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer made from a config, with a cell of its own."""
        return super().from_config(fresh(dict(config)))


def _as_spec(value: Any) -> Spec:
    spec = to_spec(value)
    return Spec(spec.shape, spec.dtype)


def _text(size: Any) -> str:
    return size.expression if isinstance(size, Dim) else str(size)


def _fits(have: tuple[Any, ...], want: tuple[Any, ...]) -> bool:
    """Whether two shapes agree as far as they are known."""
    if len(have) != len(want):
        return False
    return all(isinstance(a, Dim) or isinstance(b, Dim) or a == b for a, b in zip(have, want, strict=True))


def _chosen(count: Any, new: Any, old: Any) -> Any:
    """`new` for the rows that count, `old` for the others; `count` is `(batch,)`, the arrays `(batch, ...)`."""
    rank = len(shape_of(new))
    return ops.where(ops.reshape(count, (ops.shape(count)[0], *(1,) * (rank - 1))), new, old)
