"""This codec in the frameworks of others."""
