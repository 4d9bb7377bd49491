"""`python -m tools.link_study`."""

from codec.files.outputs import ended_by_signals
from tools.link_study.command import main

if __name__ == "__main__":
    with ended_by_signals():
        main()
