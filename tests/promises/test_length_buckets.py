"""Sequences of many lengths compile a bounded number of times, say so, and give the numbers of the exact lengths."""

import pickle

import numpy as np
import pytest

import cornu
from cornu import Model, layers
from cornu.core.errors import ArgumentError, CornuWarning, DataError
from cornu.training import shapes
from cornu.utils import LengthBuckets, PyDataset, bucket_batches

RNG = np.random.default_rng(7)
LENGTHS = RNG.permutation([2, 30, *RNG.integers(2, 31, size=48)])
ROWS = [RNG.integers(1, 20, size=n) for n in LENGTHS]
LABELS = RNG.integers(0, 3, size=50)
STEPS = [RNG.normal(size=(n, 2)).astype("float32") for n in LENGTHS]
FEATURES = [RNG.normal(size=(n, 3)).astype("float32") for n in LENGTHS]
FOUR = [(RNG.integers(1, 20, size=(4, n)), RNG.integers(0, 3, size=4)) for n in LENGTHS]


class Watched(layers.Layer):
    """Notes the shapes it is traced for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.traced = []

    def call(self, x):
        if not cornu.core.context.is_abstract():
            self.traced.append(tuple(x.shape))
        return x


class Again:
    """An iterable of batches (a list would be several inputs)."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Numbered(PyDataset):
    def __init__(self, batches, **kwargs):
        super().__init__(**kwargs)
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def classifier(kind=layers.GRU, watched=None):
    cornu.utils.set_random_seed(3)
    x = cornu.Input((None,), dtype="int32")
    h = layers.Embedding(20, 6, mask_zero=True)(x)
    h = watched(h) if watched is not None else h
    model = Model(x, layers.Dense(3)(kind(5)(h)))
    loss = cornu.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        cornu.optimizers.SGD(0.3), loss, metrics=[cornu.metrics.SparseCategoricalCrossentropy(from_logits=True)]
    )
    return model


def tagger(kind=layers.GRU):
    """An output for each step, after `Masking`."""
    cornu.utils.set_random_seed(3)
    x = cornu.Input((None, 3))
    h = kind(5, return_sequences=True)(layers.Masking(-1.0)(x))
    model = Model(x, layers.Dense(2)(h))
    model.compile(cornu.optimizers.SGD(0.3), "mse", metrics=["mae"], weighted_metrics=["mse"])
    return model


@pytest.fixture(scope="module")
def exact():
    """The losses, metrics and predictions of the classifier on batches of the exact lengths."""
    model = classifier()
    history = model.fit(Again(FOUR), verbose=0, engine="numpy").history
    return history, [model.predict(x, verbose=0, engine="numpy") for x, _ in FOUR[:10]]


# ---------------------------------------------------------------- the promise


def test_fifty_lengths_compile_a_bounded_number_of_times(capsys):
    watched = Watched()
    model = classifier(watched=watched)
    buckets = LengthBuckets(ROWS, LABELS, model=model, batch_size=4)
    watched.traced.clear()
    model.fit(buckets, epochs=3, verbose=0, engine="jax")
    # 8, 16 and 30 steps, and the two rows that are left over.
    assert len(set(watched.traced)) <= 4 < len(set(LENGTHS)) and {shape[1] for shape in watched.traced} <= {8, 16, 30}
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and f"{len(set(LENGTHS))} lengths (2 to 30) in 4 shapes" in said
    assert "of the steps are padding" in said and said.strip() == buckets.report() and buckets.report() in repr(buckets)


def test_batches_compile_a_bounded_number_of_times(capsys):
    watched = Watched()
    model = classifier(watched=watched)
    batches = bucket_batches(Again(FOUR), model=model)
    model.fit(batches, epochs=2, verbose=0, engine="jax")
    tried = [shape for shape in watched.traced if shape[0] == 1]  # the model, on the first row
    assert {shape[:2] for shape in watched.traced if shape not in tried} == {(4, 8), (4, 16), (4, 32)}
    assert len(tried) == 2
    assert capsys.readouterr().out.strip() == batches.report()  # said once
    assert f"{len(set(LENGTHS))} lengths (2 to 30) in 3 shapes" in batches.report()


