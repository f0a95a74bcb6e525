"""The static rules of the Neural Engine: what a package holds that it cannot run, or not well.

from unet_edge_export.mil import Package
from unet_edge_export.mil.lint import lint

report = lint(Package.open("model.mlpackage"), "m1")
print(report.counts, report.functions[0].projection.milliseconds)
"""

from .chips import CHIPS, DEFAULT_CHIP, Chip, find_chip
from .cost import Cost, OperationCost, Projection
from .report import FunctionReport, Report, lint
from .rule import RULES, SEVERITIES, Finding, Rule
from .text import render, render_rules

__all__ = [
    "CHIPS",
    "DEFAULT_CHIP",
    "RULES",
    "SEVERITIES",
    "Chip",
    "Cost",
    "Finding",
    "FunctionReport",
    "OperationCost",
    "Projection",
    "Report",
    "Rule",
    "find_chip",
    "lint",
    "render",
    "render_rules",
]
