"""Single arrays as users give them, made host arrays of the dtypes a model is fed with; what is no array is refused."""

from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any

import numpy as np

from cornu.core import dtypes, tree
from cornu.core.errors import DataError
from cornu.core.variable import Variable
from cornu.ops._declare import ENGINE_RANK, interpreter_of

__all__ = ["Column", "advice", "check_rows", "check_weight", "named", "standard", "to_host", "walk"]

# Arrays up to this size are cast whole, once; larger ones batch by batch.
_CAST_WHOLE = 1 << 28


def _is_numbers(value: Any) -> bool:
    """Whether a list or tuple is one array written out, rather than a structure of arrays."""
    while isinstance(value, (list, tuple)):
        if not value:
            return True
        value = value[0]
    return isinstance(value, (Number, np.generic, str, bytes))


def walk(value: Any, name: str, function: Callable[[Any, str], Any]) -> Any:
    """A structure with each array in it passed through a function of it and its name; `None` stays."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {item: walk(part, f"{name}[{item!r}]", function) for item, part in value.items()}
    if isinstance(value, (list, tuple)) and not _is_numbers(value):
        parts = [walk(part, f"{name}[{i}]", function) for i, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts) if isinstance(value, tuple) else parts
    return function(value, name)


def named(value: Any, name: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    walk(value, name, lambda leaf, path: found.append((path, leaf)))
    return found


def _is_stored(value: Any) -> bool:
    """Whether an array lies in a file and is read by parts (h5py)."""
    return type(value).__module__.partition(".")[0] == "h5py" and hasattr(value, "shape")


def to_host(value: Any, name: str, what: str) -> Any:
    """Anything that is one array as a NumPy array (an HDF5 data set stays where it is), its kind and rank checked.

    Raises:
        DataError: for text, objects, ragged rows, symbolic or masked arrays, and what is no array.
    """
    # A plain array is not asked further: the question alone would make NumPy import its masked arrays.
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        raise DataError(
            f"{what} got a masked array as {name}",
            "plain arrays",
            f"fill it: {name}.filled(0), or leave those rows out",
        )
    if isinstance(value, np.ndarray) or _is_stored(value):
        array = value
    elif isinstance(value, Variable):
        array = value.numpy()
    elif isinstance(value, (list, tuple, Number, np.generic)):
        try:
            array = np.asarray(value)
        except ValueError:
            raise DataError(
                f"{what} got {name} as a list whose rows differ in length",
                "rows of one shape",
                "pad them, or use ragged batches of one row",
            ) from None
    elif (owner := interpreter_of(value)) is not None:
        if owner.rank != ENGINE_RANK or owner.is_tracing(value):
            raise DataError(f"{what} got {value!r:.80} as {name}, which has no values", "arrays with values")
        array = owner.to_host(value)
    elif hasattr(value, "detach"):  # PyTorch
        value = value.detach().cpu()
        array = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    elif hasattr(value, "toarray"):  # SciPy's sparse arrays
        raise DataError(f"{what} got a sparse array as {name}", "dense arrays", f"{name}.toarray()")
    elif hasattr(value, "to_numpy") or hasattr(value, "column_names"):
        array = _frame(value, name, what)
        if array.ndim == 1 and hasattr(value, "iloc") and not name.startswith("sample_weight"):
            array = array[:, None]  # Keras takes a pandas series as a column
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
    else:
        raise DataError(
            f"{what} got {name} of type {type(value).__name__}",
            "an array, a list of numbers or a data frame",
            advice(value),
        )
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        if array.dtype.kind in "USOT":
            got = "text" if array.dtype.kind != "O" else "objects (text, None, or rows of different shapes)"
            fix = "turn text into numbers (indices or one-hot), pad rows to one shape"
        else:
            got, fix = f"dtype {array.dtype}", "turn it into numbers first"
        raise DataError(
            f"{what} got {got} in {name} (dtype {array.dtype}, shape {array.shape})", "numbers or booleans", fix
        )
    if array.ndim == 0:
        raise DataError(
            f"{what} got a single number as {name}, not a batch of rows",
            "shape (rows, ...)",
            f"give it an axis of rows: {name}[None]",
        )
    return array


def _frame(value: Any, name: str, what: str) -> np.ndarray:
    """A data frame `(rows, columns)` or a series `(rows,)`: pandas, polars, Arrow, or what has `to_numpy`."""
    is_table = hasattr(value, "column_names") and not hasattr(value, "to_numpy")  # Arrow's
    if not is_table:
        array = _series(value)
        if array.dtype.kind in "biuf" or array.ndim != 2 or not hasattr(value, "columns"):
            return array
    names = list(value.column_names if is_table else value.columns)
    columns = []
    for place, column in enumerate(names):
        series = value.column(place) if is_table else value.iloc[:, place] if hasattr(value, "iloc") else value[column]
        array = _series(series)
        if array.dtype.kind not in "biuf":
            raise DataError(
                f"{what} got {name} with the column {column!r}, which holds no numbers "
                f"(dtype {getattr(series, 'dtype', array.dtype)})",
                "columns of numbers or booleans",
                "leave the column out, or turn it into numbers (one-hot, category codes)",
            )
        columns.append(array)
    return np.stack(columns, axis=1) if columns else np.empty((len(value), 0))


def _series(value: Any) -> np.ndarray:
    """What has `to_numpy` as an array; numbers of which some are missing (pandas) become floats with NaN."""
    in_arrow = type(value).__module__.partition(".")[0] == "pyarrow"
    array = np.asarray(value.to_numpy(zero_copy_only=False) if in_arrow else value.to_numpy())
    if array.dtype.kind == "O" and getattr(getattr(value, "dtype", None), "kind", "O") in "biuf":
        return np.asarray(value.to_numpy(dtype=dtypes.floatx(), na_value=np.nan))
    return array


def _fits_int32(array: np.ndarray) -> bool:
    limits = np.iinfo(np.int32)
    return not array.size or bool(array.min() >= limits.min and array.max() <= limits.max)


def _wanted(array: Any, is_weight: bool) -> np.dtype[Any] | None:
    """The dtype an array should come in, if not its own; whether int64 can become int32 is the caller's question."""
    wide = dtypes.numpy_dtype(dtypes.floatx())
    if is_weight or array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        return None if array.dtype == wide else wide
    return None if array.dtype.isnative else array.dtype.newbyteorder("=")


