"""`python -m tools.rate_distortion`."""

from codec.files.outputs import ended_by_signals
from tools.rate_distortion.command import main

if __name__ == "__main__":
    with ended_by_signals():
        main()
