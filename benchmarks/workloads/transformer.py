"""A 2-layer Transformer encoder that names a class, and a small causal decoder that names the next token."""

from typing import Any

from benchmarks.workload import Workload

__all__ = ["DECODER", "ENCODER"]

TOKENS, LENGTH, WIDTH, HEADS, INNER, LAYERS = 1000, 64, 128, 4, 512, 2
PER_BLOCK = 16  # weights
EPSILON = 1e-3  # of layer normalisation, as in Keras


def _data(causal: bool) -> Any:
    def data(rng: Any, rows: int) -> Any:
        x = rng.integers(0, TOKENS, (rows, LENGTH + 1)).astype("int32")
        return x[:, :-1], (x[:, 1:] if causal else x[:, 0] % 10)

    return data


def _build(causal: bool) -> Any:
    def build(keras: Any) -> Any:
        layers = keras.layers
        x = keras.Input((LENGTH,), dtype="int32")
        h = layers.Embedding(TOKENS, WIDTH)(x)
        for _ in range(LAYERS):
            a = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(h, h, use_causal_mask=causal)
            h = layers.LayerNormalization()(layers.Add()([h, a]))
            f = layers.Dense(WIDTH)(layers.Dense(INNER, activation="relu")(h))
            h = layers.LayerNormalization()(layers.Add()([h, f]))
        if not causal:
            h = layers.GlobalAveragePooling1D()(h)
        return keras.Model(x, layers.Dense(TOKENS if causal else 10)(h))

    return build


def _jax(causal: bool) -> Any:
    def forward(w: Any, x: Any, training: bool) -> Any:
        import jax
        import jax.numpy as jnp

        def norm(x: Any, gamma: Any, beta: Any) -> Any:
            x = x - x.mean(-1, keepdims=True)
            return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * gamma + beta

        h = w[0][x]
        for start in range(1, 1 + LAYERS * PER_BLOCK, PER_BLOCK):
            q, qb, k, kb, v, vb, o, ob, g1, b1, up, upb, down, downb, g2, b2 = w[start : start + PER_BLOCK]
            heads = [jnp.einsum("btd,dhk->bthk", h, m) + b for m, b in ((q, qb), (k, kb), (v, vb))]
            a = jax.nn.dot_product_attention(*heads, is_causal=causal)
            h = norm(h + jnp.einsum("bthk,hkd->btd", a, o) + ob, g1, b1)
            h = norm(h + jax.nn.relu(h @ up + upb) @ down + downb, g2, b2)
        return (h if causal else h.mean(1)) @ w[-2] + w[-1], []

    return forward


def _tensorflow(causal: bool) -> Any:
    def forward(w: Any, x: Any, training: bool) -> Any:
        import tensorflow as tf

        def norm(x: Any, gamma: Any, beta: Any) -> Any:
            mean, variance = tf.nn.moments(x, -1, keepdims=True)
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, EPSILON)

        h = tf.gather(w[0], x)
        for start in range(1, 1 + LAYERS * PER_BLOCK, PER_BLOCK):
            q, qb, k, kb, v, vb, o, ob, g1, b1, up, upb, down, downb, g2, b2 = w[start : start + PER_BLOCK]
            q, k, v = (tf.einsum("btd,dhk->bhtk", h, m) + b[:, None] for m, b in ((q, qb), (k, kb), (v, vb)))
            scores = tf.matmul(q, k, transpose_b=True) * (WIDTH // HEADS) ** -0.5
            if causal:
                allowed = tf.linalg.band_part(tf.ones((LENGTH, LENGTH)), -1, 0)
                scores += (allowed - 1) * 1e9
            a = tf.matmul(tf.nn.softmax(scores), v)
            h = norm(h + tf.einsum("bhtk,hkd->btd", a, o) + ob, g1, b1)
            inner = tf.nn.relu(tf.tensordot(h, up, 1) + upb)
            h = norm(h + tf.tensordot(inner, down, 1) + downb, g2, b2)
        return tf.tensordot(h if causal else tf.reduce_mean(h, 1), w[-2], 1) + w[-1], []

    return forward


def _torch(causal: bool) -> Any:
    def make() -> Any:
        from torch import nn
        from torch.nn.functional import scaled_dot_product_attention

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
                self.norm1 = nn.LayerNorm(WIDTH, EPSILON)
                self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
                self.norm2 = nn.LayerNorm(WIDTH, EPSILON)

            def forward(self, h: Any) -> Any:
                heads = [m(h).unflatten(-1, (HEADS, -1)).transpose(1, 2) for m in (self.q, self.k, self.v)]
                a = scaled_dot_product_attention(*heads, is_causal=causal)
                h = self.norm1(h + self.o(a.transpose(1, 2).flatten(2)))
                return self.norm2(h + self.down(self.up(h).relu()))

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = nn.Embedding(TOKENS, WIDTH)
                self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
                self.dense = nn.Linear(WIDTH, TOKENS if causal else 10)

            def forward(self, x: Any) -> Any:
                h = self.blocks(self.embedding(x))
                return self.dense(h if causal else h.mean(1))

        return Net()

    return make


def _nnx(causal: bool) -> Any:
    def make(rngs: Any) -> Any:
        from flax import nnx

        class Block(nnx.Module):
            def __init__(self) -> None:
                self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
                self.norm1 = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)
                self.up, self.down = nnx.Linear(WIDTH, INNER, rngs=rngs), nnx.Linear(INNER, WIDTH, rngs=rngs)
                self.norm2 = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)

            def __call__(self, h: Any, mask: Any) -> Any:
                h = self.norm1(h + self.attention(h, mask=mask))
                return self.norm2(h + self.down(nnx.relu(self.up(h))))

        class Net(nnx.Module):
            def __init__(self) -> None:
                self.embedding = nnx.Embed(TOKENS, WIDTH, rngs=rngs)
                self.blocks = nnx.List([Block() for _ in range(LAYERS)])
                self.dense = nnx.Linear(WIDTH, TOKENS if causal else 10, rngs=rngs)

            def __call__(self, x: Any) -> Any:
                h = self.embedding(x)
                mask = nnx.make_causal_mask(x) if causal else None
                for block in self.blocks:
                    h = block(h, mask)
                return self.dense(h if causal else h.mean(1))

        return Net()

    return make


def _workload(name: str, title: str, causal: bool) -> Workload:
    block = LENGTH * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 2 * LENGTH * LENGTH * WIDTH
    return Workload(
        name=name,
        title=f"{title}, {LAYERS} layers, width {WIDTH}, length {LENGTH}; batch 32",
        batch=32,
        steps=6,
        loss="classes",
        multiply_adds=LAYERS * block + (LENGTH * WIDTH * TOKENS if causal else WIDTH * 10),
        data=_data(causal),
        build=_build(causal),
        jax=_jax(causal),
        tensorflow=_tensorflow(causal),
        torch=_torch(causal),
        nnx=_nnx(causal),
    )


ENCODER = _workload("encoder", "Transformer encoder", False)
DECODER = _workload("decoder", "causal Transformer decoder", True)
