"""`python -m codec` is `lmc`."""

from codec.cli import main

if __name__ == "__main__":
    main()