def test_the_numbers_are_those_of_the_exact_lengths(engine, exact):
    history, predictions = exact
    model = classifier()
    batches = bucket_batches(Again(FOUR), model=model, verbose=False)
    found = model.fit(batches, verbose=0).history
    assert set(found) == set(history)
    for name in history:
        np.testing.assert_allclose(found[name], history[name], rtol=1e-5, atol=1e-6)
    for (x, y), expected in zip(FOUR, predictions, strict=False):
        padded = bucket_batches(Again([(x, y)]), model=None, verbose=False)
        np.testing.assert_allclose(model.predict(padded, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighted", [None, "rows", "steps"])
def test_targets_per_step(engine, weighted):
    """Loss and metrics of each batch, and what training makes of them; weights per row, per step, or none."""
    source = []
    for n in LENGTHS[:4]:
        x, y = RNG.normal(size=(3, n, 3)).astype("float32"), RNG.normal(size=(3, n, 2)).astype("float32")
        weight = {"rows": RNG.uniform(size=(3, 1)), "steps": RNG.uniform(size=(3, n))}.get(weighted)
        source.append((x, y) if weight is None else (x, y, weight))
    one, other = tagger(), tagger()
    batches = bucket_batches(Again(source), model=other, targets=True, value=-1, verbose=False)
    for exact, padded in zip(source, batches, strict=True):
        expected = one.test_on_batch(*exact, return_dict=True, engine="numpy")
        found = other.test_on_batch(*padded, return_dict=True)
        assert set(expected) == {"loss", "mae", "mse"}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5)
    expected = one.fit(Again(source), verbose=0, engine="numpy").history["loss"]
    np.testing.assert_allclose(other.fit(batches, verbose=0).history["loss"], expected, rtol=1e-5)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_predictions_come_in_the_order_of_the_rows_without_padding(engine):
    model = classifier()
    buckets = LengthBuckets(ROWS[:12], model=model, batch_size=4, verbose=False)
    alone = [model.predict(row[None], verbose=0, engine="numpy")[0] for row in ROWS[:12]]
    np.testing.assert_allclose(buckets.predict(model), alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.predict(buckets, verbose=0), alone, rtol=1e-5, atol=1e-5)  # no y: in order
    mixed = LengthBuckets(ROWS[:12], LABELS[:12], model=None, batch_size=4, verbose=False)
    np.testing.assert_allclose(model.predict(mixed.in_order(), verbose=0), alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mixed.predict(model), alone, rtol=1e-5, atol=1e-5)
    tags = tagger()
    found = LengthBuckets(FEATURES[:12], model=tags, value=-1, batch_size=4, verbose=False).predict(tags)
    for row, output in zip(FEATURES, found, strict=False):
        assert output.shape == (len(row), 2)
        np.testing.assert_allclose(output, tags.predict(row[None], verbose=0, engine="numpy")[0], rtol=1e-5, atol=1e-5)


def test_a_row_per_batch_gives_each_row_s_own_loss(engine):
    """Rows with targets per step, shuffled: each loss is that of the row alone."""
    model = tagger()
    expected = sorted(
        model.test_on_batch(x[None], y[None], engine="numpy")[0] for x, y in zip(FEATURES[:6], STEPS, strict=False)
    )
    buckets = LengthBuckets(FEATURES[:6], STEPS[:6], model=model, value=-1, batch_size=1, verbose=False)
    found = sorted(model.test_on_batch(*batch)[0] for batch in buckets)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_as_keras_has_it():
    """Keras, given the same padded batches and weights, finds the same losses."""
    keras = pytest.importorskip("keras")
    x = keras.Input((None, 3))
    h = keras.layers.LSTM(5, return_sequences=True)(keras.layers.Masking(-1.0)(x))
    theirs = keras.Model(x, keras.layers.Dense(2)(h))
    theirs.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    ours = tagger(layers.LSTM)
    theirs.set_weights(ours.get_weights())
    buckets = LengthBuckets(FEATURES[:9], STEPS[:9], model=ours, value=-1, batch_size=4, verbose=False, lengths=[40])
    for inputs, targets, weights in buckets:
        expected = theirs.test_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
        found = ours.test_on_batch(inputs, targets, sample_weight=weights, return_dict=True, engine="jax")
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], float(value), rtol=1e-5)


# ---------------------------------------------------------------- batches


def test_what_is_in_the_batches():
    """Each row once, in a bucket that holds it, as long as it must be; what is left of a bucket goes with the next."""
    buckets = LengthBuckets(ROWS, LABELS, model=None, batch_size=4, verbose=False, seed=1)
    rows = []
    for x, y in buckets:
        assert x.dtype == np.int32 and len(x) == len(y)
        for row, label in zip(x, y, strict=True):
            rows.append((tuple(row[row != 0]), int(label)))
    assert sorted(rows) == sorted((tuple(row), int(label)) for row, label in zip(ROWS, LABELS, strict=True))
    assert sorted(len(x) for x, _ in buckets) == [2] + [4] * 12
    order = [x.tolist() for x, _ in buckets]
    buckets.on_epoch_end()
    mixed = [x.tolist() for x, _ in buckets]
    assert mixed != order and len(mixed) == len(order)
    again = LengthBuckets(ROWS, LABELS, model=None, batch_size=4, verbose=False, seed=1)
    assert [x.tolist() for x, _ in again] == order  # a pure function of the seed and the epoch
    plain = LengthBuckets(ROWS, LABELS, model=None, batch_size=4, verbose=False, shuffle=False)
    plain.on_epoch_end()
    sizes = [x.shape[1] for x, _ in plain]
    assert sizes == sorted(sizes)


