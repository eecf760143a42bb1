"""Secrets by reference: a configuration names where a secret is, never the secret itself."""

import json
import os
import re
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from runspan import files
from runspan.errors import ConfigError
from runspan.paths import expanded, possible
from runspan.projection.redaction import redact

MASK = "[secret]"
MAX_BYTES = 64 * 1024
"""No secret is larger: it goes into a header."""
_SHORTEST_MASKED = 4
"""A shorter secret would turn up by chance, and masking it everywhere would spell it out."""
_SHORTEST_MASKED_IN_BODIES = 16
"""A shorter one, such as a tenant's name in a header, may be part of an id, which must stay what it is."""

_revealed: set[str] = set()
_USUAL_NAME = r"[A-Z_][A-Z0-9_]*"
_REFERENCE = r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+"


class Secret:
    """A reference to a secret, `env:NAME` or `file:/path`; its text is read each time it is revealed.

    Reading a file anew is what lets a key be replaced while the program runs. Neither repr, str nor the errors hold
    the secret. Raises ValueError for anything that is not a reference.
    """

    __slots__ = ("_text", "reference")

    def __init__(self, reference: str) -> None:
        if not re.fullmatch(_REFERENCE, reference):
            raise ValueError("a secret does not stand in the configuration itself: write env:NAME or file:/path")
        self.reference = possible(reference)
        self._text: str | None = None

    @classmethod
    def known(cls, text: str, variable: str) -> "Secret":
        """A secret whose text was part of the environment variable `variable`."""
        secret = cls(f"env:{variable}")
        secret._text = text
        return secret

    def reveal(self) -> str:
        """The secret's text now, without surrounding white space.

        Raises ConfigError where the variable or file is missing, is empty, or holds what no HTTP header can carry.
        """
        text = self._read().strip() if self._text is None else self._text
        if not text:
            raise ConfigError(f"{self.reference} is empty: put the secret there")
        if not (text.isascii() and text.isprintable()):
            raise ConfigError(f"{self.reference} holds more than one line of plain ASCII: put only the secret there")
        conceal(text)
        return text

    def _read(self) -> str:
        kind, _, where = self.reference.partition(":")
        if kind == "env":
            if where not in os.environ:
                # A key pasted where its variable's name belongs is not spelled out.
                if redact(where) != where:
                    raise ConfigError("env: is followed by what looks like a key: write the name of a variable there")
                if not re.fullmatch(_USUAL_NAME, where):
                    raise ConfigError("the variable named after env: is not set; it is not repeated: it may be a key")
                raise ConfigError(f"the environment variable {where} is not set")
            return os.environ[where]
        try:
            return files.read_regular(expanded(where), MAX_BYTES).decode()
        except OSError as error:
            raise ConfigError(f"cannot read {self.reference}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self.reference} is not text: put only the secret there") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self.reference, self._text) == (other.reference, other._text)

    def __hash__(self) -> int:
        return hash(self.reference)

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    __str__ = __repr__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: object) -> "Secret":
            if isinstance(value, Secret):
                return value
            return cls(value if isinstance(value, str) else "")

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(lambda secret: secret.reference)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^({_REFERENCE})$"}


def conceal(text: str) -> None:
    """Let `mask` know of a secret, also as it stands within JSON."""
    _revealed.update((text, json.dumps(text)[1:-1]))


def mask(text: str) -> str:
    """`text` without any secret that this process has revealed so far: the last guard of what is written."""
    for secret in _of_at_least(_SHORTEST_MASKED):
        text = text.replace(secret, MASK)
    return text


def mask_body(body: bytes) -> bytes:
    """A platform's answer without our keys, should it repeat one in an agent's name or in a run."""
    for secret in _of_at_least(_SHORTEST_MASKED_IN_BODIES):
        body = body.replace(secret.encode(), MASK.encode())
    return body


def _of_at_least(characters: int) -> list[str]:
    # The longest first: one that begins with another would show its end.
    return sorted((secret for secret in _revealed if len(secret) >= characters), key=len, reverse=True)
