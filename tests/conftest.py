"""Set-up for all tests: Keras (the judge) on JAX, one thread per engine, engines as a parameter.

`engine` is each engine of the everyday run, `each_engine` every installed one. `CORNU_TEST_ENGINES` (names with commas, or
`all`) widens the first: that is the long sweep.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gc
import runpy
import shutil
import tempfile
from pathlib import Path

import pytest

import cornu
from cornu.engines.jax import stored

INSTALLED = cornu.engines.available()
_asked = os.environ.get("CORNU_TEST_ENGINES", "numpy,jax")
ENGINES = INSTALLED if _asked == "all" else _asked.split(",")


_SHARED = "CORNU_TESTS_SHARED"  # a directory


def pytest_configure(config):
    """Let all processes of a run share what JAX has compiled: many tests compile the same small functions."""
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="cornu-tests-")
    stored.use(Path(os.environ[_SHARED]))
    stored._before.clear()  # a test that turns a cache of its own on and off finds this one again


def pytest_collection_finish(session):
    """Take what the libraries hold out of the garbage collector's way: many tests call it."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    """Remove what was shared."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_SHARED), ignore_errors=True)


@pytest.fixture(params=ENGINES)
def engine(request):
    """Each engine of this run in turn, in force during the test."""
    with cornu.engine(request.param):
        yield request.param


@pytest.fixture(params=INSTALLED)
def each_engine(request):
    """Every installed engine in turn, in force during the test."""
    with cornu.engine(request.param):
        yield request.param


KNOWN = runpy.run_path(str(Path(__file__).parent / "engines" / "known.py"))["KNOWN"]


def pytest_collection_modifyitems(items):
    """Tests that are known to fail on an engine are expected to; one that passes after all fails the run."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        engine = parameters.get("engine") or parameters.get("each_engine")
        if engine is not None:
            others = [str(part) for part in item.callspec.id.split("-") if part != engine]
            name = item.originalname + (f"[{'-'.join(others)}]" if others else "")
            reason = KNOWN.get((engine, name))
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