def test_several_inputs_and_outputs():
    ages = np.arange(50.0)
    buckets = LengthBuckets(
        {"words": ROWS, "features": FEATURES, "age": ages}, {"tags": STEPS, "label": LABELS},
        {"label": np.linspace(0, 1, 50)}, model=None, value={"words": 0, "features": -1.0}, batch_size=8, verbose=False,
    )  # fmt: skip
    for x, y, weight in buckets:
        rows, length = x["words"].shape
        assert x["features"].shape == (rows, length, 3) and y["tags"].shape == (rows, length, 2)
        np.testing.assert_array_equal(weight["tags"], x["words"] != 0)
        for words, features, age, target, label, factor in zip(
            x["words"], x["features"], x["age"], y["tags"], y["label"], weight["label"], strict=True
        ):
            row, steps = int(age), int((words != 0).sum())
            np.testing.assert_array_equal(features[:steps], FEATURES[row])
            assert (features[steps:] == -1).all() and (target[steps:] == 0).all()
            assert label == LABELS[row] and factor == pytest.approx(row / 49)
            np.testing.assert_array_equal(target[:steps], STEPS[row])


def test_several_inputs_in_batches():
    source = [({"words": x, "age": np.ones((4, 9))}, y) for x, y in FOUR]
    with pytest.raises(ArgumentError, match="which of them are sequences"):
        list(bucket_batches(Again(source), model=None))
    for x, _ in bucket_batches(Again(source), model=None, sequences="words", verbose=False):
        assert x["words"].shape[1] in (8, 16, 32) and x["age"].shape == (4, 9)


def test_sources_of_batches():
    """A `PyDataset`, a function, an iterator: each gives what it is, padded."""
    expected = [x.shape for x, _ in bucket_batches(Again(FOUR), model=None, verbose=False)]
    numbered = bucket_batches(Numbered(FOUR, workers=2), model=None, verbose=False)
    assert isinstance(numbered, PyDataset) and numbered.workers == 2 and len(list(numbered)) == 50
    assert [numbered[i][0].shape for i in range(50)] == expected
    called = bucket_batches(lambda: iter(FOUR), model=None, verbose=False)
    for _ in range(2):
        assert [x.shape for x, _ in called] == expected
    once = bucket_batches(iter(FOUR), model=None, verbose=False)
    assert [x.shape for x, _ in once] == expected and next(once, None) is None
    for x in bucket_batches(Again([FOUR[0][0], (FOUR[1][0],)]), model=None, verbose=False):
        assert len(x) == 1 and x[0].shape[0] == 4


def test_engines_arrays_and_loaders(engine):
    tensors = [(cornu.ops.convert_to_tensor(x), y) for x, y in FOUR[:3]]
    for (x, _), (plain, _) in zip(bucket_batches(Again(tensors), model=None, verbose=False), FOUR, strict=False):
        np.testing.assert_array_equal(x[:, : plain.shape[1]], plain)


@pytest.mark.parametrize("workers", [1, 3])
def test_pickles_and_workers(workers):
    model = classifier()
    made = [
        LengthBuckets(ROWS[:16], LABELS[:16], model=model, batch_size=4, verbose=False, seed=5, workers=workers),
        bucket_batches(Numbered(FOUR[:4], workers=workers), model=model, verbose=False),
    ]
    for buckets in made:
        copy = pickle.loads(pickle.dumps(buckets))
        one, other = classifier(), classifier()
        first = one.fit(buckets, verbose=0, engine="numpy", seed=0).history
        second = other.fit(copy, verbose=0, engine="numpy", seed=0).history
        assert first == second


# ---------------------------------------------------------------- what is refused


def test_a_model_that_does_not_mask_is_refused():
    x = cornu.Input((None,), dtype="int32")
    unmasked = Model(x, layers.Dense(3)(layers.GRU(5)(layers.Embedding(20, 6)(x))))
    for make in (
        lambda model, **rest: LengthBuckets(ROWS, LABELS, model=model, verbose=False, **rest),
        lambda model, **rest: list(bucket_batches(Again(FOUR), model=model, verbose=False, **rest)),
        lambda model, **rest: bucket_batches(Numbered(FOUR), model=model, verbose=False, **rest),
    ):
        with pytest.raises(DataError, match="no layer that makes a mask"):
            make(unmasked)
        with pytest.raises(DataError, match="pads with 7.0, .* no layer that makes a mask"):
            make(classifier(), value=7)


