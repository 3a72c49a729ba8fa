#!/usr/bin/env python
"""Write docs/engines.md: each engine by what it can do, found by asking and trying it; all must be installed.

python scripts/engines_page.py            write the page
python scripts/engines_page.py --print    print it
"""

import argparse
import platform
import runpy
from pathlib import Path

import numpy as np

import cornu.random  # it enters the random ops
from cornu import ops
from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import dtypes
from cornu.engines import registry
from cornu.engines.contract import Engine
from cornu.engines.installed import version_of
from cornu.ops._declare import all_ops

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "engines.md"
KNOWN = runpy.run_path(str(ROOT / "tests" / "engines" / "known.py"))["KNOWN"]

TITLES = {
    "numpy": "NumPy",
    "jax": "JAX",
    "tensorflow": "TensorFlow",
    "torch": "PyTorch",
    "pytensor": "PyTensor",
    "onnxruntime": "ONNX Runtime",
}

# When to take which: advice, which no program can find out.
WHEN = {
    "jax": "The default. Fastest on most models, on CPUs, GPUs and TPUs.",
    "tensorflow": "You have `tf.data`, `tf.function` or `tf.Module` code around the model, or convolutions on a CPU.",
    "torch": "You have `DataLoader`s, `nn.Module`s or `torch.optim` around the model.",
    "pytensor": "You come from Theano, or the model is part of a PyTensor or PyMC graph.",
    "onnxruntime": "Predicting, small models above all: its sessions are made in milliseconds. It trains too.",
    "numpy": "Debugging: every value can be looked at, and nothing but NumPy is needed. Slow.",
}

# What a compiled step is, and where it runs; the tests run on CPUs.
MEANS = {
    "numpy": ("nothing: op by op", "CPU"),
    "jax": ("`jax.jit`", "CPU, GPU, TPU"),
    "tensorflow": ("`tf.function`; XLA with `jit_compile=True`", "CPU, GPU, TPU"),
    "torch": (
        "one traced graph; TorchInductor with `jit_compile=True`",
        "a GPU if CUDA sees one, else CPU; others by `torch.set_default_device`",
    ),
    "pytensor": ("`pytensor.function`, by its JAX, C or Numba linker (`CORNU_PYTENSOR_LINKER`)", "CPU"),
    "onnxruntime": ("an inference session", "CPU; others by `CORNU_ONNXRUNTIME_PROVIDERS`"),
}

NUMBERS = """## The same numbers

The tests hold every engine to one table of ops, gradients and layers, on CPUs. On an NVIDIA H200 the same table passes
on PyTorch, and on JAX with `JAX_DEFAULT_MATMUL_PRECISION=highest`: by default JAX multiplies float32 matrices there in
TF32, which keeps three digits.
"""

START = """# Engines

<!-- Written by scripts/engines_page.py from the engines themselves: do not edit, run it. -->

An engine computes; a model does not belong to one. The same model, with the same weights, trains on one and predicts
on another, in one process:

```python
model.fit(x, y, engine="tensorflow")
model.predict(x, engine="onnxruntime")
```

An engine that nobody asks for is not imported. `cornu doctor` says which are installed here, on which devices, and
how to get the others.

"""

CHOOSING = """## How the engine is chosen

The first of these that says something decides:

1. the call: `fit`, `evaluate`, `predict`, `train_on_batch` ... take `engine="torch"`;
2. `model.compile(..., engine="torch")`;
3. `with cornu.engine("torch"):` around the call;
4. the model itself, if a layer of it calls one engine's own functions;
5. `cornu.set_engine("torch")`, for the process;
6. the environment variable `CORNU_ENGINE`;
7. the environment variable `KERAS_BACKEND`, if it names one of these engines;
8. `jax`.

A model or layer that is called on an engine's own values (`model(tf_tensor)`) runs on that engine, unless the call
(`model(x, engine="jax")`) or a `with` block names another.

ALIASES

## Let it be measured: `engine="auto"`

In any of the places 1 to 3, 5 and 6, `"auto"` times the installed engines on this model, batch and machine, with real
steps on copies of the weights, and takes the one with the least total: compiling once, plus the steps of this call.
Engines that may be the fastest are timed once more, in turns, so that a slow moment of the machine meets all of them. A
short `fit` does not wait for a slow compiler, unless that has just compiled to be measured. It prints what it found
in one line (here broken in two), and remembers
it:

```text
engine auto: jax 1.62 ms (compile 0.4 s), tensorflow 1.9 ms (compile 1.1 s), torch failed (...); chosen: jax for
1,000 steps; remembered in ~/.cache/cornu/auto/1f0c....json
```

- `cornu.set_auto_budget(60)` or `CORNU_AUTO_BUDGET=60` gives it other than 30 seconds; engines not reached are named.
  `engine=cornu.engines.Auto(budget=10, engines=["jax", "torch"])` says it for one call.
- A new model structure, batch shape, version, machine or number of threads is measured anew. `cornu.clear_auto_cache()`
  forgets all; `CORNU_CACHE_DIR` moves the cache. Its files hold numbers and names only.
- Weights, optimizer, metrics, seeds and data are afterwards as if nothing had been measured. (Side effects of your own
  in a `call`, such as a counter in Python, happen a few times more.)

"""


