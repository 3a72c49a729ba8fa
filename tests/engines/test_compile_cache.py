"""The compile cache: a second process compiles nothing, and nothing that happens to the directory does harm."""

import json
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import cornu
from cornu.core.errors import ArgumentError, CornuWarning
from cornu.engines import compile_cache
from cornu.engines.jax.stored import Store
from cornu.inspect import doctor

# A process that trains a little; it prints its numbers, what JAX found in its cache or wrote there, and warnings.
PROGRAM = """
import collections, json, sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import cornu
    engine = sys.argv[1]
    count = collections.Counter()
    if engine == "jax":
        import jax
        jax.monitoring.register_event_listener(lambda name, **rest: count.update([name.rsplit("/", 1)[1]]))
    cornu.utils.set_random_seed(0)
    model = cornu.Sequential([cornu.Input((4,)), cornu.layers.Dense(8, activation="tanh"), cornu.layers.Dense(1)])
    model.compile("adam", "mse", engine=engine)
    x = np.linspace(-1, 1, 64, dtype="float32").reshape(16, 4)
    history = model.fit(x, x[:, :1] ** 2, batch_size=8, epochs=3, verbose=0).history["loss"]
    rows = model.predict(x, verbose=0).tolist()
print(json.dumps({
    "numbers": [history, rows], "hits": count["cache_hits"], "misses": count["cache_misses"],
    "warnings": [[kind.category.__name__, str(kind.message)] for kind in said if "CornuW" in kind.category.__name__],
}))
"""


def started(directory, *args):
    variables = {**os.environ, "CORNU_COMPILE_CACHE": str(directory), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *(args or ("jax",))], stdout=subprocess.PIPE, text=True, env=variables
    )


def ended(process):
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def run(directory, *args):
    return ended(started(directory, *args))


