"""Optimizers: ten steps beside Keras's, eager and compiled; state in Keras's order; configs; what goes wrong."""

import copy
import warnings

import jax
import keras
import numpy as np
import pytest

import cornu
from cornu import constraints, ops, optimizers
from cornu.core import context
from cornu.core.errors import ArgumentError, BindingError, BuildError, CornuWarning, DtypeError, ShapeError
from cornu.optimizers import schedules

rng = np.random.default_rng(0)
SHAPES = [(4, 3), (3,), ()]
START = [np.asarray(rng.normal(size=shape), "float32") for shape in SHAPES]
GRADS = [[np.asarray(rng.normal(size=shape) * 2, "float32") for shape in SHAPES] for _ in range(10)]

CASES = [
    ("SGD", {"learning_rate": 0.1}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "clipvalue": 0.5}),
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.1, "clipnorm": 0.7}),
    ("SGD", {"learning_rate": 0.1, "global_clipnorm": 0.7, "use_ema": True, "ema_momentum": 0.8}),
    ("SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 3}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "gradient_accumulation_steps": 3, "loss_scale_factor": 4.0}),
    ("Adam", {"learning_rate": 0.1}),
    ("Adam", {"learning_rate": 0.1, "amsgrad": True, "beta_1": 0.7, "beta_2": 0.8, "epsilon": 1e-3}),
    ("Adam", {"learning_rate": 0.1, "gradient_accumulation_steps": 2, "use_ema": True, "clipnorm": 1.0}),
    ("AdamW", {"learning_rate": 0.1, "weight_decay": 0.05}),
    ("RMSprop", {"learning_rate": 0.05}),
    ("RMSprop", {"learning_rate": 0.05, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.3}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Adamax", {"learning_rate": 0.1}),
    ("Nadam", {"learning_rate": 0.1, "use_ema": True}),
    ("Nadam", {"learning_rate": 0.1, "gradient_accumulation_steps": 3}),
    ("Lion", {"learning_rate": 0.1}),
    ("Ftrl", {"learning_rate": 0.1, "l1_regularization_strength": 0.1, "l2_regularization_strength": 0.1}),
    ("Ftrl", {"learning_rate": 0.1, "l2_shrinkage_regularization_strength": 0.1, "beta": 0.2}),
    ("Lamb", {"learning_rate": 0.1, "weight_decay": 0.01}),
    ("LossScaleOptimizer", {"initial_scale": 8.0, "dynamic_growth_steps": 3}),
]
NAMES = [f"{name}-{'-'.join(k for k in options if k != 'learning_rate')}" for name, options in CASES]


def ours(name, options):
    options = dict(options)
    if name == "LossScaleOptimizer":
        return optimizers.LossScaleOptimizer(optimizers.Adam(0.1, weight_decay=0.1), **options)
    return getattr(optimizers, name)(**options)


def theirs(name, options):
    if name == "LossScaleOptimizer":
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1, weight_decay=0.1), **options)
    return getattr(keras.optimizers, name)(**options)


def weights():
    return [cornu.Variable(value, name=f"w{i}") for i, value in enumerate(START)]


def gradients(name, step):
    """Those of a step; for loss scaling, one step has an infinite one."""
    found = [g.copy() for g in GRADS[step]]
    if name == "LossScaleOptimizer" and step == 4:
        found[0][0] = np.inf
    return found


_expected = {}


def expected(name, options):
    """What Keras makes of the weights and of its own state."""
    key = name, tuple(options.items())
    if key not in _expected:
        variables = [keras.Variable(value, name=f"w{i}") for i, value in enumerate(START)]
        judge = theirs(name, options)
        judge.build(variables)
        names = [v.path.rpartition("/")[2] for v in judge.variables]
        step = jax.jit(judge.stateless_apply)
        values, state = [v.value for v in variables], [v.value for v in judge.variables]
        for i in range(10):
            values, state = step(state, gradients(name, i), values)
        _expected[key] = values, list(zip(names, map(np.asarray, state), strict=True))
    return _expected[key]


