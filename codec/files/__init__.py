"""Video in, streams and tensors in files, outputs that are whole or absent."""
