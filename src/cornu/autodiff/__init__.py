"""Differentiation as an interpreter: the tape, one rule per primitive, and gradients for users."""

from cornu.autodiff.gradients import value_and_grad

__all__ = ["value_and_grad"]
