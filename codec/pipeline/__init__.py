"""Both ends joined: video to stream, stream to tensors and task output; the calibration run;
measures.
"""
