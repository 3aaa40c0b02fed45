"""Mistakes of the hand that writes ``config.pbtxt``: its text is no longer what it should be."""

from __future__ import annotations

import random
import re

from benchmarks.differential.case import Case

_FIELD = re.compile(r"\b([a-z_]{4,})\b(?=\s*[:{\[])")
_ENUM = re.compile(r"\b(TYPE|KIND|CONTROL|FORMAT|BATCH|PRIORITY)_[A-Z0-9_]+\b|\b(REJECT|DELAY)\b")
_NUMBER = re.compile(r"(?<=[:\[,\s])-?\d+\b(?!\.)")
_STRING = re.compile(r"""(?P<quote>["'])[^"'\n]*(?P=quote)""")
_SCALAR = re.compile(
    r"\b(max_batch_size|count|name|data_type|model_name|backend|platform)\s*:\s*([\w-]+|[\"'][^\"'\n]*[\"'])"
)


def _pick(pattern: re.Pattern[str], case: Case, rng: random.Random) -> re.Match[str] | None:
    found = list(pattern.finditer(_without_comments(case.text())))
    return rng.choice(found) if found else None


def _without_comments(text: str) -> str:
    """The text with blanks where its comments are, so that places stay the same."""
    return re.sub(r"#[^\n]*", lambda match: " " * len(match[0]), text)


def _put(case: Case, start: int, end: int, new: str) -> Case:
    text = case.text()
    return case.with_text(text[:start] + new + text[end:])


def _misspelt(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    ways = (
        word[:place] + word[place + 1 :],
        word[:place] + word[place] + word[place:],
        word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :],
        word.replace("_", "") if "_" in word else word + "s",
        word.upper(),
    )
    return rng.choice([way for way in ways if way != word] or [word + "x"])


def field_misspelt(case: Case, rng: random.Random) -> Case | None:
    """A field's name with a letter too many, too few, exchanged, in capitals, without underscores."""
    match = _pick(_FIELD, case, rng)
    return match and _put(case, *match.span(1), _misspelt(match[1], rng))


def enum_misspelt(case: Case, rng: random.Random) -> Case | None:
    """An enum's value that is none, or is none of this field."""
    match = _pick(_ENUM, case, rng)
    other = (
        "TYPE_FLOAT",
        "TYPE_FLOAT32",
        "FP32",
        "KIND_TPU",
        "CPU",
        "CONTROL_START",
        "type_fp32",
        "TYPE_FP31",
        "FORMAT_NC",
    )
    return match and _put(case, *match.span(), rng.choice((*other, f'"{match[0]}"')))


def number_quoted(case: Case, rng: random.Random) -> Case | None:
    """A number in quotes."""
    match = _pick(_NUMBER, case, rng)
    return match and _put(case, *match.span(), f'"{match[0]}"')


def string_unquoted(case: Case, rng: random.Random) -> Case | None:
    """A string without quotes."""
    match = _pick(_STRING, case, rng)
    return match and _put(case, *match.span(), match[0][1:-1])


def number_malformed(case: Case, rng: random.Random) -> Case | None:
    """A number as a fraction, too large for any integer, in hexadecimal (which is allowed), with a unit, negative."""
    match = _pick(_NUMBER, case, rng)
    new = (
        rng.choice((f"{match[0]}.0", "99999999999999999999", "4294967296", "0x8", "8ms", "1e2", "-8", "+8", "08", ""))
        if match
        else ""
    )
    return match and _put(case, *match.span(), new)


def bracket_lost(case: Case, rng: random.Random) -> Case | None:
    """A brace or bracket is missing."""
    match = _pick(re.compile(r"[{}\[\]]"), case, rng)
    return match and _put(case, *match.span(), "")


def bracket_exchanged(case: Case, rng: random.Random) -> Case | None:
    """A bracket where a brace belongs, or the other way round."""
    match = _pick(re.compile(r"[{}\[\]]"), case, rng)
    return match and _put(case, *match.span(), {"{": "[", "}": "]", "[": "{", "]": "}"}[match[0]])


def quote_lost(case: Case, rng: random.Random) -> Case | None:
    """A quotation mark is missing."""
    match = _pick(re.compile(r"[\"']"), case, rng)
    return match and _put(case, *match.span(), "")


