"""`check_layer`: does a layer keep its promises? A report that a person can read, with the line to mend."""

import inspect
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cornu import saving
from cornu.autodiff import value_and_grad
from cornu.core import context, dtypes, tree
from cornu.core.dims import evaluate, shape_text
from cornu.core.errors import CornuError, MaskWarning
from cornu.core.variable import Variable
from cornu.engines import registry as engines
from cornu.graph.symbolic import SymbolicTensor
from cornu.layers.base import Layer, signature_of
from cornu.layers.input_layer import Input
from cornu.models import Model
from cornu.ops import arithmetic as _a
from cornu.ops import elementwise as _e
from cornu.ops import reduction as _r
from cornu.ops.creation import convert_to_numpy

__all__ = ["Report", "check_layer"]

_NAMES = {
    "config": "it can be made again from its config",
    "shape": "inferred shape and dtype are those of the result",
    "unknown sizes": "it builds with unknown batch and time, and runs with any",
    "engines": "the same numbers on every installed engine",
    "compiled": "the same numbers compiled and not",
    "inference": "inference is repeatable",
    "batch": "rows do not influence each other in inference",
    "gradient": "gradients agree with finite differences, and reach every trainable weight",
    "mask": "a mask is carried or used, and hidden positions stay hidden",
    "file": "saved and loaded it gives the same result",
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
        return all(state != "broken" for _, state, _ in self.rows)

    @property
    def broken(self) -> dict[str, str]:
        """The broken promises with their details."""
        return {name: detail for name, state, detail in self.rows if state == "broken"}

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        marks = {"kept": "ok  ", "broken": "FAIL", "does not apply": "-   "}
        lines = [f"{self.layer}, {self.where}"]
        for name, state, detail in self.rows:
            lines.append(f"  {marks[state]} {name:<14} {_NAMES[name]}")
            if detail and state != "kept":
                lines += [f"         {line}" for line in detail.splitlines()]
        lines.append("all promises kept" if self.ok else f"{len(self.broken)} broken: {', '.join(self.broken)}")
        return "\n".join(lines)

    __repr__ = __str__


class _Skip(Exception):
    """A promise that does not apply to this layer."""


def check_layer(
    layer: Layer, sample: Any, *, engines: list[str] | None = None, rtol: float = 1e-4, atol: float = 1e-5, **arguments: Any
) -> Report:
    """Check whether a layer keeps its promises.

    Args:
        layer: the layer; it is built if it is not yet, and left as it is otherwise.
        sample: a value for its first argument: an array with at least two rows, or a structure of them.
        engines: names of engines to compare; by default all that are installed.
        rtol: relative difference allowed.
        atol: absolute difference allowed.
        arguments: further arguments of the call (not arrays).

    Returns:
        a `Report`; it is true if no promise is broken, and prints as a table.

    Example:
        >>> import cornu, numpy as np
        >>> report = cornu.check_layer(cornu.layers.Dense(3), np.ones((4, 2), "float32"), engines=["numpy"])
        >>> report.ok
        True
    """
    check = _Check(layer, sample, engines or _installed(), rtol, atol, arguments)
    report = Report(f"{layer.name} ({type(layer).__name__})", _where(layer))
    for name, test in check.tests():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MaskWarning)
                test()
            report.rows.append((name, "kept", ""))
        except _Skip as reason:
            report.rows.append((name, "does not apply", str(reason)))
        except AssertionError as error:
            report.rows.append((name, "broken", str(error).strip()))
        except Exception as error:
            report.rows.append((name, "broken", _told(error)))
    return report


def _installed() -> list[str]:
    return engines.available()


def _where(layer: Layer) -> str:
    try:
        lines, number = inspect.getsourcelines(type(layer).call)
        return f"{inspect.getsourcefile(type(layer))}:{number}"
    except (OSError, TypeError):
        return "source not found"


