"""What becomes of a network's outputs: classes, boxes, masks, key points, or nothing but tensors.

A `Task` finishes outputs to a result, compares two results, and says how much an error in which
output matters (`tasks.task`).  Which task it is, is said by name or by a TOML file
(`tasks.description`); nothing is guessed from shapes.
"""
