"""The rate-distortion study: what every contender costs in bytes, and in the task."""
