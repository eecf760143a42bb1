"""Masks secrets, e-mail addresses and what the configuration names in text that leaves the bridge."""

import re
from collections.abc import Iterable, Iterator, Sequence

MASK = "[redacted]"

MARGIN_CHARACTERS = 2048
"""Of a text that is cut, so much behind its end is read too, so that a secret across it is known as one."""
OWN_CHARACTERS = 1024
"""No pattern of the configuration sees more of a text at once; a match longer than half of that may be missed."""

_BLANK = "\0"
"""Stands for each masked character until all patterns have had their turn: none disturbs another."""

# Each pattern beside words, in lower case, of which one is in whatever it matches: most texts have none, and these are
# found far quicker. Every repetition has an upper bound, and none begins again inside a run of the very characters
# that it has just read through: any text takes linear time, and not much of it.
_PATTERNS = (
    (
        ("-----begin",),
        re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,16384}(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"),
    ),
    (("eyj",), re.compile(r"(?<![\w-])eyJ[\w-]{8,4096}+\.[\w-]{8,8192}(?:\.[\w-]{0,4096})?")),  # JSON web token
    (("bearer", "basic"), re.compile(r"(?i:\b(?:bearer|basic))\s{1,8}[\w.~+/=-]{8,8192}")),
    (
        ("sk", "pk", "rk"),  # OpenAI, Anthropic, Stripe, case.dev
        re.compile(r"\b(?:sk|pk|rk)[-_](?:[a-z]{2,12}[-_]){0,3}[\w-]{12,512}"),
    ),
    (
        ("rt_", "tv_", "flw_key_", "whsec_"),  # Runtype, Flowyble, webhooks
        re.compile(r"\b(?:rt|tv)_(?:[a-z]{2,12}_)?[\w-]{12,512}|\bflw_key_[\w-]{6,512}|\bwhsec_[\w+/=-]{8,512}"),
    ),
    (
        ("gh", "glpat-", "xox", "hf_", "npm_", "pypi-"),
        re.compile(
            r"\bgh[pousr]_\w{20,255}|\bgithub_pat_\w{20,255}|\bglpat-[\w-]{16,255}|\bxox[abeoprs]-[\w-]{8,255}"
            r"|\bhf_\w{20,128}|\bnpm_\w{30,64}|\bpypi-[\w-]{20,512}"
        ),
    ),
    (("akia", "asia", "aiza"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,64}")),  # AWS, Google
    (("://",), re.compile(r"(?<=://)[^\s/:@]{0,256}:[^\s/@]{1,256}(?=@)")),  # user and password in a URL
    (("@",), re.compile(r"\b[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")),
)

_SECRET_NAMES = ("key", "secret", "token", "passw", "authorization", "credential")
_NAMED_SECRET = re.compile(
    r"(?i)((?:api[-_]?key|secret|token|passw(?:or)?d|authorization|credential)"
    r"[\"']?\s{0,4}[=:]\s{0,4}[\"']?)(?!\0)[^\s\"',;&}]{4,4096}"
)
_BLANKS = re.compile(f"{_BLANK}+")

_SECRET_KEY = re.compile(
    r"(?i)api[-_]?key|secret|passw(?:or)?d|passphrase|authorization|credential|private[-_]?key|cookie"
    r"|(?:^|[-_])(?:access|refresh|auth|id|bearer|session|api)[-_]?token$|^token$"
)


def redact(text: str, own: Sequence[re.Pattern[str]] = ()) -> str:
    """The text with secrets of well-known forms, e-mail addresses and whatever the `own` patterns find masked."""
    lowered = text.lower()
    blanked = text
    for words, pattern in _PATTERNS:
        if any(word in lowered for word in words):
            blanked = pattern.sub(_blank, blanked)
    if any(name in lowered for name in _SECRET_NAMES):
        blanked = _NAMED_SECRET.sub(_blank_value, blanked)
    for pattern in own:
        blanked = _blanked_at(blanked, matches(pattern, text))
    return _BLANKS.sub(MASK, blanked)


def redact_start(text: str, wanted_characters: int, own: Sequence[re.Pattern[str]] = ()) -> str:
    """The masked text, of a very long one only somewhat more than the first `wanted_characters`."""
    if len(text) <= wanted_characters + MARGIN_CHARACTERS:
        return redact(text, own)
    # What was cut through at the end of the piece is no longer known as a secret, so that end is never shown.
    return redact(text[: wanted_characters + 2 * MARGIN_CHARACTERS], own)[:-MARGIN_CHARACTERS]


def matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Where a pattern of the configuration matches, start and end.

    It never sees more than OWN_CHARACTERS at once: what takes quadratic time then takes linear time.
    """
    at = 0
    while at < len(text):
        seen = min(at + OWN_CHARACTERS, len(text))
        match = pattern.search(text, at, seen)
        if match is None:
            if seen == len(text):
                return
            at += OWN_CHARACTERS // 2
        elif match.end() == seen < len(text) and match.start() > at:
            at = match.start()  # it may go on behind what was seen
        else:
            if match.end() > match.start():
                yield match.span()
            at = max(match.end(), at + 1)


def is_secret_key(key: str) -> bool:
    """Whether a JSON key by its name holds a secret, whatever its value looks like."""
    return _SECRET_KEY.search(key) is not None


def _blanked_at(text: str, spans: Iterable[tuple[int, int]]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        pieces += (text[at:start], _BLANK * (end - start))
        at = end
    return "".join([*pieces, text[at:]])


def _blank(match: re.Match[str]) -> str:
    return _BLANK * len(match[0])


def _blank_value(match: re.Match[str]) -> str:
    return match[1] + _BLANK * (len(match[0]) - len(match[1]))
