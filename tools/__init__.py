"""Studies and generators, run as `python -m tools.NAME`; not installed."""
