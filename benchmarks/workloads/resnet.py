"""A net like ResNet-18 on 32x32 pictures: three stages of two blocks."""

from typing import Any

from benchmarks.workload import Workload

__all__ = ["RESNET"]

STAGES = ((32, 1), (64, 2), (128, 2))  # filters, stride of the first block
MOMENTUM, EPSILON = 0.99, 1e-3
SHAPES = ("NHWC", "HWIO", "NHWC")


def data(rng: Any, rows: int) -> Any:
    """Pictures of noise and ten classes."""
    return rng.normal(size=(rows, 32, 32, 3)).astype("float32"), rng.integers(0, 10, rows).astype("int32")


def blocks() -> Any:
    """Channels before, channels after and stride of each block."""
    before = STAGES[0][0]
    for filters, stride in STAGES:
        yield before, filters, stride
        yield filters, filters, 1
        before = filters


def build(keras: Any) -> Any:
    """The model. Padding is alike on both sides, as PyTorch has it."""
    layers = keras.layers

    def conv(h: Any, filters: int, size: int, stride: int) -> Any:
        if size == 3:
            h = layers.ZeroPadding2D(1)(h)
        h = layers.Conv2D(filters, size, strides=stride, use_bias=False)(h)
        return layers.BatchNormalization()(h)

    x = keras.Input((32, 32, 3))
    h = layers.ReLU()(conv(x, STAGES[0][0], 3, 1))
    for before, filters, stride in blocks():
        f = layers.ReLU()(conv(h, filters, 3, stride))
        f = conv(f, filters, 3, 1)
        if before != filters:
            h = conv(h, filters, 1, stride)
        h = layers.ReLU()(layers.Add()([f, h]))
    return keras.Model(x, layers.Dense(10)(layers.GlobalAveragePooling2D()(h)))


def _run(w: Any, x: Any, training: bool, conv: Any, moments: Any, relu: Any) -> Any:
    """The net in the functions of an engine; `w` holds five weights for each convolution with its norm."""
    moved = []
    weights = iter(w)

    def unit(h: Any, padding: int, stride: int) -> Any:
        kernel, gamma, beta, mean, variance = (next(weights) for _ in range(5))
        h = conv(h, kernel, padding, stride)
        if training:
            seen, spread = moments(h)
            moved.extend([mean + (1 - MOMENTUM) * (seen - mean), variance + (1 - MOMENTUM) * (spread - variance)])
            mean, variance = seen, spread
        scale = gamma * (variance + EPSILON) ** -0.5
        return h * scale + (beta - mean * scale)

    h = relu(unit(x, 1, 1))
    for before, filters, stride in blocks():
        f = unit(relu(unit(h, 1, stride)), 1, 1)
        h = relu(f + (h if before == filters else unit(h, 0, stride)))
    return h, moved, list(weights)


def jax(w: Any, x: Any, training: bool) -> Any:
    """By hand, in JAX."""
    from jax import lax
    from jax.nn import relu

    def conv(h: Any, kernel: Any, padding: int, stride: int) -> Any:
        return lax.conv_general_dilated(h, kernel, (stride,) * 2, [(padding,) * 2] * 2, dimension_numbers=SHAPES)

    h, moved, (dense, bias) = _run(w, x, training, conv, lambda h: (h.mean((0, 1, 2)), h.var((0, 1, 2))), relu)
    return h.mean((1, 2)) @ dense + bias, moved


def tensorflow(w: Any, x: Any, training: bool) -> Any:
    """By hand, in TensorFlow."""
    import tensorflow as tf

    def conv(h: Any, kernel: Any, padding: int, stride: int) -> Any:
        return tf.nn.conv2d(h, kernel, stride, [[0, 0], [padding] * 2, [padding] * 2, [0, 0]])

    h, moved, (dense, bias) = _run(w, x, training, conv, lambda h: tf.nn.moments(h, [0, 1, 2]), tf.nn.relu)
    return tf.matmul(tf.reduce_mean(h, [1, 2]), dense) + bias, moved


def torch() -> Any:
    """By hand, in PyTorch."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, filters: int, stride: int) -> None:
            super().__init__()
            self.first = unit(before, filters, 3, stride)
            self.second = unit(filters, filters, 3, 1)
            self.shortcut = nn.Identity() if before == filters else unit(before, filters, 1, stride)

        def forward(self, h: Any) -> Any:
            return (self.second(self.first(h).relu()) + self.shortcut(h)).relu()

    def unit(before: int, filters: int, size: int, stride: int) -> Any:
        conv = nn.Conv2d(before, filters, size, stride, padding=size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(filters, EPSILON, 1 - MOMENTUM))

    first = STAGES[0][0]
    rest = [Block(*block) for block in blocks()]
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(unit(3, first, 3, 1), nn.ReLU(), *rest, pool, nn.Flatten(), nn.Linear(STAGES[-1][0], 10))


def nnx(rngs: Any) -> Any:
    """By hand, in Flax NNX."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, before: int, filters: int, stride: int) -> None:
            self.first = unit(before, filters, 3, stride)
            self.second = unit(filters, filters, 3, 1)
            self.shortcut = None if before == filters else unit(before, filters, 1, stride)

        def __call__(self, h: Any) -> Any:
            f = self.second(nnx.relu(self.first(h)))
            return nnx.relu(f + (h if self.shortcut is None else self.shortcut(h)))

    def unit(before: int, filters: int, size: int, stride: int) -> Any:
        conv = nnx.Conv(
            before, filters, (size, size), strides=stride, padding=size // 2, use_bias=False, rngs=rngs
        )  # fmt: skip
        return nnx.Sequential(conv, nnx.BatchNorm(filters, momentum=MOMENTUM, epsilon=EPSILON, rngs=rngs))

    rest = [Block(*block) for block in blocks()]
    top = nnx.Linear(STAGES[-1][0], 10, rngs=rngs)
    return nnx.Sequential(unit(3, STAGES[0][0], 3, 1), nnx.relu, *rest, lambda h: h.mean((1, 2)), top)


def _multiply_adds() -> int:
    side, total = 32, 32 * 32 * 9 * 3 * STAGES[0][0]
    for before, filters, stride in blocks():
        side //= stride
        total += side * side * filters * (9 * before + 9 * filters + (before if before != filters else 0))
    return total + STAGES[-1][0] * 10


def _order() -> tuple[int, ...]:
    """The weights by convolution and norm; the model has both last convolutions of a block before their norms."""
    order = list(range(5))
    for before, filters, _ in blocks():
        start = len(order)
        order += range(start, start + 5)
        second = [5, *range(7, 11), 6, *range(11, 15)] if before != filters else range(5, 10)
        order += [start + place for place in second]
    return (*order, len(order), len(order) + 1)


RESNET = Workload(
    name="resnet",
    title="like ResNet-18 on 32x32: 3 stages of 2 blocks, 32 to 128 filters; batch 32",
    batch=32,
    steps=4,
    loss="classes",
    multiply_adds=_multiply_adds(),
    data=data,
    build=build,
    jax=jax,
    tensorflow=tensorflow,
    torch=torch,
    nnx=nnx,
    order=_order(),
)
