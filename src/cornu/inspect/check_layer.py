"""`check_layer`: does a layer keep its promises? A report that a person can read, with the line to mend."""

import inspect
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cornu import dtype_policies, saving
from cornu.autodiff import value_and_grad
from cornu.core import context, dtypes, tree
from cornu.core.dims import evaluate, shape_text
from cornu.core.errors import CornuError, MaskWarning, SavingError, is_user_file
from cornu.core.spec import Spec
from cornu.core.variable import Variable
from cornu.engines import registry as engines
from cornu.graph.symbolic import SymbolicTensor
from cornu.layers._arguments import signature_of
from cornu.layers.base import Layer
from cornu.layers.input_layer import Input
from cornu.models import Model
from cornu.ops import arithmetic as _a
from cornu.ops import elementwise as _e
from cornu.ops import reduction as _r
from cornu.ops._declare import to_spec
from cornu.ops.creation import convert_to_numpy
from cornu.random import at_step

__all__ = ["Report", "check_layer"]

_NAMES = {
    "inference": "inference is repeatable",
    "shape": "inferred shape and dtype are those of the result",
    "config": "it can be made again from its config",
    "unknown sizes": "it builds with unknown batch and time, and runs with any",
    "file": "saved and loaded it gives the same result",
    "engines": "the same numbers on every installed engine",
    "compiled": "the same numbers compiled and not",
    "training": "in training the same numbers, and the same changes of state, on every engine",
    "batch": "rows do not influence each other in inference",
    "gradient": "gradients are finite and agree with finite differences",
    "mask": "a mask is carried or used, and hidden positions stay hidden",
}

# What cannot be judged once another promise is broken.
_NEEDS = {
    "shape": ("inference",),
    "config": ("inference",),
    "file": ("inference", "config", "shape", "unknown sizes"),
    "unknown sizes": ("inference", "config", "shape"),
    "engines": ("inference",),
    "compiled": ("inference",),
    "batch": ("inference", "unknown sizes"),
    "training": ("inference", "engines"),
    "gradient": ("inference", "config", "shape", "engines", "compiled"),
    "mask": ("inference", "shape", "unknown sizes"),
}

# Where a broken promise is mended: the first of these methods that the layer's own class writes.
_MENDED_IN = {
    "config": ("get_config", "from_config", "__init__"),
    "file": ("get_config", "save_own_variables", "__init__"),
    "mask": ("compute_mask", "call"),
    "unknown sizes": ("call", "build"),
}


class Report:
    """What `check_layer` found.

    Attributes:
        layer: the layer's name and class.
        rows: for each promise its name, `"kept"`, `"broken"` or `"does not apply"`, and the details.
        where: file and line of the layer's `call`.
    """

    def __init__(self, layer: str, where: str) -> None:
        self.layer = layer
        self.where = where
        self.rows: list[tuple[str, str, str]] = []

    @property
    def ok(self) -> bool:
        """Whether no promise is broken."""
        return not self.broken

    @property
    def broken(self) -> dict[str, str]:
        """The broken promises, with details."""
        return {name: detail for name, status, detail in self.rows if status == "broken"}

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        signs = {"kept": "  ok    ", "broken": "  BROKEN", "does not apply": "  -     "}
        lines = [f"{self.layer}, at {self.where}"]
        for name, status, detail in self.rows:
            lines.append(f"{signs[status]} {name}: {_NAMES[name]}")
            if status == "broken":
                lines += [f"           {line}" for line in detail.splitlines()]
            elif status == "does not apply":
                lines.append(f"           not checked: {detail.splitlines()[0] if detail else ''}")
        lines.append("all promises kept" if self.ok else f"{len(self.broken)} broken: {', '.join(self.broken)}")
        return "\n".join(lines)

    __repr__ = __str__


class _Skip(Exception):
    """A promise that does not apply to this layer."""