def assert_as_expected(name, options, values, optimizer, state):
    wanted, wanted_state = expected(name, options)
    for found, want in zip(values, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(found), want, rtol=2e-5, atol=2e-6)
    for variable, found, (known, want) in zip(optimizer.variables, state, wanted_state, strict=True):
        assert variable.shape == want.shape and variable.dtype == want.dtype
        assert variable.name == known or known.startswith("variable")  # Keras leaves one unnamed
        np.testing.assert_allclose(np.asarray(found), want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_ten_eager_steps(name, options):
    with cornu.engine("numpy"):
        variables, optimizer = weights(), ours(name, options)
        for step in range(10):
            optimizer.apply_gradients(zip(gradients(name, step), variables, strict=True))
        state = optimizer.get_weights()
        assert_as_expected(name, options, [v.numpy() for v in variables], optimizer, state)


# Each rule and each option once: compiling takes most of the time here.
COMPILED = [i for i in range(len(CASES)) if i not in (0, 1, 3, 7, 11, 13, 16, 19)]


@pytest.mark.parametrize(("name", "options"), [CASES[i] for i in COMPILED], ids=[NAMES[i] for i in COMPILED])
def test_ten_compiled_steps(name, options):
    with cornu.engine("jax") as engine:
        variables, optimizer = weights(), ours(name, options)
        optimizer.build(variables)
        step = engine.compile(lambda state, grads: optimizer.stateless_apply(state[1], grads, state[0]))
        state = [v.value for v in variables], [v.value for v in optimizer.variables]
        for i in range(10):
            state = step(state, gradients(name, i))
        assert [v.numpy().tolist() for v in variables] == [v.tolist() for v in START]
        assert_as_expected(name, options, state[0], optimizer, state[1])


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_configs_are_those_of_keras(name, options):
    keras.utils.clear_session()  # Keras numbers the names of its optimizers
    config = keras.optimizers.serialize(theirs(name, options))
    made = ours(name, options)
    assert optimizers.serialize(made) == {**config, "registered_name": None, "module": "keras.optimizers"}
    again = optimizers.deserialize(optimizers.serialize(made))
    assert type(again) is type(made) and optimizers.serialize(again) == optimizers.serialize(made)


def test_eager_on_jax():
    with cornu.engine("jax"):
        name, options = CASES[8]
        variables, optimizer = weights(), ours(name, options)
        for step in range(10):
            optimizer.apply(gradients(name, step), variables)
        assert_as_expected(name, options, [v.numpy() for v in variables], optimizer, optimizer.get_weights())


def test_get():
    for name in ("sgd", "Adam", "ADAM", "adamw", "rmsprop", "RMSprop", "lossscaleoptimizer"):
        if name != "lossscaleoptimizer":
            assert isinstance(optimizers.get(name), optimizers.Optimizer)
    assert optimizers.get(None) is None
    mine = optimizers.SGD()
    assert optimizers.get(mine) is mine and isinstance(optimizers.get(optimizers.Adam), optimizers.Adam)
    config = {"class_name": "adam", "config": {"learning_rate": 0.5}}
    assert float(optimizers.get(config).learning_rate) == 0.5
    with pytest.raises(ArgumentError, match="did you mean 'adam'"):
        optimizers.get("adan")
    with pytest.raises(ArgumentError):
        optimizers.get(len)


def test_learning_rate(engine):
    optimizer, (w, *_) = optimizers.SGD(0.5), weights()
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate = 0.25
    optimizer.apply([np.ones((4, 3), "float32")], [w])
    np.testing.assert_allclose(w.numpy(), START[0] - 0.25, rtol=1e-6)
    optimizer.learning_rate = schedules.PiecewiseConstantDecay([1], [1.0, 0.5])
    assert [v.name for v in optimizer.variables] == ["iteration"]
    assert float(optimizer.learning_rate) == 1.0
    optimizer.apply([np.zeros((4, 3), "float32")], [w])
    assert float(optimizer.learning_rate) == 0.5 and int(optimizer.iterations) == 2
    with pytest.raises(DtypeError, match="follows"):
        optimizer.learning_rate = 0.1
    assert float(optimizers.Adam(lambda: 0.125).learning_rate) == 0.125
    assert float(optimizers.SGD(1).learning_rate) == 1.0


def test_constraint_decay_exclusion_and_average(engine):
    a, b, c = weights()
    a.constraint = constraints.NonNeg()
    optimizer = optimizers.SGD(0.1, weight_decay=1.0, use_ema=True, ema_momentum=0.5)
    optimizer.exclude_from_weight_decay([b], var_names=["2$"])
    zeros = [np.zeros(shape, "float32") for shape in SHAPES]
    optimizer.apply(zeros, [a, b, c])
    np.testing.assert_allclose(a.numpy(), np.maximum(START[0] * 0.9, 0), rtol=1e-6)
    np.testing.assert_array_equal(b.numpy(), START[1])
    np.testing.assert_array_equal(c.numpy(), START[2])
    optimizer.apply(zeros, [a, b, c])
    optimizer.finalize_variable_values([a, b, c])
    with pytest.raises(BuildError, match="before"):
        optimizer.exclude_from_weight_decay([a])


def test_missing_gradients(engine):
    a, b, c = weights()
    optimizer = optimizers.Adam(0.1)
    with pytest.warns(CornuWarning, match=r"\['w1'\]"):
        optimizer.apply([GRADS[0][0], None, GRADS[0][2]], [a, b, c])
    np.testing.assert_array_equal(b.numpy(), START[1])
    assert (a.numpy() != START[0]).all() and len(optimizer.variables) == 8
    with pytest.raises(BindingError, match="no gradient for any of"):
        optimizer.apply([None] * 3, [a, b, c])


def test_half_width_weights_and_autocast(engine):
    w = cornu.Variable(START[1], dtype="float16")
    master = cornu.Variable(START[1])
    optimizer = optimizers.Adam(0.1)
    with context.autocast("float16"):
        optimizer.apply([GRADS[0][1], GRADS[0][1].astype("float16")], [w, master])
    assert w.numpy().dtype == np.float16 and master.numpy().dtype == np.float32
    assert [v.dtype for v in optimizer.variables] == ["int32", "float32"] + ["float16"] * 2 + ["float32"] * 2
    np.testing.assert_allclose(master.numpy(), START[1] - 0.1 * np.sign(GRADS[0][1]), rtol=1e-5)


def test_weights_unfrozen_later_join(engine):
    """A weight the optimizer was not built with (it was frozen then) gets slots of its own when it first trains."""
    a, b, _ = weights()
    late, early = optimizers.Adam(0.1), optimizers.Adam(0.1)
    late.build([a])
    late.apply([GRADS[0][1]], [b])
    first = b.numpy()
    b.assign(START[1])
    early.build([b])
    early.apply([GRADS[0][1]], [b])
    np.testing.assert_array_equal(first, b.numpy())
    assert len(late.variables) == 2 + 2 * 2


def test_wrong_calls():
    a, b, _ = weights()
    optimizer = optimizers.SGD(0.1)
    with pytest.raises(BuildError, match="does not know its weights"):
        optimizer.apply([GRADS[0][0]])
    optimizer.build([a])
    for grads, variables, error in (
        (GRADS[0][:2], [a], BindingError),
        ([GRADS[0][1]], [a], ShapeError),
    ):
        with pytest.raises(error):
            optimizer.apply(grads, variables)
    for wrong in (
        {"clipnorm": 1.0, "clipvalue": 1.0},
        {"gradient_accumulation_steps": 1},
        {"use_ema": True, "ema_momentum": 2.0},
        {"learning_rate": "fast"},
        {"clip_norm": 1.0},
        {"decay": 0.1},
        {"momentum": 2.0},
    ):
        with pytest.raises(ArgumentError):
            optimizers.SGD(**wrong)
    with pytest.raises(ArgumentError, match="give clipnorm to the inner optimizer"):
        optimizers.LossScaleOptimizer(optimizer, clipnorm=1.0)
    with pytest.raises(ArgumentError):
        optimizers.AdamW(weight_decay=None)


def test_saving_and_copying():
    with cornu.engine("numpy"):
        first, second = optimizers.Adam(0.1), optimizers.Adam(0.3)
        variables = weights()
        first.apply(GRADS[0], variables)
        second.build(variables)
        store = {}
        first.save_own_variables(store)
        assert list(store) == [str(i) for i in range(8)]
        second.load_own_variables(store)
        for x, y in zip(first.get_weights(), second.get_weights(), strict=True):
            np.testing.assert_array_equal(x, y)
        with pytest.raises(BindingError, match="8 variables"):
            optimizers.Adam().load_own_variables(store)
        twin, copies = copy.deepcopy((first, variables))
        twin.apply(GRADS[1], copies)
        first.apply(GRADS[1], variables)
        for x, y in zip(variables, copies, strict=True):
            np.testing.assert_array_equal(x.numpy(), y.numpy())


class KerasStyle(optimizers.Optimizer):
    """As Keras's documentation has one write an optimizer."""

    def __init__(self, learning_rate=0.1, strength=0.9, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.strength = strength

    def build(self, variables):
        super().build(variables)
        self.momentums = []
        for variable in variables:
            made = self.add_variable_from_reference(reference_variable=variable, name="momentum")
            self.momentums.append(made)

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = ops.cast(learning_rate, variable.dtype)
        m = self.momentums[self._get_variable_index(variable)]
        self.assign(m, ops.subtract(ops.multiply(m, self.strength), ops.multiply(gradient, learning_rate)))
        self.assign_add(variable, m)


class Bare(optimizers.Optimizer):
    def __init__(self, learning_rate=0.1):
        super().__init__(learning_rate)

    def update(self, gradient, value, slots, learning_rate, step):
        return ops.subtract(value, ops.multiply(learning_rate, gradient)), slots


def test_own_optimizers(engine):
    options = {"learning_rate": 0.1, "momentum": 0.9}
    variables, optimizer = weights(), KerasStyle(clipnorm=None)
    for grads in GRADS:
        optimizer.apply(grads, variables)
    assert_as_expected("SGD", options, [v.numpy() for v in variables], optimizer, optimizer.get_weights())
    again = optimizers.deserialize(optimizers.serialize(KerasStyle(strength=0.5, weight_decay=0.1)))
    assert isinstance(again, KerasStyle) and again.strength == 0.5 and again.weight_decay == 0.1
    bare = Bare(0.5, clipvalue=0.1)
    bare.apply(GRADS[0][:1], variables[:1])
    assert optimizers.deserialize(optimizers.serialize(bare)).clipvalue == 0.1


def test_scaled_loss(engine):
    assert float(optimizers.SGD(loss_scale_factor=4.0).scale_loss(2.0)) == 8.0
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(0.5), initial_scale=4.0)
    assert float(optimizer.scale_loss(2.0)) == 8.0
    w = cornu.Variable(np.float32([1.0, 2.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.apply([np.float32([np.nan, 1.0])], [w])
        assert float(optimizer.scale_loss(1.0)) == 2.0 and int(optimizer.iterations) == 0
        optimizer.apply([np.float32([4.0, 2.0])], [w])
    assert w.numpy().tolist() == [0.0, 1.5] and int(optimizer.iterations) == 1
    optimizer.learning_rate = 0.1
    assert float(optimizer.inner_optimizer.learning_rate) == pytest.approx(0.1)
