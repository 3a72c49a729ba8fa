"""What PyTensor (3.0.7) does that the language does not mean, and the way around it.

- Its JAX linker turns JAX's 64 bits on for the whole process (`link/jax/dispatch/basic.py`): see `by_jax`.
- Its JAX linker makes a Python number of a constant scalar (`jax_typify_ndarray`), which XLA reads as float64 where it
  is spread out: see `by_jax._constant`.
- Its C code raises where whole numbers are divided by 0: see `table._no_zero`.
- It has no bfloat16, and its gradients of rounding functions are in `floatX`, its process-wide float: the language's
  rules serve (`PytensorEngine.ruled`).
- It warns where it finds no BLAS, and again at each product compiled for one: such products are left to NumPy then.
- Some rewrites hold for real numbers only: those below are left out.
"""

import warnings

import pytensor
from pytensor.graph.rewriting.db import RewriteDatabaseQuery

__all__ = ["UNSAFE_REWRITES", "query"]

# Rewrites that give a number where the computation as written gives NaN or infinity (`x * 0`, `x - x`, `x == x`,
# `0 / x`, `log(exp(x))`), which would blind every watch for non-finite values; in pytensor/tensor/rewriting/math.py,
# basic.py and elemwise.py.
UNSAFE_REWRITES = (
    "local_0_dot_x",
    "local_add_canonizer",
    "local_div_exp_to_mul_exp",
    "local_div_switch_sink",
    "local_elemwise_sub_zeros",
    "local_exp_log",
    "local_exp_log_nan_switch",
    "local_greedy_distributor",
    "local_log_div",
    "local_log_sqrt",
    "local_mul_canonizer",
    "local_mul_exp_to_exp_add",
    "local_mul_pow_to_pow_add",
    "local_mul_specialize",
    "local_mul_switch_sink",
    "local_mul_zero",
    "local_sqrt_sqr",
    "local_sum_prod_of_mul_or_div",
    "local_useless_elemwise",
    "local_zero_div",
)


def query(*tags: str) -> RewriteDatabaseQuery:
    """PyTensor's rewrites of these tags, without those that are wrong for NaN and infinity."""
    return RewriteDatabaseQuery(include=tags, exclude=excluded())


def excluded() -> tuple[str, ...]:
    """The rewrites that are left out; those for BLAS too where PyTensor finds none (NumPy's products serve)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        return UNSAFE_REWRITES if pytensor.config.blas__ldflags else (*UNSAFE_REWRITES, "BlasOpt")