def test_a_model_that_looks_past_the_mask_is_refused():
    """There is a mask, and a layer that takes padding for data all the same."""
    x = cornu.Input((None,), dtype="int32")
    h = layers.Embedding(20, 6, mask_zero=True)(x)
    h = layers.Conv1D(4, 3, padding="same")(cornu.ops.drop_mask(h))
    leaking = Model(x, layers.Dense(3)(layers.GlobalMaxPooling1D()(h)))
    with pytest.raises(DataError, match="padding changes what model .* differs by up to"):
        LengthBuckets(ROWS, LABELS, model=leaking, verbose=False)
    pooled = Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Embedding(20, 6, mask_zero=True)(x))))
    LengthBuckets(ROWS, LABELS, model=pooled, verbose=False)


def test_an_output_per_step_without_a_mask_is_refused():
    x = cornu.Input((None, 3))
    h = layers.GRU(5, return_sequences=True)(layers.Masking(-1.0)(x))
    bare = Model(x, layers.Dense(2)(cornu.ops.drop_mask(h)))
    with pytest.raises(DataError, match="has no mask, and its targets have steps"):
        LengthBuckets(FEATURES, STEPS, model=bare, value=-1, verbose=False)
    LengthBuckets(FEATURES, model=bare, value=-1, verbose=False)  # to predict is another thing


def test_models_of_one_s_own():
    """Those that make a mask by hand are tried, not asked; one that forgets is found out."""

    class ByHand(Model):
        def __init__(self, masks):
            super().__init__()
            self.masks, self.table, self.cell = masks, layers.Embedding(20, 6), layers.GRU(5)

        def call(self, x):
            return self.cell(self.table(x), mask=cornu.ops.not_equal(x, 0) if self.masks else None)

    assert len(LengthBuckets(ROWS, LABELS, model=ByHand(True), verbose=False))
    with pytest.raises(DataError, match="padding changes what model"):
        LengthBuckets(ROWS, LABELS, model=ByHand(False), verbose=False)


def test_trying_a_model_leaves_no_trace():
    x = cornu.Input((None,), dtype="int32", batch_size=1)
    h = layers.Embedding(20, 6, mask_zero=True)(x)
    model = Model(x, layers.Dense(3)(layers.GRU(5, stateful=True)(h)))
    LengthBuckets(ROWS, LABELS, model=model, verbose=False)
    assert all((np.asarray(state) == 0).all() for state in model.layers[2].states)


