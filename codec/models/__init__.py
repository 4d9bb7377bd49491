"""Where networks come from, preprocessing as data, n^k and offsets, the cut."""
