"""Set-up for all tests: Keras (the judge) on JAX, one thread per engine, both engines as a parameter."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import cornu

ENGINES = ["numpy", "jax"]


@pytest.fixture(params=ENGINES)
def engine(request):
    """Each engine in turn, in force during the test."""
    with cornu.engine(request.param):
        yield request.param
