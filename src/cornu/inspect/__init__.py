"""Looking at layers and models: summaries, pictures, and the check of a layer's promises."""

from cornu.inspect.check_layer import check_layer
from cornu.inspect.plot import plot_model
from cornu.models.summary import print_summary

__all__ = ["check_layer", "plot_model", "print_summary"]