def files(directory):
    return {path: path.read_bytes() for path in sorted(Path(directory).rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A directory that a first process has filled, and what that process said."""
    directory = tmp_path_factory.mktemp("cache") / "compiled"
    return directory, run(directory)


@pytest.fixture
def own(monkeypatch):
    """Nothing that is set here outlives the test."""
    monkeypatch.delenv(compile_cache.VARIABLE, raising=False)
    yield
    cornu.set_compile_cache(False)
    compile_cache._chosen[0] = compile_cache._NEVER_SET


def test_a_second_process_compiles_nothing(first):
    """It finds all it needs, writes nothing, and computes the same bits."""
    directory, filled = first
    before = files(directory)
    assert filled["misses"] == len(before) > 0 and not filled["warnings"]
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in before} == {0o700}
    again = run(directory)
    assert again["misses"] == 0 and again["hits"] >= filled["misses"]
    assert files(directory) == before and again["numbers"] == filled["numbers"] and not again["warnings"]


def test_without_it_the_numbers_are_the_same(first):
    off = run("0")
    assert off["hits"] == off["misses"] == 0 and off["numbers"] == first[1]["numbers"]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other", "foreign"])
def test_damaged_files_are_made_anew(first, tmp_path, damage):
    """Cut short, one bit turned, empty, of another function, or no file of ours: a warning, and the same numbers."""
    directory, filled = first
    stored = files(directory)
    bodies = list(stored.values())
    for place, (path, data) in enumerate(stored.items()):
        copy = tmp_path / path.relative_to(directory)
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        turned = bytearray(data)
        turned[-10] ^= 4
        copy.write_bytes(
            {
                "cut": data[: len(data) // 2], "bit": bytes(turned), "empty": b"",
                "other": bodies[place - 1][:50] + data[50:], "foreign": b"#!/bin/sh\n" * 40,
            }[damage]
        )  # fmt: skip
    found = run(tmp_path)
    assert found["numbers"] == filled["numbers"] and found["misses"] == len(stored)
    assert {kind for kind, _ in found["warnings"]} == {"CornuWarning"}
    assert "has a damaged file" in found["warnings"][0][1]
    assert run(tmp_path)["misses"] == 0  # mended


def test_two_processes_at_once(tmp_path):
    both = [started(tmp_path / "c") for _ in range(2)]
    found = [ended(process) for process in both]
    assert found[0]["numbers"] == found[1]["numbers"] and not found[0]["warnings"] + found[1]["warnings"]
    assert run(tmp_path / "c")["misses"] == 0
    assert all(path.suffix == ".jaxcode" for path in files(tmp_path))  # nothing half written lies about


def test_a_directory_that_cannot_be_made(first, tmp_path):
    """It trains as without a cache, and says so once."""
    (tmp_path / "file").write_text("")
    found = run(tmp_path / "file" / "compiled")
    assert found["numbers"] == first[1]["numbers"] and len(found["warnings"]) == 1
    assert found["warnings"][0][0] == "CornuWarning" and "cannot be made" in found["warnings"][0][1]


def test_a_directory_that_cannot_be_written_to(tmp_path, monkeypatch):
    """What is in it serves; what is not is told once. (A superuser may write anywhere, so the refusal is made up.)"""
    store = Store(tmp_path)
    store.put("a", b"code")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.warns(CornuWarning, match="cannot be written to: .*Permission denied") as said:
        store.put("b", b"code")
        store.put("c", b"code")
    assert len(said) == 1 and store.get("a") == b"code" and store.get("b") is None


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(CornuWarning, match="No space left"):
        store.put("a", b"code")
    assert list(tmp_path.iterdir()) == []


def test_long_names(tmp_path):
    store = Store(tmp_path)
    store.put("jit_" + "n" * 400, b"one")
    store.put("jit_" + "n" * 399 + "m", b"two")
    assert store.get("jit_" + "n" * 400) == b"one" and store.get("jit_" + "n" * 399 + "m") == b"two"


def test_a_directory_open_to_all_is_refused(own, tmp_path):
    """What anyone can write there, this process would run."""
    cornu.engines.get("jax")
    tmp_path.chmod(0o777)
    with pytest.warns(CornuWarning, match="can be written to by anyone"):
        cornu.set_compile_cache(tmp_path)
    assert compile_cache.kept["jax"] is None
    assert doctor.examine(asking=False)["cache"]["compiled"]["problem"] == "can be written to by anyone"


def test_it_is_turned_on_and_off(own, tmp_path):
    """In a process that has compiled already, and JAX is left as it was found."""
    import jax

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    function = jax.jit(lambda x: x * 3 + 1)
    function(1.0)
    assert cornu.set_compile_cache(tmp_path) == tmp_path
    with cornu.engine("jax"):
        jax.jit(lambda x: x * 5 + 1)(1.0)
    assert len(files(tmp_path)) >= 1
    assert cornu.set_compile_cache(False) is None
    stored = files(tmp_path)
    jax.jit(lambda x: x * 7 + 1)(1.0)
    assert files(tmp_path) == stored and [getattr(jax.config, name) for name in names] == before


def test_what_says_where(own, tmp_path, monkeypatch):
    monkeypatch.setenv("CORNU_CACHE_DIR", str(tmp_path))
    where = cornu.engines.compile_cache_directory
    assert where() is None
    for value, found in (("0", None), ("1", tmp_path / "compiled"), (str(tmp_path / "x"), tmp_path / "x")):
        monkeypatch.setenv("CORNU_COMPILE_CACHE", value)
        assert where() == found
    assert cornu.set_compile_cache(False) is None and where() is None  # above the environment
    assert cornu.set_compile_cache() == where() == tmp_path / "compiled"
    assert not (tmp_path / "compiled").exists()  # it is made with the first file
    assert cornu.config.set_compile_cache is cornu.set_compile_cache


@pytest.mark.parametrize("wrong", ["", 3, 0, b"x", ["a"]])
def test_what_is_no_directory(own, wrong):
    with pytest.raises(ArgumentError, match="expected: .*a directory"):
        cornu.set_compile_cache(wrong)


def test_a_file_is_no_directory(own, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="which is a file"):
        cornu.set_compile_cache(tmp_path / "file")


@pytest.mark.parametrize("engine", ["tensorflow", "onnxruntime", "numpy"])
def test_engines_that_keep_nothing_say_so(own, tmp_path, engine):
    if engine not in cornu.engines.available():
        pytest.skip(f"{engine} is not installed")
    loaded = cornu.engines.get(engine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cornu.set_compile_cache(tmp_path)
    assert compile_cache.kept[engine] is None and loaded.use_compile_cache(tmp_path) is None


def test_pytensor_s_jax_linker_keeps_its_functions(tmp_path):
    if "pytensor" not in cornu.engines.available():
        pytest.skip("pytensor is not installed")
    numbers = run(tmp_path, "pytensor")["numbers"]
    stored = files(tmp_path / "jax")
    assert stored and run(tmp_path, "pytensor")["numbers"] == numbers and files(tmp_path / "jax") == stored


def test_torchinductor_is_told_the_folder(own, tmp_path, monkeypatch):
    """And finds the one it had when the cache is turned off, or cannot be written to."""
    if "torch" not in cornu.engines.available():
        pytest.skip("torch is not installed")
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    cornu.engines.get("torch")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "before"))
    cornu.set_compile_cache(tmp_path / "own")
    assert Path(cache_dir()).parent == tmp_path / "own" / "torch"
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.warns(CornuWarning, match="cannot be written to: TorchInductor does not use it"):
        cornu.set_compile_cache(tmp_path / "own")
    assert cache_dir() == str(tmp_path / "before") and compile_cache.kept["torch"] is None
    cornu.set_compile_cache(False)
    assert cache_dir() == str(tmp_path / "before")


def test_the_doctor_shows_it(own, tmp_path):
    assert "compile cache   off" in doctor.render(doctor.examine(asking=False))
    cornu.set_compile_cache(tmp_path)
    (tmp_path / "one").write_bytes(b"x" * 500_000)
    assert f"compile cache   {tmp_path}  (1 files, 0.5 MB)" in doctor.render(doctor.examine(asking=False))
