"""The `lmc` command: parse, call one library function, print.

Results go to standard output, progress to standard error.  Exit code 0: done; 1: an input or output
is at fault, said in one line; 2: wrong usage; 128 + N: ended by signal N, nothing left behind.
Heavy imports happen inside the commands, so that `--help` is instant.
"""

from codec.cli import calibrate, decode, encode, inspect, models, plan, receive, send
from codec.cli.group import main

__all__ = ["calibrate", "decode", "encode", "inspect", "main", "models", "plan", "receive", "send"]
