"""Profiles measured: simple ones on the first frames, weighted ones by the sensitivity of the
task.
"""
