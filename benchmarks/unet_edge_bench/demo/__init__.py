"""`unet-edge demo`: train, export, predict and compare on a real sample, and show it on one page."""

from .run import BRAIN, Plan, run_demo

__all__ = ["BRAIN", "Plan", "run_demo"]
