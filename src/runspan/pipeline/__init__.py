"""The way of a run, from a list to a mark in the ledger; the one package that knows every step."""
