"""Sources: what users hand over, as batches; and what is refused."""

import itertools
import math
import threading

import h5py
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cornu import ops
from cornu.core import dtypes
from cornu.core.errors import ArgumentError, DataError
from cornu.training.data import as_source
from cornu.utils import PyDataset, Sequence, normalize, to_categorical

X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


def xs(source, number=0):
    """The first column of x of all batches of an epoch."""
    return [np.asarray(x).reshape(len(x), -1)[:, 0].tolist() for x, _, _ in source.epoch(number)]


def all_of(source, number=0):
    """The first column of x of an epoch, in one list."""
    return list(itertools.chain(*xs(source, number)))


class Counted(PyDataset):
    """Batches whose rows all hold the batch's number."""

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count, self.calls = count, []

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        self.calls.append((index, threading.current_thread().name))
        return np.full((2, 1), float(index)), np.array([index, index])

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


class Loader:
    """An iterable that begins anew, without a length."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


def batches(count, start=0):
    return [(np.full((2, 1), float(i)), np.array([i, i])) for i in range(start, start + count)]


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("given", "expected", "dtype"),
    [
        (X, X, "float32"),
        (X.astype("float16"), X, "float32"),
        (X.astype(">f8"), X, "float32"),
        (X.astype("uint8"), X, "uint8"),
        (X > 3, X > 3, "bool"),
        (X.astype("int64"), X, "int32"),
        (X.astype("int64") + 2**40, X + 2**40, "int64"),
        (X.tolist(), X, "float32"),
        ([1, 2, 3], [1, 2, 3], "int32"),
        ((True, False), [True, False], "bool"),
        (jnp.asarray(X, "float32"), X, "float32"),
        (pd.DataFrame(X, columns=["a", "b"]), X, "float32"),
        (pd.DataFrame({"a": [1, 2], "b": [True, False]}), [[1, 1], [2, 0]], "int32"),
        (
            pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0.5, 1]}),
            [[1, 0.5], [math.nan, 1]],
            "float32",
        ),
        (pd.DataFrame([[1, 2.5]], columns=["a", "a"]), [[1, 2.5]], "float32"),
        (pd.Series([1.0, 2.0]), [[1], [2]], "float32"),
    ],
)
def test_one_array(given, expected, dtype):
    (x, y, weight), *rest = as_source(given, batch_size=100).epoch(0)
    order = np.lexsort(np.asarray(x).reshape(len(x), -1).T[::-1])
    assert type(x) is np.ndarray and x.dtype == dtype and y is None and weight is None and not rest
    np.testing.assert_array_equal(x[order], expected if len(expected) > 2 else np.asarray(x[order]))
    np.testing.assert_array_equal(as_source(given, shuffle=False, batch_size=100).peek()[0], expected)


def test_structures_keep_their_shape_and_none_passes():
    x = {"b": X, "a": [X, None, (X,)]}
    batch_x, batch_y, weight = as_source(x, [Y, Y], Y / 10, batch_size=4, shuffle=False).peek()
    assert list(batch_x) == ["b", "a"] and batch_x["a"][1] is None and type(batch_x["a"][2]) is tuple
    assert type(batch_y) is list and [part.shape for part in batch_y] == [(4,), (4,)]
    assert weight.dtype == "float32"
    assert as_source(X, Y, np.ones(10, int)).peek()[2].dtype == "float32"


def test_batches_are_views_unless_shuffled():
    x = X.astype("float32")
    assert all(np.shares_memory(x, part) for part, _, _ in as_source(x, shuffle=False, batch_size=3).epoch(0))


def test_large_arrays_are_cast_by_batches(monkeypatch):
    from cornu.training import columns

    monkeypatch.setattr(columns, "_CAST_WHOLE", 0)
    (x, y, _), *_ = as_source(X, Y, batch_size=4, shuffle=False).epoch(0)
    assert x.dtype == "float32" and y.dtype == "int32" and x.tolist() == X[:4].tolist()


def test_stored_arrays(tmp_path):
    plain = np.memmap(tmp_path / "x.bin", "int64", "w+", shape=(10, 2))
    plain[:] = X
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("x", data=X)
        expected = as_source(X, Y, batch_size=4, seed=3)
        for x in (stored, plain):
            found = as_source(x, Y, batch_size=4, seed=3)
            for (a, y, _), (b, want, _) in zip(found.epoch(1), expected.epoch(1), strict=True):
                assert a.dtype == ("float32" if x is stored else "int32") and type(a) is np.ndarray
                np.testing.assert_array_equal(a, b)
                np.testing.assert_array_equal(y, want)


def test_shuffle_is_a_pure_function_of_seed_and_epoch():
    source, again = as_source(X, Y, batch_size=3, seed=7), as_source(X, Y, batch_size=3, seed=7)
    first = xs(source, 0)
    assert [len(part) for part in first] == [3, 3, 3, 1] == [len(part) for part in xs(source, 1)]
    assert sorted(all_of(source, 0)) == X[:, 0].tolist() != all_of(source, 0)
    assert xs(source, 1) != first and xs(again, 1) == xs(source, 1) and xs(source, 0) == first
    assert xs(as_source(X, Y, batch_size=3, seed=8), 0) != first
    for x, y, _ in source.epoch(2):  # rows stay together
        np.testing.assert_array_equal(x[:, 0], 2 * y)
    within = xs(as_source(X, batch_size=5, shuffle="batch", seed=1))
    assert [sorted(part) for part in within] == [X[:5, 0].tolist(), X[5:, 0].tolist()] and within[0] != sorted(
        within[0]
    )
    assert all_of(as_source(X, what="predict", batch_size=3)) == X[:, 0].tolist()


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps", "count", "size"),
    [(10, None, None, 1, 32), (100, None, None, 4, 32), (10, 4, None, 3, 4), (10, None, 3, 3, 4), (10, 3, 2, 2, 3)],
)
def test_sizes(rows, batch_size, steps, count, size):
    source = as_source(np.zeros(rows), batch_size=batch_size, steps=steps)
    assert (source.num_batches, source.batch_size, source.num_rows) == (count, size, rows)
    assert len(list(source.epoch(0))) == count


def test_steps_go_on_in_fit_and_begin_anew_elsewhere():
    # 10 rows are 5 batches of 2; 3 steps an epoch: the second epoch ends with the next pass's first batch.
    source = as_source(X[:, :1], batch_size=2, steps=3, shuffle=False)
    assert xs(source, 0) + xs(source, 1) == [[0, 2], [4, 6], [8, 10], [12, 14], [16, 18], [0, 2]]
    halves = as_source(X, batch_size=1, steps=5)
    assert sorted(all_of(halves, 0) + all_of(halves, 1)) == X[:, 0].tolist()
    evaluation = as_source(X[:, :1], batch_size=2, steps=2, what="evaluate")
    assert xs(evaluation, 0) == xs(evaluation, 1) == [[0, 2], [4, 6]]


def test_split_takes_the_last_rows_and_no_class_weights():
    source = as_source(X, Y % 2, batch_size=3, class_weight={1: 5.0}, seed=2)
    train, validation = source.split(0.25, batch_size=2)
    assert (train.num_rows, validation.num_rows, validation.batch_size, train.batch_size) == (7, 3, 2, 3)
    assert sorted(all_of(train)) == X[:7, 0].tolist() and xs(validation) == [[14, 16], [18]]
    for _, y, weight in train.epoch(0):
        np.testing.assert_array_equal(weight, np.where(y == 1, 5, 1))
    assert validation.peek()[2] is None
    same = X[:, 0].copy()  # one array in two parts has two dtypes
    _, y, weight = as_source(X, same.astype(int), same.astype(int), shuffle=False).split(0.5)[1].peek()
    assert y.dtype == "int32" and weight.dtype == "float32" and y[0] == weight[0] == 10


# ---------------------------------------------------------------- batches that come ready-made


def test_py_dataset():
    data = Counted(4)
    source = as_source(data, shuffle=False)
    assert source.peek()[0].dtype == "float32" and source.num_batches == 4 and Sequence is PyDataset
    data.calls.clear()
    assert xs(source) == [[i, i] for i in range(4)]
    source.on_epoch_end()
    assert data.calls[0] == "begin" and data.calls[-1] == "end"
    shuffled = as_source(Counted(20), seed=1)
    assert sorted(xs(shuffled, 0)) == sorted(xs(shuffled, 1)) and xs(shuffled, 0) != xs(shuffled, 1)
    assert xs(as_source(Counted(20), seed=1), 1) == xs(shuffled, 1)
    endless = as_source(Counted(None), steps=3)
    assert xs(endless, 0) + xs(endless, 1) == [[i, i] for i in range(6)]
    assert [x[0, 0] for x, _ in Counted(3)] == [0, 1, 2]


def test_py_dataset_with_workers_keeps_the_order():
    data = Counted(12, workers=3, max_queue_size=4)
    source = as_source(data, shuffle=False)
    assert xs(source) == [[i, i] for i in range(12)]
    assert {name for _, name in data.calls[1:]} - {threading.current_thread().name}
    stopped = source.epoch(1)
    next(stopped)
    stopped.close()

    class Broken(Counted):
        def __getitem__(self, index):
            raise KeyError("the user's own")

    with pytest.raises(KeyError, match="own"):
        list(as_source(Broken(3, workers=2)).epoch(0))


def test_duck_typed_sequences():
    class Old:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.full((1, 1), index)

        def on_epoch_end(self):
            pass

    assert xs(as_source(Old(), shuffle=False)) == [[0], [1]]


def test_generator():
    source = as_source(iter(batches(7)), steps=3)
    assert source.peek()[1].tolist() == [0, 0] and source.num_batches == 3
    assert xs(source, 0) == [[0, 0], [1, 1], [2, 2]] and xs(source, 1)[-1] == [5, 5]
    with pytest.raises(DataError, match=r"steps_per_epoch=3.*ran dry in epoch 3: it gave 1 batches \(7 since"):
        xs(source, 2)
    whole = as_source(iter(batches(2)))
    assert whole.num_batches is None and len(xs(whole)) == 2
    with pytest.raises(DataError, match="used up: it gave 2 batches"):
        xs(whole, 1)
    taken = iter(batches(4))
    xs(as_source(taken, steps=3))
    assert next(taken)[1][0] == 3  # not one batch more than asked for is taken


def test_iterables_begin_anew():
    loader = Loader(batches(3))
    source = as_source(loader)
    source.peek()
    assert [len(xs(source, n)) for n in range(3)] == [3, 3, 3] and loader.passes == 3
    source = as_source(Loader(batches(3)), steps=2)
    assert xs(source, 0) + xs(source, 1) + xs(source, 2) == [[i % 3] * 2 for i in range(6)]
    assert xs(source, 3) == [[0, 0], [1, 1]]
    evaluation = as_source(Loader(batches(3)), steps=2, what="validation")
    assert xs(evaluation, 0) == xs(evaluation, 0) == [[0, 0], [1, 1]]
    with pytest.raises(DataError, match=r"validation_steps=4.*gave 3 batches"):
        xs(as_source(Loader(batches(3)), steps=4, what="validation"))
    with pytest.raises(DataError, match="no batches"):
        xs(as_source(Loader([])))
    assert as_source(type("Sized", (Loader,), {"__len__": lambda self: 3})(batches(3))).num_batches == 3
    stopped = as_source(Loader(batches(3)))
    next(stopped.epoch(0))
    assert len(xs(stopped, 1)) == 3


@pytest.mark.parametrize(
    ("element", "parts"),
    [
        (X, ("x",)),
        ((X,), ("x",)),
        ((X, Y), ("x", "y")),
        ((X, Y, Y), ("x", "y", "w")),
        ({"a": X}, ("dict",)),
        ([X, X], ("list",)),
        (([X, X], Y), ("list", "y")),
        ((jnp.asarray(X, "float32"), Y), ("jax", "y")),
        ((X, None), ("x",)),
    ],
)
def test_elements(element, parts):
    x, y, weight = next(as_source(iter([element])).epoch(0))
    kind = {"dict": dict, "list": list}.get(parts[0])
    assert kind is None or type(x) is kind
    leaf = x["a"] if kind is dict else x[0] if kind is list else x
    assert str(leaf.dtype) == "float32" and leaf.shape == (10, 2)
    assert (type(leaf) is np.ndarray) == (parts[0] != "jax")
    assert (y is None) == ("y" not in parts) and (weight is None) == ("w" not in parts)
    assert y is None or y.dtype == "int32"
    assert weight is None or weight.dtype == "float32"


def test_torch_loaders_give_lists_for_tuples():
    loader = type("DataLoader", (Loader,), {"__module__": "torch.utils.data.dataloader"})([[X, Y]])
    x, y, _ = as_source(loader).peek()
    assert x.shape == (10, 2) and y.shape == (10,)


def test_default_float_is_followed():
    dtypes.set_floatx("float64")
    try:
        assert as_source(X.astype("float32")).peek()[0].dtype == "float64"
        assert as_source(iter([X.astype("float16")])).peek()[0].dtype == "float64"
    finally:
        dtypes.set_floatx("float32")


# ---------------------------------------------------------------- class weights


ONE_HOT = np.eye(3)[[0, 1, 2, 1]]


@pytest.mark.parametrize(
    ("y", "weight", "table", "expected"),
    [
        (np.array([0, 1, 2, 1]), None, {0: 2, 1: 3.0}, [2, 3, 1, 3]),
        (np.array([[0], [1], [2], [1]]), None, {0: 2, 1: 3.0}, [2, 3, 1, 3]),
        (np.array([0.0, 1.0, 1.0, 0.0]), None, {np.int64(1): 3}, [1, 3, 3, 1]),
        (np.array([False, True, True, False]), None, {1: 3}, [1, 3, 3, 1]),
        (ONE_HOT, None, {0: 2, 1: 3}, [2, 3, 1, 3]),
        (ONE_HOT * 0.9 + 0.1 / 3, None, {0: 2, 1: 3}, [2, 3, 1, 3]),
        (np.array([0, 1, 2, 1]), np.array([1, 2, 3, 4]), {1: 3}, [1, 6, 3, 12]),
        (np.array([0, 1, 2, 1]), np.array([[1], [2], [3], [4]]), {1: 3}, [[1], [6], [3], [12]]),
        (np.array([0, 1, 2, 1]), None, {0: {1: 3}}, [1, 3, 1, 3]),
        ({"a": np.array([0, 1]), "b": np.array([0.5, 1])}, None, {"a": {1: 3}}, {"a": [1, 3], "b": None}),
        ({"a": np.array([0, 1]), "b": np.array([0, 1])}, [1.0, 2.0], {"b": {1: 3}}, {"a": [1, 2], "b": [1, 6]}),
        ({"a": np.array([0, 1]), "b": np.array([0, 1])}, {"b": [1.0, 2.0]}, {"a": {1: 3}}, {"a": [1, 3], "b": [1, 2]}),
        ([np.array([0, 1]), np.array([0, 1])], None, {1: {1: 3}}, [None, [1, 3]]),
        ([np.array([0, 1]), np.array([0, 1])], None, {"two": {1: 3}}, [None, [1, 3]]),
        ([np.array([0, 1])], None, {1: 3}, [[1, 3]]),
    ],
)
def test_class_weights(y, weight, table, expected):
    rows = len(next(iter(y.values())) if isinstance(y, dict) else y[0] if isinstance(y, list) else y)
    args = {"shuffle": False, "class_weight": table, "output_names": ["one", "two"]}
    found = [as_source(np.zeros(rows), y, weight, **args).peek()[2]]
    found.append(as_source(iter([(np.zeros(rows), y, weight)]), **args).peek()[2])
    for given in found:
        flat = ops.convert_to_numpy(given) if isinstance(given, np.ndarray) else given
        if isinstance(expected, dict):
            assert {k: None if v is None else v.tolist() for k, v in flat.items()} == expected
        elif isinstance(flat, list):
            assert [None if v is None else v.tolist() for v in flat] == expected
        else:
            assert flat.tolist() == expected and flat.dtype == "float32"


# ---------------------------------------------------------------- what is refused


def ragged():
    return [[1, 2], [3]]


LABELS = {"class_weight": {0: 1.0}}
REFUSED = [
    ((None,), {}, "x is None"),
    ((np.zeros((0, 3)),), {}, r"no rows.*\(0, 3\)"),
    (([],), {}, "no rows"),
    (({},), {}, "no arrays"),
    (([None, None],), {}, "no arrays"),
    (
        ({"image": X, "text": X[:7]}, Y),
        {},
        r"x\['image'\] has 10 rows \(shape \(10, 2\)\), x\['text'\] has 7 rows.*y has 10",
    ),
    ((X, Y, np.ones(9)), {}, "sample_weight has 9 rows"),
    ((X, [Y, Y], np.ones((10, 3))), {}, "one sample_weight of shape"),
    ((np.array(["a", "b"]),), {}, "text in x"),
    ((["a", "b"],), {}, "text in x"),
    ((X, {"out": np.array([1, None])}), {}, r"objects.*y\['out'\]"),
    ((np.zeros(3, complex),), {}, "dtype complex128"),
    ((np.zeros(3, "M8[s]"),), {}, "dtype datetime64"),
    ((ragged(),), {}, "rows differ in length"),
    ((np.float32(3),), {}, "single number"),
    ((pd.DataFrame({"a": [1.0], "kind": ["x"]}),), {}, "the column 'kind'"),
    ((pd.Series(["a"]),), {}, "x .*dtype"),
    ((np.ma.masked_array(X, X > 3),), {}, "masked"),
    ((type("csr", (), {"toarray": None, "shape": (2, 2)})(),), {}, r"x\.toarray\(\)"),
    (([X, object()],), {}, r"x\[1\] of type object"),
    ((object(),), {}, "type object"),
    (("data.csv",), {}, "text as x"),
    ((ragged,), {}, r"call it: ragged\(\)"),
    ((X,), {"batch_size": 3, "steps": 5}, "steps_per_epoch=5, but 10 rows make 4"),
    ((Counted(2), Y), {}, "y along with the PyDataset Counted"),
    ((iter([X]), None, Y), {}, "sample_weight along with an iterator"),
    ((iter([X]),), {"batch_size": 2}, "batch_size=2 along with"),
    ((iter([X]),), {"shuffle": "batch"}, "shuffle='batch'"),
    ((Counted(None),), {}, "no end"),
    ((Counted(0),), {}, "no rows"),
    ((Counted(2),), {"steps": 3}, "has 2 batches"),
    ((iter([]),), {}, "no batches"),
    ((iter([(X, Y, Y, Y)]),), {}, "tuple of 4"),
    ((iter([()]),), {}, "tuple of 0"),
    ((iter([None]),), {}, "x is None"),
    ((iter([(X, Y[:3])]),), {}, "in a batch from an iterator"),
    ((iter(["text"]),), {}, "x of type str"),
    ((iter([{"x": 1.0}]),), {}, r"single number as x\['x'\]"),
    ((iter([(X, object())]),), {}, "y of type object"),
    ((type("Endless", (Loader,), {"cardinality": lambda self: -1})([X]),), {}, "no end"),
    ((X,), LABELS, "no targets"),
    ((X, Y + 0.5), LABELS, "not whole"),
    ((X, np.arange(40).reshape(10, 4)), LABELS, "neither class numbers nor one-hot"),
    ((X, [Y, Y]), LABELS, "one class_weight for 2 outputs"),
    ((X, {"out": Y}), {"class_weight": {"uot": {0: 1}}}, "'uot'; did you mean 'out'"),
    ((X, [Y, Y]), {"class_weight": {"out": {0: 1}}}, "pass y as a dict"),
    ((X, Y), {"class_weight": {"cat": 1.0}}, "whole numbers as classes"),
    ((X, Y), {"class_weight": {0: math.nan}}, "finite"),
    ((X, Y), {"class_weight": {0: 1.0, "a": {1: 2}}}, "mixes"),
    ((X, Y), {"class_weight": [1.0]}, "of type list"),
]


@pytest.mark.parametrize(("args", "kwargs", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refused(args, kwargs, message):
    with pytest.raises(DataError, match=f"(?s)fit got.*{message}"):
        as_source(*args, **kwargs).peek()


def test_refused_arguments_and_splits():
    for bad in ({"batch_size": 0}, {"steps": -1}, {"shuffle": "rows"}, {"batch_size": 2.5}):
        with pytest.raises(ArgumentError, match=next(iter(bad))):
            as_source(X, **bad)
    with pytest.raises(ArgumentError, match="validation_split"):
        as_source(X).split(1.0)
    with pytest.raises(DataError, match="0 for training"):
        as_source(X[:2]).split(0.9)
    for source in (as_source(Counted(2)), as_source(iter([X]))):
        with pytest.raises(DataError, match="validation_data"):
            source.split(0.5)


# ---------------------------------------------------------------- utils


def test_to_categorical_and_normalize():
    import keras

    for labels in ([0, 2, 1], [[0], [3]], np.array([[1, 0], [2, 2]])):
        np.testing.assert_array_equal(to_categorical(labels), keras.utils.to_categorical(labels))
    assert to_categorical(jnp.array([[1], [0]]), 3).shape == (2, 3)
    for bad in ([-1, 0], [0.5], ["a"], []):
        with pytest.raises(ArgumentError):
            to_categorical(bad)
    with pytest.raises(ArgumentError, match="from 0 to 5 for 3"):
        to_categorical([0, 5], 3)
    for order in (1, 2):
        np.testing.assert_allclose(normalize(X, order=order), keras.utils.normalize(X, order=order))