def probe_dtypes(engine):
    """The dtypes in which the engine adds and gives back what it should."""
    found = []
    for dtype in dtypes.ALL:
        value = np.array([0, 1, 1]).astype(dtypes.numpy_dtype(dtype))
        try:
            with cornu.engine(engine.name):
                held = engine.from_host(value)
                doubled = ops.logical_or(held, held) if dtype == "bool" else ops.add(held, held)
                back = engine.to_host(doubled)
        except (cornu.errors.CornuError, TypeError, ValueError, RuntimeError, NotImplementedError):
            continue
        wanted = value if dtype == "bool" else value + value
        if back.dtype == wanted.dtype and np.array_equal(back.astype("float64"), wanted.astype("float64")):
            found.append(dtype)
    return found


def probe_second_order(engine):
    """Whether the gradient of a gradient is right: that of x**3 twice is 6 x."""
    differentiate = lambda function: engine.value_and_grad(function) or tape_value_and_grad(function)
    cube = lambda values: (ops.sum(values[0] * values[0] * values[0]), None)
    slope = lambda values: (ops.sum(differentiate(cube)(values)[1][0]), None)
    with cornu.engine(engine.name):
        run = engine.compile(lambda values: differentiate(slope)(values)[1][0])
        found = engine.to_host(run([engine.from_host(np.array([1.0, 2.0], "float32"))]))
    return bool(np.allclose(found, [6.0, 12.0]))


def probe_loop(engine):
    """Whether a compiled loop may run a number of times that only its argument says."""

    def count(n):
        return ops.while_loop(lambda i, total: i < n, lambda i, total: (i + 1, total + i), (0, 0))[1]

    with cornu.engine(engine.name):
        run = engine.compile(count)
        found = [int(engine.to_host(run(engine.from_host(np.array(n, "int32"))))) for n in (3, 5)]
    return found == [3, 10]


def own(engine, method):
    """Whether the engine has its own version of a method of the contract."""
    return getattr(type(engine), method) is not getattr(Engine, method)


def yes(answer):
    """A yes or no for a table."""
    return "yes" if answer else "no"


def capabilities(name):
    """What an engine can do: words by row of the table."""
    engine = registry.get(name)
    missing = [dtype for dtype in dtypes.ALL if dtype not in probe_dtypes(engine)]
    fused = [op for op in engine.table if not all_ops[op].is_primitive]
    return {
        "trains": "natively" if own(engine, "value_and_grad") else "by the tape",
        "second order": yes(probe_second_order(engine)),
        "compiles a step": yes(engine.traces),
        "to": MEANS[name][0],
        "devices": MEANS[name][1],
        "dtypes": "all" if not missing else "all but " + ", ".join(missing),
        "loops of unknown length in a compiled step": yes(probe_loop(engine)),
        "layers that call its own functions": yes(own(engine, "infer")),
        "its own autodiff around a model": yes(own(engine, "home")),
        "ops it has its own faster version of": str(len(fused)),
        "ops it cannot do": str(len(engine.gaps)) if engine.gaps else "none",
    }


def gaps():
    """What is known not to work: ops an engine cannot do, and tests that fail on it."""
    lines = []
    for name in registry.engines():
        engine = registry.get(name)
        lines += [f"- {TITLES[name]}, op `{op}`: {reason}" for op, reason in sorted(engine.gaps.items())]
    lines += [f"- {TITLES[name]}, test `{test}`: {reason}" for (name, test), reason in sorted(KNOWN.items())]
    return lines or ["None."]


def row(cells):
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"


def versions():
    """The versions the page was made with."""
    found = [
        f"{TITLES[name]} {version_of(library)} on {', '.join(registry.get(name).devices())}"
        for name, (_, library, _) in registry.ENGINES.items()
    ]
    return f"Tried with Python {platform.python_version()}, {', '.join(found)}."


def aliases():
    """The other names of engines, as the registry has them."""
    parts = [f'`"{alias}"` means `"{name}"`' for alias, (name, _) in registry.ALIASES.items()]
    return f"Other names are understood: {', '.join(parts)}."


def page():
    """The page."""
    names = registry.engines()
    found = {name: capabilities(name) for name in names}
    rows = next(iter(found.values()))
    install = {
        name: f"`pip install 'cornu[{extra}]'`" if extra else "comes with Cornu"
        for name, (_, _, extra) in registry.ENGINES.items()
    }
    return "\n".join(
        [
            START + "## Which one",
            "",
            row(["engine", "take it when", "install"]),
            row(["---"] * 3),
            *(row([f"`{name}`", when, install[name]]) for name, when in WHEN.items()),
            "",
            CHOOSING.replace("ALIASES", aliases()) + "## What each can do",
            "",
            versions(),
            "",
            row(["", *(TITLES[name] for name in names)]),
            row(["---"] * (len(names) + 1)),
            *(row([title, *(found[name][title] for name in names)]) for title in rows),
            "",
            "*By the tape* means that Cornu differentiates and the engine computes: it trains like the others. An op "
            "that an engine has no version of its own of is composed of others, with the same result.",
            "",
            NUMBERS,
            "## Known gaps",
            "",
            "An engine that cannot do an op raises `UnsupportedError`; it never gives other numbers.",
            "",
            *gaps(),
            "",
        ]
    )


def main():
    """Write or print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    options = parser.parse_args()
    missing = [name for name in registry.engines() if name not in registry.available()]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}; the page tells of all engines (see `cornu doctor`)")
    text = page()
    if options.print:
        print(text, end="")
    else:
        PAGE.write_text(text, encoding="utf-8")
        print(f"{PAGE.relative_to(ROOT)}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
