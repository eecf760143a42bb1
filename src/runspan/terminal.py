"""Texts from outside, made fit for a terminal."""


def plain(text: str) -> str:
    """The text in one line, with U+FFFD for what a terminal would obey (escape sequences) or cannot show."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
