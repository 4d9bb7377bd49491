"""What only an encoder does: features checked, motion searched, levels and modes chosen, rate
kept.
"""
