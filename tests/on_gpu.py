"""How near recurrent layers must come to the reference. cuDNN, which PyTorch asks on a GPU, rounds more than the rest."""

from cornu.engines import installed

__all__ = ["near"]


def near(rtol, atol):
    """Tolerances: those given, and on a GPU at least what cuDNN's own tanh and sigmoid need."""
    if installed.machine()["graphics"]:
        rtol, atol = max(rtol, 1e-4), max(atol, 1e-5)
    return {"rtol": rtol, "atol": atol}
