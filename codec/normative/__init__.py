"""What a decoder computes, in integers only: read beside FORMAT.md 5 to 7, section by section."""