def _told(error: Exception) -> str:
    """An error with the line of the layer's own file that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/cornu/" not in frame.filename and "site-packages" not in frame.filename]
    place = f"\nat {own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""
    return f"{type(error).__name__}: {error}{place}"


class _Check:
    """The tests of one layer on one sample."""

    def __init__(self, layer: Layer, sample: Any, names: list[str], rtol: float, atol: float, arguments: dict[str, Any]) -> None:
        self.layer = layer
        self.sample = tree.map_structure(np.asarray, sample)
        self.engines = names
        self.rtol, self.atol = rtol, atol
        self.arguments = arguments
        self.signature = signature_of(type(layer))
        self.rows = min((leaf.shape[0] for leaf in tree.leaves(self.sample) if leaf.ndim), default=0)

    def tests(self) -> list[tuple[str, Callable[[], None]]]:
        """All tests by name."""
        return [
            ("shape", self.shape),
            ("config", self.config),
            ("unknown sizes", self.unknown),
            ("engines", self.agree),
            ("compiled", self.compiled),
            ("inference", self.inference),
            ("batch", self.batch),
            ("gradient", self.gradient),
            ("mask", self.mask),
            ("file", self.file),
        ]

    # ------------------------------------------------ parts

    def run(self, layer: Any = None, sample: Any = None, engine: str = "numpy") -> list[np.ndarray]:
        """The outputs in inference, on an engine, as host arrays."""
        with engines.engine(engine):
            result = self.call(layer or self.layer, self.sample if sample is None else sample)
            return [np.asarray(convert_to_numpy(leaf)) for leaf in tree.leaves(result)]

    def call(self, layer: Any, sample: Any) -> Any:
        """A call in inference."""
        training = {"training": False} if self.signature.takes_training else {}
        return layer(sample, **self.arguments, **training)

    def same(self, a: list[np.ndarray], b: list[np.ndarray], what: str) -> None:
        """Demand equal outputs."""
        assert len(a) == len(b), f"{what}: {len(a)} and {len(b)} outputs"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            place = f"{what}, output {i}" if len(a) > 1 else what
            assert x.shape == y.shape, f"{place}: shapes {x.shape} and {y.shape}"
            x, y = (v.astype("float64") if v.dtype.kind not in "biu" else v for v in (x, y))
            close = np.isclose(x, y, self.rtol, self.atol, equal_nan=True)
            assert close.all(), f"{place}: largest difference {np.nanmax(np.abs(x - y)):.3g}, first at {tuple(np.argwhere(~close)[0])}"

    def inputs(self, unknown_time: bool) -> Any:
        """Symbolic inputs in the shape of the sample, the batch unknown."""

        def one(leaf: np.ndarray) -> SymbolicTensor:
            sizes: list[Any] = list(leaf.shape[1:])
            if unknown_time and leaf.ndim >= 3:
                sizes[0] = "time"
            return Input(tuple(sizes), dtype=dtypes.standardize_dtype(leaf.dtype))

        return tree.map_structure(one, self.sample)

    def remade(self, dtype: str | None = None) -> Any:
        """Another layer from the config, with the same weights."""
        config = saving.serialize_keras_object(self.layer)
        if dtype is not None:
            config["config"]["dtype"] = dtype
        made = saving.deserialize_keras_object(config, {type(self.layer).__name__: type(self.layer)})
        with engines.engine("numpy"):
            self.call(made, _in_dtype(self.sample, dtype))
        made.set_weights([w.astype(dtype) if dtype and w.dtype.kind == "f" else w for w in self.layer.get_weights()])
        return made

    # ------------------------------------------------ the promises

    def shape(self) -> None:
        """Compare inferred Specs with results."""
        symbolic = tree.leaves(self.call(self.layer, self.inputs(False)))
        found = self.run()
        assert len(symbolic) == len(found), f"{len(symbolic)} outputs inferred, {len(found)} given"
        for tensor, value in zip(symbolic, found, strict=True):
            want = evaluate(tensor.shape, {"batch": self.rows})
            assert want == value.shape, f"inferred {shape_text(tensor.shape)}, got {value.shape}"
            assert tensor.dtype == value.dtype.name, f"inferred dtype {tensor.dtype}, got {value.dtype}"

    def config(self) -> None:
        """Make it again."""
        made = self.remade()
        assert [w.shape for w in made.weights] == [w.shape for w in self.layer.weights], "the weights have other shapes"
        self.same(self.run(made), self.run(), "made again from its config")

    def unknown(self) -> None:
        """Build with unknown sizes and compare for several."""
        if self.rows < 2:
            raise _Skip("the sample has fewer than two rows")
        layer = self.remade()
        try:
            inputs = self.inputs(True)
            model = Model(inputs, self.call(layer, inputs))
        except CornuError as error:
            inputs = self.inputs(False)
            model = Model(inputs, self.call(layer, inputs))
            note = str(error).splitlines()[0]
            self.same(self.run(model, self.part(1)), self.run(layer, self.part(1)), "with one row")
            raise _Skip(f"time must be known ({note}); the batch may be unknown") from None
        for rows in (1, self.rows):
            self.same(self.run(model, self.part(rows)), self.run(layer, self.part(rows)), f"with {rows} rows")
        shorter = tree.map_structure(lambda leaf: leaf[:, :-1] if leaf.ndim >= 3 and leaf.shape[1] > 1 else leaf, self.sample)
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
        for name in self.engines:
            engine = engines.get(name)
            if not engine.traces:
                continue
            variables = self.layer.variables

            def pure(values: list[Any], sample: Any, variables: list[Variable] = variables) -> Any:
                with context.bind(variables, values):
                    return tree.leaves(self.call(self.layer, sample))

            with context.use_engine(engine):
                values = [engine.from_any(v.stored()) for v in variables]
                sample = tree.map_structure(engine.from_host, self.sample)
                found = [engine.to_host(leaf) for leaf in engine.compile(pure)(values, sample)]
            self.same(found, self.run(engine=name), f"compiled on {name!r}")

    def inference(self) -> None:
        """Call twice."""
        self.same(self.run(), self.run(), "two calls in inference")

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
        layer = self.remade("float64")
        sample = _in_dtype(self.sample, "float64")
        floats = [leaf for leaf in tree.leaves(sample) if leaf.dtype.kind == "f"]
        sources = [Variable(leaf, dtype="float64") for leaf in floats]
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
            rng = np.random.default_rng(1)
            total: Any = 0.0
            for output in outputs:
                total = _a.add(total, _r.sum(_a.multiply(_e.cast(output, "float64"), rng.normal(size=tuple(output.shape)))))
            return total

        with engines.engine("numpy"):
            _, gradients = value_and_grad(scalar, variables)()
            gradients = [np.asarray(g) for g in gradients]
            for variable, gradient in zip(layer.trainable_variables, gradients, strict=False):
                assert np.isfinite(gradient).all(), f"the gradient of {variable.path!r} is not finite"
            directions = [rng.normal(size=v.shape) for v in variables]
            expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
            start = [v.numpy() for v in variables]
            found = []
            for sign in (1, -1):
                for variable, value, direction in zip(variables, start, directions, strict=True):
                    variable.assign(value + sign * 1e-6 * direction)
                found.append(float(convert_to_numpy(scalar())))
            for variable, value in zip(variables, start, strict=True):
                variable.assign(value)
        difference = (found[0] - found[1]) / 2e-6
        allowed = 1e-4 * max(1.0, abs(difference), abs(expected))
        assert abs(difference - expected) < allowed, f"the gradient says {expected:.6g}, finite differences say {difference:.6g}"

    def mask(self) -> None:
        """Give the input a mask and see what becomes of it."""
        leaves = tree.leaves(self.sample)
        if len(leaves) != 1 or leaves[0].ndim < 3 or leaves[0].dtype.kind != "f" or leaves[0].shape[1] < 2:
            raise _Skip("the sample is no single array (batch, time, ...) of floats")
        keep = np.ones(leaves[0].shape[:2], bool)
        keep[0, -1] = False
        value = leaves[0]
        inputs = self.inputs(False)
        known = Input(keep.shape[1:], dtype="bool")
        tree.leaves(inputs)[0].mask = known
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = self.call(self.layer, inputs)
        lost = [str(w.message) for w in caught if issubclass(w.category, MaskWarning)]
        assert not lost, lost[0]
        if not self.signature.mask_for:
            return
        model = Model([*tree.leaves(inputs), known], output)
        other = value.copy()
        other[0, -1] += 3.0
        a, b = (self.run(model, [v, keep]) for v in (value, other))
        for x, y in zip(a, b, strict=True):
            if x.shape[:2] == keep.shape:
                x, y = x[keep], y[keep]
            assert np.allclose(x, y, self.rtol, self.atol), "a position that the mask hides changes the result"

    def file(self) -> None:
        """Save and load a model that holds it."""
        inputs = self.inputs(False)
        model = Model(inputs, self.call(self.remade(), inputs))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layer.keras"
            model.save(path)
            loaded = saving.load_model(path, {type(self.layer).__name__: type(self.layer)})
        self.same(self.run(loaded), self.run(model), "loaded from a file")


def _is_float(value: Any) -> bool:
    return dtypes.standardize_dtype(value.dtype) in dtypes.FLOATS


def _in_dtype(sample: Any, dtype: str | None) -> Any:
    if dtype is None:
        return sample
    return tree.map_structure(lambda leaf: leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf, sample)


