"""Measure: latency, agreement, report."""
