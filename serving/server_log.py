"""What a Triton log says: why models failed, whether a port was taken, and the lines worth showing."""

from __future__ import annotations

import re

# `E1121 04:44:37.838 179 file.cc:642] "message"`, or with --log-format=ISO8601 `2026-..Z E 179 file.cc:642] "message"`.
_LINE = re.compile(r"^(?:[EWIF]\d{4}|\S+Z [EWIF]) .*?\S+:\d+\] ?(?P<message>.*)$")
_ALARMING = re.compile(r"^(?:[EWF]\d{4} |\S+Z [EWF] )")
_FAILED = (
    re.compile(r"failed to load '(?P<model>[^']+)' version (?P<version>-?\d+): (?P<reason>.*)", re.S),
    re.compile(r"failed to load model '(?P<model>[^']+)': (?P<reason>.*)", re.S),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.*)", re.S),
    re.compile(r"failed to poll model '(?P<model>[^']+)': (?P<reason>.*)", re.S),
)
_PROTOBUF = re.compile(r"^\[libprotobuf ERROR [^\]]*\] Error parsing text-format [\w.]+: (?P<reason>.*)$")
_PORT_TAKEN = re.compile(r"[Ss]ocket '(?P<address>[^']+)' already in use")
_CREATING = re.compile(r"^error: creating server: (?P<reason>.*)", re.M | re.S)
_BEFORE_TABLE = re.compile(r"\.cc:\d+\]\s*$")
_NOISE = ("Failed to initialize NVML", "DCGM", "pinned_memory_manager", "cuda_memory_manager", "CudaDriverHelper")


def load_failures(text: str) -> dict[str, str]:
    """The server's reason for each model that it could not load; a later success of the model takes it back."""
    failures: dict[str, str] = {}
    parse_error = ""
    for line in text.splitlines():
        if match := _PROTOBUF.match(line):
            parse_error = match["reason"]  # said just before the line that names the model
            continue
        message = _message(line)
        if message.startswith("successfully loaded '"):
            failures.pop(message.split("'")[1], None)
        for pattern in _FAILED:
            if match := pattern.match(message):
                reason = match["reason"].rstrip()
                if parse_error and "text proto" in reason:
                    reason = f"{reason} (line:column {parse_error})"
                failures[match["model"]] = reason
                parse_error = ""
                break
    return failures


def loading(text: str) -> list[str]:
    """Models that began to load and neither succeeded nor failed yet."""
    open_models: dict[str, None] = {}
    for line in text.splitlines():
        message = _message(line)
        if message.startswith("loading: "):
            open_models[message.removeprefix("loading: ").rsplit(":", 1)[0]] = None
        elif match := re.match(r"(?:successfully loaded|failed to load) '([^']+)'", message):
            open_models.pop(match[1], None)
    return list(open_models)


def has_judged_all(text: str) -> bool:
    """True once the server has said of every model whether it is ready (its table of models is written)."""
    return re.search(r"^\| Model +\| Version \| Status", text, re.M) is not None


def port_taken(text: str) -> str:
    """``address:port`` that the server could not bind, or nothing."""
    match = _PORT_TAKEN.search(text)
    return match["address"] if match else ""


def refusal(text: str) -> str:
    """Why the server refused to start, in its own words, or nothing."""
    if match := _CREATING.search(text):
        return match["reason"].strip()
    before, found, _ = text.partition("Usage: tritonserver")
    return before.strip() if found else ""  # an argument it does not know, before all its options


def tail(text: str, lines: int = 15) -> str:
    """The last lines worth reading: no tables, no complaints about an absent GPU."""
    kept = [
        line.rstrip()
        for line in text.splitlines()
        if line.strip()
        and line[0] not in "+|"
        and not _BEFORE_TABLE.search(line)
        and not any(noise in line for noise in _NOISE)
    ]
    return "\n".join(kept[-lines:])


def is_alarming(line: str) -> bool:
    """True for the server's warnings and errors, without those about an absent GPU."""
    return bool(_ALARMING.match(line)) and not any(noise in line for noise in _NOISE)


def _message(line: str) -> str:
    match = _LINE.match(line)
    if match is None:
        return ""
    message = match["message"].strip()
    if len(message) > 1 and message[0] == message[-1] == '"':
        message = message[1:-1].replace("\\n", "\n").replace('\\"', '"').replace("\\t", "\t")
    return message
