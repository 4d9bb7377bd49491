"""Who takes part in the rate-distortion study: our codec, its variants and the
anchors, and the scene that all of them are given.
"""
