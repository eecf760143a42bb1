"""What the program ends with: scripts and service managers act on these numbers, so they never change.

Nothing is imported here: Ctrl-C ends the program with its own number also while all else is still being loaded.
"""

INCOMPLETE = 1
"""Some runs were quarantined, gone or expired, or what was printed is not whole."""
BAD_CONFIG = 2
"""The configuration or the command line is wrong."""
UNREACHABLE = 3
"""A source or the destination cannot be reached, or refuses us."""
NO_LEDGER = 4
"""The ledger cannot be used."""
INTERRUPTED = 130
"""Stopped by Ctrl-C, or by force: something hung while the program was to stop."""
