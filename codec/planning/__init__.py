"""Where to cut a network: what each place costs, measured on a few frames, and what follows for a
link.

    cuts ──► measurement ──► curves, times ──► plan ──► table, JSON, page
                                  link, slowdown ─┘
"""
