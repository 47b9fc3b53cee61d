"""Text that came from elsewhere (labels, reasons, paths, other programs' errors), made fit for a message on one line.

Such a text could move the cursor, forge lines of output, turn the reading direction, carry a password, or advise what is unsafe.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

MOST_LETTERS = 2_000  # of one text in a message
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the reading direction
INVISIBLE = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of letters, separators of lines and paragraphs
LINE_END = re.compile(r"\s*[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]\s*")
MOST_SECRET = 500  # letters of one password or of a parameter's name: what looks for longer ones takes quadratic time
PORT = r"\d{1,5}(?:[/?#\s'\"]|$)"
USER = re.compile(  # a path that was made of a URL has one stroke left; a password may hold what would end the host
    r"([A-Za-z][A-Za-z0-9+.-]{1,40}:/{1,2})"
    rf"(?:[^/?#\s'\"<>]{{0,{MOST_SECRET}}}@|[^/?#\s'\"<>:@]{{0,{MOST_SECRET}}}:(?!{PORT})[^\s\"<>@]{{0,{MOST_SECRET}}}@)"
)
_NAME = rf"[^=&;#\s'\"<>]{{0,{MOST_SECRET}}}"
SECRET = re.compile(
    rf"([?&;#](?:code|{_NAME}(?:token|key|secret|passw|pwd|sig|cred|auth|session|jwt){_NAME})=)[^&;#\s'\"<>]+", re.IGNORECASE
)
UNSAFE = re.compile(r"weights_only|trust_remote_code|allow_pickle|unpickl", re.IGNORECASE)
OBJECTS = "a file or repository that brings Python objects or code, which are never loaded"


def visible(text: str) -> str:
    """``text`` with every control character and every mark that turns its direction written as an escape: ``\\x1b``.

    >>> print(visible("full" + chr(27) + "[31m"))
    full\\x1b[31m
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    hidden = sign in TURNING or unicodedata.category(sign) in INVISIBLE
    return sign.encode("unicode_escape").decode() if hidden else sign


def one_line(text: str, most: int = MOST_LETTERS) -> str:
    """``text`` on one line, visible, without credentials, and at most so long: what is beyond is left out in the middle."""
    line = visible(LINE_END.sub(" ", without_credentials(text[: 4 * most])).strip())
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"


def without_credentials(text: str) -> str:
    """``text`` with the user, the password and the secret parameters of every URL in it blanked.

    >>> without_credentials("s3 at https://me:secret@example.org/bucket")
    's3 at https://***@example.org/bucket'
    """
    if ":/" not in text:
        return text
    return SECRET.sub(r"\1***", USER.sub(r"\1***@", text))


def blanked(content: Any) -> Any:
    """JSON content with every text in it, the keys of its objects too, :func:`without_credentials`."""
    if isinstance(content, dict):
        return {blanked(key): blanked(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [blanked(value) for value in content]
    return without_credentials(content) if isinstance(content, str) else content


def said(text: str) -> str:
    """What another program or a file says, as a message can repeat it.

    Libraries advise to trust a file that they refuse (``weights_only=False``, ``trust_remote_code=True``); that is not passed on.
    """
    return OBJECTS if UNSAFE.search(text) else one_line(text)


def cut_note(tokens: Sequence[int], limit: int, who: str) -> str:
    """``12 of 50 prompts are cut at 77 tokens by CLIP``, from the length of each in tokens; empty where none is."""
    cut = sum(count > limit for count in tokens)
    return f"{cut} of {len(tokens)} prompts {'is' if cut == 1 else 'are'} cut at {limit} tokens by {who}" if cut else ""
