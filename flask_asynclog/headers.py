"""What headers say, as WSGI hands them over: one character per byte (PEP 3333).

Runs where records are written. Pure functions.
"""

from __future__ import annotations


def decoded(header: str | None) -> str | None:
    """A header in UTF-8; bytes that are none as surrogates (PEP 383), so that nothing is lost."""
    if header is None or header.isascii():
        return header
    return header.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def visible(text: str | None) -> str | None:
    r"""What was `decoded`, for readers: those bytes as ``\xff``."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def number_of(value: object) -> int | None:
    """The number that a header has, if it has one; apps give some as a number, which WSGI does not allow."""
    text = value if type(value) is str else str(value)
    # 18 digits fit into 64 bits with a sign, as stores of logs want; a client may send any number.
    return int(text) if len(text) < 19 and text.isascii() and text.isdecimal() else None