def standard(array: np.ndarray, is_weight: bool) -> np.ndarray:
    """An array in the dtype it should come in."""
    wanted = _wanted(array, is_weight)
    if wanted is not None:
        array = array.astype(wanted)
    if array.dtype == np.int64 and _fits_int32(array):
        array = array.astype(np.int32)
    return array


def is_standard(value: Any) -> bool:
    """Whether a value is an array of rows in the dtype it should come in, whatever its elements are."""
    if type(value) is not np.ndarray or not value.ndim or value.dtype.kind not in "biuf":
        return False
    return value.dtype != np.int64 and _wanted(value, False) is None


class Column:
    """One array of many rows, and how to take some of them."""

    __slots__ = ("array", "dtype", "narrow", "stored")

    def __init__(self, array: Any, is_weight: bool) -> None:
        self.stored = _is_stored(array)
        lazy = self.stored or isinstance(array, np.memmap)
        self.dtype = _wanted(array, is_weight)
        self.narrow = lazy and array.dtype.kind == "i" and array.dtype.itemsize == 8
        self.array = array if self.stored else np.asarray(array)
        if lazy:
            return
        if self.dtype is None and array.dtype == np.int64 and _fits_int32(self.array):
            self.dtype = np.dtype(np.int32)
        if self.dtype is not None and self.array.nbytes <= _CAST_WHOLE:
            self.array = self.array.astype(self.dtype)
            self.dtype = None

    def take(self, rows: slice | np.ndarray) -> np.ndarray:
        """Some rows, in the order asked for."""
        if isinstance(rows, slice):
            part = np.asarray(self.array[rows])
        elif self.stored:  # HDF5 gives rows in rising order only
            order = np.argsort(rows)
            part = np.empty((len(rows), *self.array.shape[1:]), self.array.dtype)
            part[order] = self.array[rows[order]]
        else:
            part = self.array.take(rows, axis=0)
        if self.dtype is not None:
            part = part.astype(self.dtype)
        return part.astype(np.int32) if self.narrow and _fits_int32(part) else part


def check_rows(parts: list[tuple[str, Any]], what: str, where: str = "") -> int:
    """The number of rows all arrays agree on.

    Raises:
        DataError: if they do not, or there are none.
    """
    if not parts:
        raise DataError(f"{what} got no arrays{where}", "at least one array of rows")
    sizes = {int(array.shape[0]) for _, array in parts}
    if len(sizes) > 1:
        listed = ", ".join(f"{name} has {array.shape[0]} rows (shape {tuple(array.shape)})" for name, array in parts)
        raise DataError(
            f"{what} got arrays of different numbers of rows{where}: {listed}",
            "the same number of rows in all",
            "pass the targets and weights of exactly the rows in x; the first axis counts rows",
        )
    rows = sizes.pop()
    if rows == 0:
        name, array = parts[0]
        raise DataError(f"{what} got no rows{where}: {name} has shape {tuple(array.shape)}", "at least one row")
    return rows


def check_weight(y: Any, weight: Any, what: str) -> None:
    """A single array of weights for several outputs must have one weight per row."""
    if tree.is_nested(weight) or weight is None or len(tree.leaves(y)) < 2:
        return
    if weight.ndim > 2 or (weight.ndim == 2 and weight.shape[1] != 1):
        raise DataError(
            f"{what} got one sample_weight of shape {tuple(weight.shape)} for {len(tree.leaves(y))} outputs",
            "shape (rows,)",
            "for weights that are not one per row, pass a sample_weight for each output in a structure like y",
        )


def advice(x: Any) -> str | None:
    if isinstance(x, (str, bytes)):
        return "load the file first"
    if callable(x) and hasattr(x, "__name__"):
        return f"call it: {x.__name__}()"
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return "a set of single rows goes into a loader that makes batches of them"
    return None
