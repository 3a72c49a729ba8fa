"""The main job: a model with several inputs and outputs, shared layers and a custom layer, on real handwritten digits.

Two images go through one shared convolutional encoder; a few numbers about their ink come beside them. The model says
whether both show the same digit, and what the digits add up to. It is trained, measured on images it has never seen,
drawn, saved, loaded again in a fresh process, and run and trained on every engine that is installed: the predictions
must agree.

    python examples/quickstart.py
    python examples/quickstart.py --engine torch
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import cornu
from cornu import layers, ops


class Compare(layers.Layer):
    """How alike two sets of features are: a learned weight for each absolute difference and each product."""

    def call(self, a, b):
        apart = self.add_weight(name="apart", shape=a.shape[-1:], initializer="ones")
        together = self.add_weight(name="together", shape=a.shape[-1:], initializer="ones")
        return ops.concatenate([apart * ops.abs(a - b), together * a * b], axis=-1)


def build_model():
    """The model: dicts of inputs and outputs, an encoder and a digit reader that both images share."""
    left = cornu.Input((8, 8, 1), name="left")
    right = cornu.Input((8, 8, 1), name="right")
    ink = cornu.Input((4,), name="ink")

    encoder = cornu.Sequential(
        [
            cornu.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
        ],
        name="encoder",
    )
    a, b = encoder(left), encoder(right)

    # Which digit does an image show? The expected value of a distribution over ten digits, by one shared layer.
    reader = layers.Dense(10, activation="softmax", name="reader")
    digits = np.arange(10, dtype="float32")
    value_a = ops.sum(reader(a) * digits, axis=-1, keepdims=True)
    value_b = ops.sum(reader(b) * digits, axis=-1, keepdims=True)
    total = layers.Add(name="sum")([value_a, value_b])

    alike = Compare(name="compare")(a, b)
    facts = layers.Dense(8, activation="relu", name="facts")(ink)
    hidden = layers.Dense(32, activation="relu", name="hidden")(layers.Concatenate(name="join")([alike, facts]))
    same = layers.Dense(1, activation="sigmoid", name="same")(hidden)

    inputs = {"left": left, "right": right, "ink": ink}
    return cornu.Model(inputs, {"same": same, "sum": total}, name="digit_pairs")


def make_pairs(images, labels, count, seed):
    """`count` pairs of images, half of them of one digit: inputs and targets by name."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(images), size=count)
    second = rng.integers(len(images), size=count)
    by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
    for i in range(0, count, 2):
        second[i] = rng.choice(by_digit[labels[first[i]]])
    left, right = images[first], images[second]
    ink = np.stack([left.mean((1, 2, 3)), right.mean((1, 2, 3)), left.std((1, 2, 3)), right.std((1, 2, 3))], axis=1)
    x = {"left": left, "right": right, "ink": ink.astype("float32")}
    y = {
        "same": (labels[first] == labels[second]).astype("float32")[:, None],
        "sum": (labels[first] + labels[second]).astype("float32")[:, None],
    }
    return x, y


def load_data():
    """Pairs to train on and pairs to measure on, from separate images."""
    digits = load_digits()
    images = (digits.images / 16.0).astype("float32")[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1437], order[1437:]
    labels = digits.target
    return make_pairs(images[train], labels[train], 20_000, 1), make_pairs(images[test], labels[test], 2_000, 2)


def reload(folder):
    """What the fresh process does: load the model, predict, and leave the predictions in a file."""
    model = cornu.saving.load_model(folder / "digit_pairs.keras")
    inputs = dict(np.load(folder / "inputs.npz"))
    np.savez(folder / "reloaded.npz", **model.predict(inputs, verbose=0))


def difference(a, b):
    """The largest difference between two dicts of predictions."""
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


class Stopwatch(cornu.callbacks.Callback):
    """How long each step takes, its loss waited for."""

    def __init__(self):
        self.times = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        self.times.append(time.perf_counter() - self.begun)


