"""Bytes: primitives, header, packets, profiles and frozen tables as values.  NumPy at most, no
torch.
"""
