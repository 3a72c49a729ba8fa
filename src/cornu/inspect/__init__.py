"""Looking at layers and models: summaries, pictures, costs, every value of a run, where engines part, and guards."""

from cornu.inspect.check_layer import check_layer
from cornu.inspect.compare import Comparison, compare
from cornu.inspect.cost import Cost, cost
from cornu.inspect.nan_guard import nan_guard
from cornu.inspect.plot import plot_model
from cornu.inspect.trace import Trace, trace
from cornu.models.summary import print_summary

__all__ = [
    "Comparison",
    "Cost",
    "Trace",
    "check_layer",
    "compare",
    "cost",
    "nan_guard",
    "plot_model",
    "print_summary",
    "trace",
]