def check_layer(
    layer: Layer,
    sample: Any,
    *,
    engines: list[str] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    **arguments: Any,
) -> Report:
    """Check whether a layer keeps its promises.

    Args:
        layer: the layer; it is built if it is not yet, and left as it is otherwise.
        sample: a value for its first argument: an array with at least two rows, or a structure of them.
        engines: names of engines to compare; by default all that are installed.
        rtol: relative difference allowed.
        atol: absolute difference allowed.
        arguments: further arguments of the call: arrays (or lists and dicts of them) with the same rows, or plain
            values.

    Returns:
        a `Report`; it is true if no promise is broken, and prints as a table.

    Example:
        >>> import cornu, numpy as np
        >>> report = cornu.check_layer(cornu.layers.Dense(3), np.ones((4, 2), "float32"), engines=["numpy"])
        >>> report.ok
        True
    """
    check = _Check(layer, sample, engines or _installed(), rtol, atol, arguments)
    report = Report(f"{layer.name} ({type(layer).__name__})", _where(type(layer), "call"))
    for name, test in check.tests():
        blocked = [need for need in _NEEDS.get(name, ()) if need in report.broken]
        if blocked:
            report.rows.append((name, "does not apply", f"{blocked[0]!r} is broken"))
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MaskWarning)
                test()
            report.rows.append((name, "kept", ""))
        except _Skip as reason:
            report.rows.append((name, "does not apply", str(reason)))
        except AssertionError as error:
            report.rows.append((name, "broken", f"{str(error).strip()}\nto mend: {_mended_at(type(layer), name)}"))
        except Exception as error:
            report.rows.append(
                (name, "broken", f"{_told(error)}\nto mend: {_line_of(error) or _mended_at(type(layer), name)}")
            )
    return report


def _installed() -> list[str]:
    return engines.available()


def _where(cls: type, method: str) -> str:
    """File and line of a method."""
    try:
        function = inspect.unwrap(getattr(cls, method))
        return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
    except (OSError, TypeError, AttributeError):
        return "source not found"


def _mended_at(cls: type, promise: str) -> str:
    """The method to look at for a broken promise."""
    for method in (*_MENDED_IN.get(promise, ()), "call"):
        owner = next((base for base in cls.__mro__ if method in vars(base)), None)
        if owner is not None and (owner is cls or method == "call" or not owner.__module__.startswith("cornu.")):
            return f"{_where(cls, method)}, {cls.__name__}.{method}"
    return _where(cls, "call")


def _line_of(error: BaseException) -> str | None:
    """The innermost line of the user's own files in an error's trace."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if is_user_file(frame.filename)]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own and own[-1].name not in _CALLERS else None


# Functions whose line says nothing of the layer.
_CALLERS = {"<module>"}


def _told(error: Exception) -> str:
    """An error by kind and words; an error of Cornu's tells where by itself."""
    return f"{type(error).__name__}: {error}"


