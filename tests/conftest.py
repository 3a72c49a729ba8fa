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

import pytest

import cornu

INSTALLED = cornu.engines.available()
_asked = os.environ.get("CORNU_TEST_ENGINES", "numpy,jax")
ENGINES = INSTALLED if _asked == "all" else _asked.split(",")


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
