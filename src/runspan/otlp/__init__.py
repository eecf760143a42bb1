"""From a Trace to a destination that has acknowledged it."""
