"""The options of commands that do a lot: where the work is done."""

from collections.abc import Callable
from typing import Any

import click

__all__ = ["job_options"]


def job_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `workers` and `cluster`, as `codec.running.jobs.complete` takes them."""
    workers = click.option(
        "-j",
        "--jobs",
        "workers",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Processes.",
    )
    cluster = click.option(
        "--cluster",
        metavar="ADDRESS",
        help="Of a dask scheduler whose workers see the same clips and code, instead of -j.",
    )
    return workers(cluster(function))
