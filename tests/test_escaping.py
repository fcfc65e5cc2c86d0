"""Escaping: one line whatever the text, nothing dropped, JSON stays the same JSON."""

from __future__ import annotations

import json
import re
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_asynclog.escaping import escape, escape_all, escape_json

#: Every character that ends a line for somebody, moves a cursor or cannot be encoded.
UNSAFE = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"}]

#: All of Unicode, lone surrogates included, with far more unsafe characters than chance would bring.
ANY_TEXT = st.text(
    st.characters(codec=None, exclude_categories=()) | st.sampled_from([c for c in UNSAFE if c < "\ud800"]), max_size=40
)


def unescape(text: str) -> str:
    """The text before `escape`, if it had no backslash."""
    short = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(?:x(..)|u(....)|(.))", lambda m: short.get(m[3]) or chr(int(m[1] or m[2], 16)), text)


def joined(text: str) -> str:
    """``text`` as JSON can carry it: two surrogates that stand together are one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def test_every_unsafe_character_is_escaped() -> None:
    """C0, C1, DEL, the two separators and all surrogates: each alone, by its category in the Unicode database."""
    for character in UNSAFE:
        for escaped in (escape(f"a{character}b"), escape_json(json.dumps(f"a{character}b", ensure_ascii=False))):
            assert escaped.isprintable(), hex(ord(character))
            assert "\\" in escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("", ""),
        ("plain", "plain"),
        ("häßlich 日本 😀 \u200f", "häßlich 日本 😀 \u200f"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\r\n", "\\r\\n"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\0\x07\x7f\x85\x9b", "\\x00\\x07\\x7f\\x85\\x9b"),
        ("\x0b\x0c\x1c\x1d\x1e", "\\x0b\\x0c\\x1c\\x1d\\x1e"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\udcff", "\\udcff"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_how_it_looks(text: str, escaped: str) -> None:
    """What Python programmers know from `repr`; all other text is left as it is."""
    assert escape(text) == escaped


def test_tabs_of_a_format_stay() -> None:
    """With ``keep_tabs`` a TAB is a separator; everything else is escaped as ever."""
    assert escape("a\tb\n\x0b", keep_tabs=True) == "a\tb\\n\\x0b"


@given(ANY_TEXT, st.booleans())
@example("\ud800", False)
@settings(deadline=None, database=None, max_examples=300)
def test_any_text_becomes_one_line(text: str, keep_tabs: bool) -> None:
    """No line end, no control character, encodable; escaping again changes nothing."""
    escaped = escape(text, keep_tabs=keep_tabs)
    assert "".join(escaped.splitlines()) == escaped
    assert not [c for c in escaped if c in set(UNSAFE) and not (keep_tabs and c == "\t")]
    escaped.encode("utf-8")
    assert escape(escaped, keep_tabs=keep_tabs) == escaped


@given(st.lists(ANY_TEXT, max_size=4))
@example(["a", "b c", "d"])
@example(["a\nb", "c"])
@example(["a\x7f", "b"])
@settings(deadline=None, database=None, max_examples=300)
def test_many_texts_at_once(texts: list[str]) -> None:
    """As one by one."""
    assert escape_all([*texts]) == [escape(text) for text in texts]


@given(ANY_TEXT.map(lambda text: text.replace("\\", "/")))
@settings(deadline=None, database=None, max_examples=300)
def test_nothing_is_dropped(text: str) -> None:
    """The escaped text tells what the text was."""
    assert unescape(escape(text)) == text


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
@settings(deadline=None, database=None, max_examples=300)
def test_escaped_json_is_the_same_json(document: dict[str, str]) -> None:
    """A document means the same before and after, and is one line after."""
    escaped = escape_json(json.dumps(document, ensure_ascii=False))
    assert "".join(escaped.splitlines()) == escaped
    escaped.encode("utf-8")
    assert json.loads(escaped) == {joined(key): joined(value) for key, value in document.items()}
