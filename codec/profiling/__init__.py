"""Profiles measured: simple ones on the first frames, weighted ones by the sensitivity of the
task.

One word per idea: a simple profile is *measured* on a few frames; a weighted one is *calibrated*
on many inputs (`pipeline.calibration`); the *sensitivity* is what an error costs the task, and the
*metric* what is made of it to measure errors by.
"""