class _Check:
    """The tests of one layer on one sample.

    The sample is a dict: the first argument under `""`, further array arguments under their names.
    """

    def __init__(
        self, layer: Layer, sample: Any, names: list[str], rtol: float, atol: float, arguments: dict[str, Any]
    ) -> None:
        self.layer = layer
        arrays = {name: value for name, value in arguments.items() if _holds_arrays(value)}
        self.sample = tree.map_structure(np.array, {"": sample, **arrays})
        self.arguments = {name: value for name, value in arguments.items() if name not in arrays}
        self.engines = names
        self.rtol, self.atol = rtol, atol
        self.signature = signature_of(type(layer))
        self.rows = min((leaf.shape[0] for leaf in tree.leaves(self.sample) if leaf.ndim), default=0)

    def tests(self) -> list[tuple[str, Callable[[], None]]]:
        """All tests by name, those first on which others rest."""
        return [
            ("inference", self.inference),
            ("shape", self.shape),
            ("config", self.config),
            ("unknown sizes", self.unknown),
            ("file", self.file),
            ("engines", self.agree),
            ("compiled", self.compiled),
            ("training", self.training),
            ("batch", self.batch),
            ("gradient", self.gradient),
            ("mask", self.mask),
        ]

    # ------------------------------------------------ parts

    def run(self, layer: Any = None, sample: Any = None, engine: str = "numpy") -> list[np.ndarray]:
        """The outputs in inference, on an engine, as host arrays."""
        with engines.engine(engine), np.errstate(all="ignore"):
            # Fresh arrays: what a layer does to its input, or notes about it, does not reach the next run.
            given = tree.map_structure(np.array, self.sample if sample is None else sample)
            result = layer(given) if isinstance(layer, _Made) else self.call(layer or self.layer, given)
            return [np.asarray(convert_to_numpy(leaf)) for leaf in tree.leaves(result)]

    def call(self, layer: Any, sample: Any, training: bool = False) -> Any:
        """A call in inference (or training)."""
        given = dict(sample)
        first = given.pop("")
        return layer(first, **given, **self.arguments, training=training)

    def model(self, layer: Any, unknown_time: bool = False) -> Any:
        """A model that holds a layer, with inputs like the sample."""
        inputs = self.inputs(unknown_time)
        return _Made(Model(inputs, self.call(layer, inputs)))

    def same(self, a: list[np.ndarray], b: list[np.ndarray], what: str) -> None:
        """Demand equal outputs."""
        assert len(a) == len(b), f"{what}: {len(a)} and {len(b)} outputs"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            place = f"{what}, output {i}" if len(a) > 1 else what
            assert x.shape == y.shape, f"{place}: shapes {x.shape} and {y.shape}"
            x, y = (v.astype("float64") for v in (x, y))
            close = np.isclose(x, y, self.rtol, self.atol, equal_nan=True)
            if not close.all():
                at = tuple(int(i) for i in np.argwhere(~close)[0])
                raise AssertionError(
                    f"{place}: {int((~close).sum())} of {close.size} numbers differ, first at {at}: "
                    f"{x[at]:.6g} and {y[at]:.6g}"
                )

    def inputs(self, unknown_time: bool) -> Any:
        """Symbolic inputs in the shape of the sample, the batch unknown."""

        def one(leaf: np.ndarray) -> SymbolicTensor:
            sizes: list[Any] = list(leaf.shape[1:])
            if unknown_time and leaf.ndim >= 3:
                sizes[0] = f"time{sizes[0]}"
            return Input(tuple(sizes), dtype=dtypes.standardize_dtype(leaf.dtype))

        return tree.map_structure(one, self.sample)

    def remade(self, dtype: str | None = None) -> Any:
        """Another layer from the config, with the same weights.

        Raises:
            SavingError: if the config cannot be written down.
        """
        if not self.layer.built:
            self.run()
        cls = type(self.layer)
        form = saving.serialize_keras_object(self.layer)
        before = dtype_policies.dtype_policy()
        try:
            if dtype is not None:
                form = _with_dtype(form, dtype)
                dtype_policies.set_dtype_policy(dtype)
            made = saving.deserialize_keras_object(form, {cls.__name__: cls})
            with engines.engine("numpy"):
                self.call(made, _in_dtype(self.sample, dtype))
        finally:
            if dtype is not None:
                dtype_policies.set_dtype_policy(None if before.name == dtypes.floatx() else before)
        self.set_weights(made, dtype)
        return made

    def set_weights(self, made: Any, dtype: str | None = None) -> None:
        """Give a remade layer the weights of the layer."""
        ours, theirs = self.layer.weights, made.weights
        listed = [", ".join(f"{w.name} {shape_text(w.shape)}" for w in part) or "none" for part in (theirs, ours)]
        assert [w.shape for w in theirs] == [w.shape for w in ours], (
            f"made again it has the weights {listed[0]}; the layer has {listed[1]}"
        )
        made.set_weights([w.astype(dtype) if dtype and w.dtype.kind == "f" else w for w in self.layer.get_weights()])

    def copy(self, dtype: str | None = None) -> Any:
        """`remade`, for tests of something else."""
        try:
            return self.remade(dtype)
        except SavingError as error:
            raise _Skip(f"its config cannot be written down ({error.got})") from None

    # ------------------------------------------------ the promises

    def inference(self) -> None:
        """Call twice."""
        self.same(self.run(), self.run(), "two calls in inference")

    def shape(self) -> None:
        """Compare inferred Specs with results."""
        specs = tree.map_structure(lambda leaf: Spec(leaf.shape, dtypes.standardize_dtype(leaf.dtype)), self.sample)
        with context.abstract():
            inferred = [to_spec(leaf) for leaf in tree.leaves(self.call(self.layer, specs))]
        found = self.run()
        assert len(inferred) == len(found), f"{len(inferred)} outputs inferred, {len(found)} given"
        for spec, value in zip(inferred, found, strict=True):
            assert spec.shape == value.shape, f"inferred {shape_text(spec.shape)}, got {value.shape}"
            assert spec.dtype == value.dtype.name, f"inferred dtype {spec.dtype}, got {value.dtype}"
        if type(self.layer).compute_output_shape is not Layer.compute_output_shape and len(self.sample) == 1:
            stated = self.layer.compute_output_shape(tree.map_structure(lambda leaf: leaf.shape, self.sample[""]))
            if len(found) == 1 and not any(isinstance(part, (list, tuple, dict)) for part in stated):
                fits = len(stated) == found[0].ndim and all(
                    a is None or a == b for a, b in zip(stated, found[0].shape, strict=True)
                )
                assert fits, f"compute_output_shape says {tuple(stated)}, the result is {found[0].shape}"

    def config(self) -> None:
        """Make it again."""
        try:
            made = self.remade()
        except SavingError:  # which `file` reports
            made = type(self.layer).from_config(self.layer.get_config())
            with engines.engine("numpy"):
                self.call(made, self.sample)
            self.set_weights(made)
        self.same(self.run(made), self.run(), "made again from its config")

    def file(self) -> None:
        """Save and load a model that holds it."""
        model = self.model(self.remade())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layer.keras"
            model.model.save(path)
            loaded = saving.load_model(path, {type(self.layer).__name__: type(self.layer)})
        self.same(self.run(_Made(loaded)), self.run(model), "loaded from a file")

    def unknown(self) -> None:
        """Build with unknown sizes and compare for several."""
        if self.rows < 2:
            raise _Skip("the sample has fewer than two rows")
        layer = self.copy()
        try:
            model = self.model(layer, unknown_time=True)
            note = None
        except Exception as error:
            model = self.model(layer)
            note = f"time must be known ({str(error).splitlines()[0]}); the batch may be unknown"
        whole = self.run(model)
        sizes = {f"time{leaf.shape[1]}": leaf.shape[1] for leaf in tree.leaves(self.sample) if leaf.ndim >= 3}
        for tensor, value in zip(tree.leaves(model.model.output), whole, strict=True):
            stated = evaluate(tensor.shape, {"batch": self.rows, **sizes})
            assert stated == value.shape, (
                f"inferred {shape_text(tensor.shape)}, got {value.shape} with {self.rows} rows"
            )
        for rows in (1, self.rows):
            expected = self.run(layer, self.part(rows))
            self.same(self.run(model, self.part(rows)), expected, f"with {rows} rows")
            for one, all_rows in zip(expected, whole, strict=True):
                grows = all_rows.ndim and all_rows.shape[0] == self.rows and one.ndim
                assert not grows or one.shape[0] == rows, (
                    f"with {rows} rows: {one.shape[0]} rows came out; the number of rows is fixed somewhere"
                )
        if note:
            raise _Skip(note)
        shorter = tree.map_structure(
            lambda leaf: leaf[:, :-1] if leaf.ndim >= 3 and leaf.shape[1] > 1 else leaf, self.sample
        )
        if any(a.shape != b.shape for a, b in zip(tree.leaves(shorter), tree.leaves(self.sample), strict=True)):
            try:
                expected = self.run(layer, shorter)
            except CornuError as error:
                raise _Skip(f"only one length of time fits ({str(error).splitlines()[0]})") from None
            self.same(self.run(model, shorter), expected, "with a shorter time")

    def part(self, rows: int) -> Any:
        """The first rows of the sample."""
        return tree.map_structure(lambda leaf: leaf[:rows], self.sample)

    def agree(self) -> None:
        """Compare engines."""
        if len(self.engines) < 2:
            raise _Skip("one engine is installed")
        base = self.run(engine=self.engines[0])
        for name in self.engines[1:]:
            self.same(base, self.run(engine=name), f"engine {self.engines[0]!r} against {name!r}")

    def compiled(self) -> None:
        """Compare compiled and not."""
        tracing = [name for name in self.engines if engines.get(name).traces]
        if not tracing:
            raise _Skip("no engine at hand compiles")
        for name in tracing:
            engine = engines.get(name)
            variables = self.layer.variables

            def pure(values: list[Any], sample: Any, variables: list[Variable] = variables) -> Any:
                with context.bind(variables, values):
                    return tree.leaves(self.call(self.layer, sample))

            with context.use_engine(engine):
                values = [engine.from_any(v.stored()) for v in variables]
                sample = tree.map_structure(engine.from_host, self.sample)
                found = [engine.to_host(leaf) for leaf in engine.compile(pure)(values, sample)]
            self.same(found, self.run(engine=name), f"compiled on {name!r}")

    def training(self) -> None:
        """Compare a step of training on all engines: outputs and what is assigned."""
        variables = self.layer.variables
        start = [v.numpy() for v in variables]
        found: list[list[np.ndarray]] = []
        names = list(self.engines)
        try:
            for name in names:
                with engines.engine(name), np.errstate(all="ignore"), at_step(np.int32(7)):
                    outputs = tree.leaves(
                        self.call(self.layer, tree.map_structure(np.array, self.sample), training=True)
                    )
                    found.append(
                        [np.asarray(convert_to_numpy(leaf)) for leaf in outputs] + [v.numpy() for v in variables]
                    )
                for variable, value in zip(variables, start, strict=True):
                    variable.assign(value)
        finally:
            self.layer._clear_losses()
            for variable, value in zip(variables, start, strict=True):
                variable.assign(value)
        for variable in self.layer.trainable_variables:
            i = next(i for i, v in enumerate(variables) if v is variable)
            after = found[0][len(found[0]) - len(variables) + i]
            assert np.array_equal(start[i], after, equal_nan=True), (
                f"the call changes the trainable weight {variable.path!r}"
            )
        if len(found) < 2:
            raise _Skip("one engine is installed")
        for name, other in zip(names[1:], found[1:], strict=True):
            self.same(found[0], other, f"in training, engine {names[0]!r} against {name!r}")

    def batch(self) -> None:
        """Compare a row alone with the row among others."""
        if self.rows < 2:
            raise _Skip("the sample has fewer than two rows")
        whole = self.run()
        if any(out.ndim == 0 or out.shape[0] != self.rows for out in whole):
            raise _Skip("the output has no axis of rows")
        self.same(self.run(sample=self.part(1)), [out[:1] for out in whole], "the first row alone")

    def gradient(self) -> None:
        """Compare a directional derivative with a finite difference, in float64."""
        layer = self.copy("float64")
        sample = _in_dtype(self.sample, "float64")
        floats = [(path, leaf) for path, leaf in tree.flatten_with_path(sample) if leaf.dtype.kind == "f"]
        sources = [
            Variable(leaf, dtype="float64", name="input " + "".join(f"[{k!r}]" for k in path if k != ""))
            for path, leaf in floats
        ]
        variables = [*layer.trainable_variables, *sources]
        if not variables:
            raise _Skip("there is nothing to differentiate")
        rng = np.random.default_rng(0)

        def scalar() -> Any:
            values = iter(sources)
            given = tree.map_structure(lambda leaf: next(values).value if leaf.dtype.kind == "f" else leaf, sample)
            outputs = [o for o in tree.leaves(self.call(layer, given)) if _is_float(o)]
            if not outputs:
                raise _Skip("no output is a float")
            weights = np.random.default_rng(1)
            total: Any = 0.0
            for output in outputs:
                total = _a.add(
                    total, _r.sum(_a.multiply(_e.cast(output, "float64"), weights.normal(size=tuple(output.shape))))
                )
            return total

        def pure(values: list[Any]) -> Any:
            with context.bind(variables, values):
                return value_and_grad(scalar, variables)()[1]

        for name in ("numpy", *(n for n in self.engines if n != "numpy")):
            engine = engines.get(name)
            with engines.engine(name), np.errstate(all="ignore"):
                found_here = engine.compile(pure)([engine.from_any(v.stored()) for v in variables])
                gradients = [np.asarray(convert_to_numpy(g)) for g in found_here]
            for variable, gradient in zip(variables, gradients, strict=True):
                assert np.isfinite(gradient).all(), f"on {name!r} the gradient of {variable.path!r} is not finite"
            if name == "numpy":
                base = gradients
            for variable, one, other in zip(variables, base, gradients, strict=True):
                self.same([one], [other], f"the gradient of {variable.path!r} on 'numpy' against {name!r}")
        with engines.engine("numpy"), np.errstate(all="ignore"):
            start = [v.numpy() for v in variables]
            for variable, value, gradient in zip(variables, start, base, strict=True):
                direction = rng.normal(size=variable.shape)
                expected = float((gradient * direction).sum())
                tried = []
                for step, tolerance in (
                    (1e-6, 1e-4),
                    (1e-3, 1e-2),
                ):  # the wider one for layers that compute in float32 whatever their dtype
                    found = []
                    for sign in (1, -1):
                        variable.assign(value + sign * step * direction)
                        found.append(float(convert_to_numpy(scalar())))
                    variable.assign(value)
                    tried.append((found[0] - found[1]) / (2 * step))
                    if abs(tried[-1] - expected) < tolerance * max(1.0, abs(tried[-1]), abs(expected)):
                        break
                else:
                    raise AssertionError(
                        f"along a direction of {variable.path!r} the gradient says {expected:.6g}, "
                        f"finite differences say {tried[0]:.6g}"
                    )

    def mask(self) -> None:
        """Give the input a mask and see what becomes of it."""
        value = self.sample[""]
        if not isinstance(value, np.ndarray) or value.ndim < 3 or value.dtype.kind != "f" or value.shape[1] < 2:
            raise _Skip("the sample is no single array (batch, time, ...) of floats")
        keep = np.ones(value.shape[:2], bool)
        keep[0, -1] = False
        inputs = self.inputs(False)
        known = Input(keep.shape[1:], dtype="bool")
        inputs[""].mask = known
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = self.call(self.layer, inputs)
        lost = [str(w.message) for w in caught if issubclass(w.category, MaskWarning)]
        if lost:
            assert not self.signature.mask_for, lost[0]
            raise _Skip("it does not know masks, and says so when it gets one")
        carried = [tensor.mask for tensor in tree.leaves(output)]
        if not self.signature.mask_for:
            stated = type(self.layer).compute_mask is not Layer.compute_mask
            assert stated or any(mask is not None for mask in carried), (
                "the mask is neither used nor carried, and nothing says so"
            )
        model = Model({"inputs": inputs, "mask": known}, [output, [mask for mask in carried if mask is not None]])
        others = dict(self.sample)
        others[""] = value.copy()
        others[""][0, -1] += 3.0
        results = []
        for given in (self.sample, others):
            with engines.engine("numpy"), np.errstate(all="ignore"):
                outputs, found = model(tree.map_structure(np.array, {"inputs": given, "mask": keep}))
                results.append([np.asarray(convert_to_numpy(leaf)) for leaf in tree.leaves(outputs)])
                masks = iter([np.asarray(convert_to_numpy(leaf)) for leaf in found])
        for tensor, out in zip(carried, results[0], strict=True):
            if tensor is not None:
                mask = next(masks)
                assert mask.shape == out.shape[: mask.ndim], f"the output {out.shape} has a mask of shape {mask.shape}"
        if self.signature.mask_for:
            for x, y in zip(*results, strict=True):
                if x.shape[:2] == keep.shape:
                    x, y = x[keep], y[keep]
                assert np.allclose(x, y, self.rtol, self.atol), (
                    "it takes a mask, but a position that the mask hides changes the result"
                )


class _Made:
    """A model made around the layer; it takes the sample as it is."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, sample: Any) -> Any:
        return self.model(sample, training=False)


def _holds_arrays(value: Any) -> bool:
    return any(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in tree.leaves(value))


def _is_float(value: Any) -> bool:
    return dtypes.standardize_dtype(value.dtype) in dtypes.FLOATS


def _in_dtype(sample: Any, dtype: str | None) -> Any:
    if dtype is None:
        return sample
    return tree.map_structure(lambda leaf: leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf, sample)


def _with_dtype(form: Any, dtype: str) -> Any:
    """A serialized form in which every object that computes in floats does so in another dtype."""
    if isinstance(form, (list, tuple)):
        return type(form)(_with_dtype(item, dtype) for item in form)
    if not isinstance(form, dict):
        return form
    found = {key: _with_dtype(item, dtype) for key, item in form.items()}
    config = found.get("config")
    if "class_name" in found and isinstance(config, dict) and "dtype" in config and "trainable" in config:
        given = config["dtype"]
        name = given["config"]["name"] if isinstance(given, dict) else given
        if name is None or str(name).removeprefix("mixed_") in dtypes.FLOATS:
            found["config"] = {**config, "dtype": dtype}
    return found