def test_a_value_that_occurs_in_the_data():
    """It is told; the numbers are still those of the exact lengths, where the model masks that value too."""
    rows = [row.copy() for row in ROWS[:6]]
    rows[2][1] = 0
    model = classifier()
    with pytest.warns(CornuWarning, match=r"pads x with 0, which 1 of its own steps hold throughout"):
        buckets = LengthBuckets(rows, model=model, verbose=False)
    alone = [model.predict(row[None], verbose=0, engine="numpy")[0] for row in rows]
    np.testing.assert_allclose(buckets.predict(model, engine="numpy"), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, options, error, match",
    [
        (([],), {}, DataError, "no rows"),
        (([[1, 2], []],), {}, DataError, r"an empty sequence: x\[1\]"),
        (([1, 2, 3],), {}, DataError, "a single number as x"),
        (([[1, 2], 3],), {}, DataError, r"a single number as x\[1\]"),
        ((["ab", "c"],), {}, DataError, "expected"),
        ((None,), {}, DataError, "x of type NoneType"),
        ((lambda: None,), {}, DataError, "bucket_batches"),
        ((ROWS, LABELS[:49]), {}, DataError, "x has 50 rows, y has 49 rows"),
        ((ROWS, LABELS, np.ones(3)), {}, DataError, "sample_weight has 3 rows"),
        ((ROWS, LABELS, {"head": np.ones(50)}), {}, DataError, "sample_weight for 'head'"),
        ((FEATURES, [y[:-1] for y in STEPS]), {}, DataError, r"y\[0\] with .* steps for a sequence of"),
        ((FEATURES, STEPS, [y[1:, 0] for y in STEPS]), {}, DataError, "other lengths than its targets"),
        (([x.T for x in FEATURES],), {}, DataError, "differ in more than time"),
        ((ROWS,), {"lengths": [8, 16]}, DataError, "a sequence of length 30"),
        ((ROWS,), {"lengths": []}, ArgumentError, "lengths="),
        ((ROWS,), {"lengths": [0, 8]}, ArgumentError, "lengths="),
        ((ROWS,), {"lengths": "auto"}, ArgumentError, "lengths="),
        ((ROWS,), {"batch_size": 0}, ArgumentError, "batch_size"),
        ((ROWS,), {"value": 0.5}, ArgumentError, "value=0.5 for sequences of dtype int32"),
        ((FEATURES,), {"value": float("nan")}, ArgumentError, "a number"),
        (({"a": ROWS},), {"value": {"b": 1}}, ArgumentError, "a value for the sequences 'a'"),
        (({"a": ROWS, "b": LABELS},), {"sequences": "c"}, ArgumentError, "names among 'a', 'b'"),
        (({"b": LABELS},), {}, DataError, "no sequences among"),
        (({"a": ROWS, "b": LABELS[:9]},), {}, DataError, "has 50 rows, .* has 9 rows"),
        (([[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]), {}, ArgumentError, "cannot tell whether y holds a target per step"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(arguments, options, error, match):
    with pytest.raises(error, match=match):
        LengthBuckets(*arguments, model=None, verbose=False, **options)


@pytest.mark.parametrize(
    "batches, options, error, match",
    [
        ([np.zeros(4)], {}, DataError, r"\(batch, time, ...\)"),
        ([np.zeros((4, 0))], {}, DataError, "without steps"),
        ([(1, 2, 3, 4)], {}, DataError, "a batch of 4 parts"),
        ([np.ones((2, 9))], {"lengths": [8]}, DataError, "at most 8"),
        ([(np.ones((2, 9)), np.ones((2, 9)))], {}, ArgumentError, "cannot tell whether the targets"),
        ([(np.ones((2, 9)), np.ones((2, 8)))], {"targets": True}, DataError, "for sequences of 9 steps"),
        (
            [(np.ones((2, 9)), np.ones((2, 9)), np.ones((2, 20)))],
            {"targets": True},
            DataError,
            "sample_weight of shape",
        ),
    ],
)
def test_batches_that_do_not_fit(batches, options, error, match):
    with pytest.raises(error, match=match):
        list(bucket_batches(Again(batches), model=None, verbose=False, **options))


@pytest.mark.parametrize("source", [3, np.ones((2, 3)), {"x": 1}, "text"])
def test_what_gives_no_batches(source):
    with pytest.raises(DataError, match="a source of type"):
        bucket_batches(source, model=None)


def test_targets_of_one_length_where_somebody_says():
    rows, targets = [[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]
    ((_, y),) = LengthBuckets(rows, targets, model=None, targets=False, verbose=False, lengths=[4])
    assert y.shape == (2, 2)
    ((_, y, weight),) = LengthBuckets(rows, targets, model=None, targets=True, verbose=False, lengths=[4])
    assert y.shape == (2, 4) and weight.sum() == 4


# ---------------------------------------------------------------- who is told


def test_a_step_compiled_for_many_shapes_is_told(engine):
    """Once for a model, with the argument and the remedy, on engines that compile."""

    class Told(Model):
        def train_step(self, data):
            shapes.met(self.train_step, data)
            return super().train_step(data)

    x = cornu.Input((None,), dtype="int32", name="words")
    model = Told(x, layers.Dense(1)(layers.GlobalAveragePooling1D()(layers.Embedding(5, 2)(x))))
    model.compile("sgd", "mse")
    batches = [({"words": np.ones((2, n), "int32")}, np.zeros((2, 1))) for n in range(1, shapes.MANY + 2)]
    model.fit(Again(batches[:-1]), verbose=0)  # eight shapes are no matter
    with pytest.warns(CornuWarning) as said:
        model.fit(Again(batches), verbose=0)
        model.fit(Again(batches), verbose=0)
    (one,) = said
    text = str(one.message)
    assert "train_step of model" in text and "compiled for 17 shapes" in text and "LengthBuckets" in text
    assert "axis 1 of x['words'] (1, 2, 3, 4 ... 17)" in text


def test_batch_sizes_have_another_remedy():
    class One:
        name = "one"

        def train_step(self, batch):
            shapes.met(self.train_step, batch)

    model = One()
    for rows in range(1, shapes.MANY + 1):
        model.train_step((np.ones((rows, 3)), np.ones(rows), None))
    with pytest.warns(CornuWarning, match=r"axis 0 of x .* as many rows"):
        model.train_step((np.ones((99, 3)), np.ones(99), None))
