"""Promotion is Keras's, for all pairs; names of dtypes."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import cornu
from cornu.core import dtypes
from cornu.core.errors import ArgumentError, DtypeError

EVERY = [*dtypes.ALL, "int", "float"]


# Where the lattice's answer has 64 bits, Keras cuts it down to 32, as JAX does without its 64-bit switch. Cornu keeps
# them: an int64 or float64 array stays one on every engine, and int32 with uint32 meets in int64, which holds both.
CUT_BY_KERAS = {"int64": "int32", "uint64": "uint32", "float64": "float32"}


def test_promotion_equals_keras_for_all_pairs_and_triples():
    from keras.src.backend.common.dtypes import result_type

    python = {"int": int, "float": float}
    for names in [*itertools.product(EVERY, repeat=2), *itertools.combinations_with_replacement(EVERY, 3)]:
        found = dtypes.promote(*names)
        wanted = result_type(*(python.get(name, name) for name in names))
        assert CUT_BY_KERAS.get(found, found) == wanted, names
    assert dtypes.promote("int32", "uint32") == "int64" and dtypes.promote("float64", "float32") == "float64"
    assert dtypes.promote("uint64", "int64") == "float32"  # the lattice's own answer, Keras's too


def test_promotion_is_symmetric_and_associative():
    for a, b in itertools.product(dtypes.ALL, repeat=2):
        assert dtypes.promote(a, b) == dtypes.promote(b, a)
    for a, b, c in itertools.combinations(dtypes.ALL, 3):
        assert dtypes.promote(a, b, c) == dtypes.promote(a, c, b) == dtypes.promote(c, b, a)


@pytest.mark.parametrize("left", dtypes.ALL)
def test_ops_promote_alike_on_both_engines(left):
    # Keras on JAX without the 64-bit switch would cut float64 and int64 down to 32 bits; here 64 bits stay 64.
    for right in [*dtypes.ALL, 2, 2.5]:
        strong = isinstance(right, str)
        x = np.ones(2).astype(dtypes.numpy_dtype(left))
        y = np.ones(2).astype(dtypes.numpy_dtype(right)) if strong else right
        wanted = dtypes.promote(left, right if strong else type(right).__name__)
        results = []
        for engine in ("numpy", "jax"):
            with cornu.engine(engine):
                results.append(cornu.ops.convert_to_numpy(cornu.ops.add(x, y)))
        for found in results:
            assert found.dtype.name == wanted, (left, right)
        np.testing.assert_array_equal(results[0].astype("float64"), results[1].astype("float64"))
    assert jnp.arange(4.0).dtype == np.float32


def test_weak_numbers_take_the_arrays_dtype(engine):
    ops = cornu.ops
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        x = ops.cast(np.ones(2), dtype)
        for number in (2, 2.5, True, np.float64(0.1)):
            assert ops.dtype(ops.multiply(x, number)) == dtype
    assert ops.dtype(ops.add(ops.cast([1], "int8"), 1)) == "int8"
    assert ops.dtype(ops.add(ops.cast([1], "int8"), 1.5)) == "float32"
    assert ops.dtype(ops.convert_to_tensor([1, 2])) == "int32"
    assert ops.dtype(ops.convert_to_tensor([1.0, 2])) == "float32"
    assert ops.dtype(ops.convert_to_tensor([True])) == "bool"


def test_names():
    for given, name in [
        (None, "float32"),
        ("half", "float16"),
        (int, "int32"),
        (float, "float32"),
        (bool, "bool"),
        (np.int16, "int16"),
        (np.dtype("float64"), "float64"),
        (jnp.bfloat16, "bfloat16"),
        (jnp.float32, "float32"),
        ("int", "int32"),
        (np.bool_, "bool"),
    ]:
        assert dtypes.standardize_dtype(given) == name
    for wrong in ("float31", object, 3):
        with pytest.raises(DtypeError):
            dtypes.standardize_dtype(wrong)


def test_floatx():
    dtypes.set_floatx("float16")
    try:
        assert dtypes.promote("int") == "int32" and dtypes.promote("float") == "float16"
        with cornu.engine("numpy"):
            assert cornu.ops.zeros(2).dtype == np.float16
            assert cornu.ops.exp(np.arange(2)).dtype == np.float16
    finally:
        dtypes.set_floatx("float32")
    with pytest.raises(ArgumentError):
        dtypes.set_floatx("int32")


def test_kinds_and_sizes():
    assert [dtypes.size_of(d) for d in ("bool", "int16", "bfloat16", "float64")] == [1, 2, 2, 8]
    assert dtypes.is_float("bfloat16") and not dtypes.is_float("int8")
    assert dtypes.is_integer("uint8") and not dtypes.is_integer("bool")
    assert dtypes.is_signed("int8") and not dtypes.is_signed("uint8")
