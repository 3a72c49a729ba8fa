"""The house's rules: imports go one way, without a circle, and none is late but of an engine or optional library."""

import ast
import subprocess
import sys
from pathlib import Path

import cornu

ROOT = Path(cornu.__file__).parent

# Each room and its floor; a room may import from floors below, and from rooms on its own floor that `SAME_FLOOR`
# allows.
FLOORS = {
    "core": 0,
    "ops": 1,
    "autodiff": 2,
    "engines": 2,
    "random": 3,
    "activations": 3,
    "initializers": 3,
    "regularizers": 3,
    "constraints": 3,
    "dtype_policies": 3,
    "graph": 3,
    "layers": 4,
    "losses": 4,
    "metrics": 5,
    "optimizers": 4,
    "callbacks": 5,
    "utils": 5,
    "training": 6,
    "saving": 7,
    "models": 8,
    "rewrite": 9,
    "inspect": 9,
    "interop": 9,
    "configuration": 9,
    "backend": 9,
    "__init__": 10,
    "cli": 10,
    "__main__": 11,
}
# Libraries that may be imported inside a function: engines, what an extra brings or a user may have, and
# `importlib.metadata`, which takes longer to import than `import cornu`.
LATE = {
    "importlib", "h5py", "ml_dtypes", "PIL", "pandas", "polars", "narwhals", "torch", "tensorflow", "jax", "rich", "scipy", "tensorboardX",
}  # fmt: skip
# Only engines, and what puts Cornu into their libraries, import engines.
ENGINE_LIBRARIES = {"jax", "jaxlib", "torch", "tensorflow", "pytensor", "onnxruntime"}


def modules():
    """Every module: its dotted name, its room, its tree."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(("cornu", *parts)), parts[0], ast.parse(path.read_text())


def imported(node):
    """The dotted names an import statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        return [base] if base != "cornu" else [f"cornu.{alias.name}" for alias in node.names]
    return []


def inside_functions(tree):
    """Imports inside functions."""
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for node in ast.walk(function):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    yield node


def runs(tree):
    """All imports but those for type checkers."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(id(inner) for inner in ast.walk(node))
    return [
        node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in skipped
    ]


def test_every_room_has_a_floor():
    """A new room must be entered in the table."""
    assert {room for _, room, _ in modules()} <= set(FLOORS)


def test_imports_go_down():
    """No module imports from a higher floor."""
    upward = []
    for name, room, tree in modules():
        for node in runs(tree):
            for target in imported(node):
                if target.startswith("cornu."):
                    other = target.split(".")[1]
                    if FLOORS.get(other, 99) > FLOORS[room]:
                        upward.append(f"{name}:{node.lineno} imports {target}")
    assert not upward, "\n".join(upward)


def test_no_circles():
    """The graph of imports at module level has no circle."""
    names = {name.removesuffix(".__init__") for name, _, _ in modules()}
    edges = {}
    for name, _, tree in modules():
        found = set()
        for node in runs(tree):
            if isinstance(node, ast.ImportFrom):
                parts = [f"{node.module}.{alias.name}" for alias in node.names]
                found.update(part if part in names else node.module for part in parts)
            else:
                found.update(imported(node))
        edges[name.removesuffix(".__init__")] = {t for t in found if t in names}
    done, circle = set(), []
    for start in sorted(edges):
        stack = [(start, iter(sorted(edges[start])))] if start not in done else []
        path = [start] if stack else []
        while stack and not circle:
            here, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                done.add(here)
                stack.pop()
                path.pop()
            elif following in path:
                circle = [*path[path.index(following) :], following]
            elif following not in done:
                stack.append((following, iter(sorted(edges[following]))))
                path.append(following)
    assert not circle, " -> ".join(circle)


def test_no_late_imports():
    """Imports inside functions are of engines and optional libraries only."""
    late = []
    for name, _, tree in modules():
        for node in inside_functions(tree):
            late += [f"{name}:{node.lineno} {t}" for t in imported(node) if t.partition(".")[0] not in LATE]
    assert not late, "\n".join(sorted(set(late)))


def test_only_engines_import_engines():
    """No module outside `engines/` imports an engine's library."""
    found = []
    for name, room, tree in modules():
        if room not in ("engines", "interop"):
            for node in ast.walk(tree):
                found += [
                    f"{name}:{node.lineno} {t}" for t in imported(node) if t.partition(".")[0] in ENGINE_LIBRARIES
                ]
    assert not found, "\n".join(found)


def run(code):
    """What a fresh process prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_brings_no_engine():
    """`import cornu`, building and describing a model bring no engine."""
    code = (
        "import sys, cornu\n"
        "x = cornu.Input((4,))\n"
        "m = cornu.Model(x, cornu.layers.Dense(3, activation='relu')(x))\n"
        "m.count_params(), m.get_config()\n"
        "print([name for name in ('jax', 'torch', 'tensorflow', 'h5py') if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_numpy_engine_needs_numpy_alone():
    """With every other engine blocked, a model trains on NumPy."""
    code = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'torch', 'tensorflow', 'ml_dtypes', 'scipy'): sys.modules[name] = None\n"
        "import cornu, numpy as np\n"
        "cornu.set_engine('numpy')\n"
        "m = cornu.Sequential([cornu.Input((3,)), cornu.layers.Dense(2), cornu.layers.Dense(1)])\n"
        "m.compile('adam', 'mse')\n"
        "x = np.ones((8, 3), 'float32')\n"
        "print(len(m.fit(x, x[:, :1], verbose=0, epochs=2).history['loss']))"
    )
    assert run(code) == "2"


def test_import_is_light():
    """`import cornu` takes under 0.2 s of CPU (the least of three fresh processes)."""
    code = "import time; t = time.process_time(); import cornu; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.2


def test_building_is_light():
    """A 100-layer Dense model is built in under 60 ms of CPU, without an engine (least of three processes)."""
    code = (
        "import cornu, time, sys\n"
        "Input, Dense, Model = cornu.Input, cornu.layers.Dense, cornu.Model\n"
        "t = time.process_time()\n"
        "x = h = Input((64,))\n"
        "for _ in range(100): h = Dense(64, activation='relu')(h)\n"
        "Model(x, h)\n"
        "t = time.process_time() - t\n"
        "assert 'jax' not in sys.modules\n"
        "print(t)"
    )
    assert min(float(run(code)) for _ in range(3)) < 0.06
