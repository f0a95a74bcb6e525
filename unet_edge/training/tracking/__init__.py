"""Where the course of a run is recorded: TensorBoard files, Weights & Biases, MLflow.

Imports neither torch nor a tracker until one is opened.
"""

from .tracker import TRACKERS, Tracker, open_tracker
from .values import Example, Histogram, score_scalars

__all__ = ["TRACKERS", "Example", "Histogram", "Tracker", "open_tracker", "score_scalars"]
