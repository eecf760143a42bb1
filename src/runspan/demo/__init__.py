"""A simulator of the four agent platforms over real HTTP, and sample runs of a company that uses them."""
