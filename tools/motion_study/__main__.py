"""`python -m tools.motion_study`."""

from codec.files.outputs import ended_by_signals
from tools.motion_study.command import main

if __name__ == "__main__":
    with ended_by_signals():
        main()