def try_engine(model, name, train, test, wanted):
    """Milliseconds per step of a copy that trains on, accuracy of the model itself, and how far predictions differ."""
    scores = model.evaluate(*test, batch_size=500, verbose=0, return_dict=True, engine=name)
    apart = difference(wanted, model.predict(test[0], batch_size=500, verbose=0, engine=name))
    copy = cornu.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("adam", {"same": "binary_crossentropy", "sum": "mse"})
    watch = Stopwatch()
    x, y = ({key: values[: 12 * 128] for key, values in part.items()} for part in train)
    copy.fit(x, y, batch_size=128, verbose=0, engine=name, callbacks=[watch])
    return 1000 * float(np.median(watch.times[2:])), scores["same_accuracy"], apart


def compare_engines(model, train, test, wanted):
    """A table of all installed engines; gives the largest difference in predictions."""
    print(f"\n{'engine':<12} {'ms a step':>10} {'accuracy':>9} {'predictions differ by':>22}")
    largest = 0.0
    for name in cornu.engines.available():
        step, accuracy, apart = try_engine(model, name, train, test, wanted)
        largest = max(largest, apart)
        print(f"{name:<12} {step:>10.2f} {accuracy:>9.3f} {apart:>22.1e}", flush=True)
    return largest


def main():
    """Train, measure, draw, save, load elsewhere, and compare engines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6, help="passes over the training pairs")
    parser.add_argument("--engine", default=None, help="the engine to train on (by default the default engine)")
    parser.add_argument("--out", type=Path, default=None, help="folder for the model and its picture")
    parser.add_argument("--reload", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reload is not None:
        return reload(options.reload)

    start = time.perf_counter()
    folder = options.out or Path(tempfile.mkdtemp(prefix="cornu-quickstart-"))
    folder.mkdir(parents=True, exist_ok=True)
    cornu.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = load_data()

    model = build_model()
    model.summary()
    model.compile(
        optimizer=cornu.optimizers.Adam(1e-3),
        loss={"same": "binary_crossentropy", "sum": "mse"},
        loss_weights={"same": 1.0, "sum": 0.1},
        metrics={"same": ["accuracy"], "sum": ["mae"]},
        engine=options.engine,
    )
    model.fit(x, y, batch_size=128, epochs=options.epochs, validation_data=(x_test, y_test))

    scores = model.evaluate(x_test, y_test, batch_size=500, verbose=0, return_dict=True)
    print(f"\nheld-out images: same digit or not, accuracy {scores['same_accuracy']:.3f} (chance 0.5)")
    guess = float(np.abs(y_test["sum"] - y["sum"].mean()).mean())
    print(f"                 sum of the digits, mean error {scores['sum_mae']:.3f} (guessing their mean: {guess:.1f})")

    picture = cornu.utils.plot_model(model, folder / "digit_pairs.png")
    model.save(folder / "digit_pairs.keras")
    some = {name: values[:200] for name, values in x_test.items()}
    predictions = model.predict(some, verbose=0)

    np.savez(folder / "inputs.npz", **some)
    subprocess.run([sys.executable, __file__, "--reload", str(folder)], check=True)
    reloaded = difference(predictions, dict(np.load(folder / "reloaded.npz")))
    print(f"largest difference after loading in a fresh process: {reloaded:.1e}")
    everything = model.predict(x_test, batch_size=500, verbose=0)
    apart = compare_engines(model, (x, y), (x_test, y_test), everything)
    print(f"\nmodel and picture: {folder / 'digit_pairs.keras'}, {picture}")
    print(f"{time.perf_counter() - start:.0f} s in all")
    if scores["same_accuracy"] < 0.9 or reloaded > 1e-4 or apart > 1e-3:
        raise SystemExit("the quickstart did not reach what the README promises")
    return None


if __name__ == "__main__":
    main()
