"""Measuring how long models take. Nothing is imported here: a worker times its own imports."""