def comma_changed(case: Case, rng: random.Random) -> Case | None:
    """A comma is missing or doubled."""
    match = _pick(re.compile(","), case, rng)
    return match and _put(case, *match.span(), rng.choice((" ", ",,", ";")))


def comma_after_last(case: Case, rng: random.Random) -> Case | None:
    """A comma after the last element of a list."""
    match = _pick(re.compile(r"(?=\s*\])"), case, rng)
    return match and _put(case, *match.span(), ",")


def colon_lost(case: Case, rng: random.Random) -> Case | None:
    """No colon, which messages do without and scalars do not; or an equals sign."""
    match = _pick(re.compile(r":"), case, rng)
    return match and _put(case, *match.span(), rng.choice((" ", "=", "::")))


def scalar_repeated(case: Case, rng: random.Random) -> Case | None:
    """A field that may be there once is there twice."""
    match = _pick(_SCALAR, case, rng)
    return match and _put(case, match.end(), match.end(), f" {match[0]}")


def message_as_scalar(case: Case, rng: random.Random) -> Case | None:
    """A number or a truth value where a message belongs."""
    text = _without_comments(case.text())
    match = _pick(re.compile(r"\b(\w+)\s*:?\s*\{[^{}]*\}"), case, rng)
    if match is None or not text:
        return None
    return _put(case, *match.span(), f"{match[1]}: {rng.choice(('true', '1', 'on'))}")


def scalar_as_message(case: Case, rng: random.Random) -> Case | None:
    """A message where a number or a string belongs."""
    match = _pick(_SCALAR, case, rng)
    return match and _put(case, *match.span(), f"{match[1]} {{ value: {match[2]} }}")


def unknown_field_added(case: Case, rng: random.Random) -> Case | None:
    """A field of another tool, of a newer server, or of another message."""
    fields = (
        "max_inflight_requests: 4",
        "batching: true",
        'version: "1"',
        "dims: [ 1 ]",
        "preferred_batch_size: 4",
        "kind: KIND_CPU",
        "max_queue_delay_microseconds: 10",
        "decoupled: true",
        "[extension.field]: 1",
        "count: 1",
    )
    text = case.text()
    return case.with_text(f"{text}{rng.choice(fields)}\n") if text else None


def garbage_added(case: Case, rng: random.Random) -> Case | None:
    """Something that is no text format: a character, a merge's traces, JSON, bytes that are no text."""
    pieces = (
        b"}",
        b"<<<<<<< HEAD\n",
        b'{"name": 1}',
        b"\x00",
        b"\xff\xfe",
        b"@",
        b"// comment\n",
        b"/* */",
        b"max_batch_size\n",
    )
    lines = case.text().encode().split(b"\n")
    if lines == [b""]:
        return None
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(pieces))
    return case.with_text(b"\n".join(lines))


def text_replaced(case: Case, rng: random.Random) -> Case | None:
    """The whole file is something else: nothing, a comment, JSON, binary, half of itself."""
    text = case.text().encode()
    if not text:
        return None
    half = text[: rng.randrange(len(text) // 4, len(text))]
    others = (b"", b"\n", b"# nothing\n", b'{"backend": "python"}', bytes(range(128, 200)), half, half)
    return case.with_text(rng.choice(others))


def oneof_twice(case: Case, rng: random.Random) -> Case | None:
    """Two of which there may be one: scheduling choices, version policies."""
    text = case.text()
    pairs = (
        "version_policy { latest { } all { } }",
        "dynamic_batching { } sequence_batching { }",
        "dynamic_batching { } dynamic_batching { }",
    )
    return case.with_text(f"{text}{rng.choice(pairs)}\n") if text else None


TEXT = {
    "field misspelt": field_misspelt,
    "enum value misspelt": enum_misspelt,
    "number in quotes": number_quoted,
    "string without quotes": string_unquoted,
    "number malformed": number_malformed,
    "bracket lost": bracket_lost,
    "bracket exchanged": bracket_exchanged,
    "quote lost": quote_lost,
    "comma lost or doubled": comma_changed,
    "comma after the last": comma_after_last,
    "colon lost": colon_lost,
    "scalar twice": scalar_repeated,
    "message as scalar": message_as_scalar,
    "scalar as message": scalar_as_message,
    "unknown field": unknown_field_added,
    "garbage in the text": garbage_added,
    "config replaced": text_replaced,
    "one of two, both": oneof_twice,
}
