"""Names of GPUs -> compute capabilities: ``sm86``, ``8.6``, ``l4``, ``RTX 6000 Ada``."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from builder.errors import EngineError
from builder.findings import did_you_mean

_SM = re.compile(r"(?:sm_?|compute_?|cc)?(?P<major>\d{1,2})[._]?(?P<minor>\d)\Z")
_MAKERS = ("nvidia", "geforce", "tesla")


@functools.cache
def _data() -> Mapping[str, Any]:
    text = importlib.resources.files("builder.engine").joinpath("gpus.json").read_text(encoding="utf-8")
    data: Mapping[str, Any] = json.loads(text)
    return data


@functools.cache
def cards() -> Mapping[str, str]:
    """Every card by its plain name (``rtx6000ada``), with its compute capability (``8.9``)."""
    return {_plain(name): capability for capability, names in _data()["cards"].items() for name in names}


def capability_of(name: str, *, where: str = "engine.gpu") -> str:
    """The compute capability of a GPU, ``8.6``.

    Args:
        name: an architecture (``sm86``, ``8.6``) or a card (``l4``, ``RTX 6000 Ada``).
        where: the place it was written.

    Raises:
        EngineError: it is not in the table; with the name that was probably meant.
    """
    match = _SM.match(name.strip().lower())
    if match and (capability := f"{match['major']}.{match['minor']}") in _data()["cards"]:
        return capability
    if not match and (found := cards().get(_plain(name))):
        return found
    known = [sm_name(capability) for capability in _data()["cards"]]
    close = did_you_mean(_plain(name), [*cards(), *known])
    raise EngineError(
        f"unknown GPU {name!r}",
        where=where,
        expected=f"an architecture ({', '.join(known)}) or a card ({', '.join(_shown())})",
        got=repr(name),
        fix=close
        or "name the architecture; `nvidia-smi --query-gpu=name,compute_cap --format=csv` shows what is there",
    )


def resolve_targets(kind: str, names: Iterable[str], *, where: str = "engine.gpu") -> tuple[str, ...]:
    """The compute capabilities that an engine is to be built for, in rising order, each once.

    Args:
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        names: as the spec has them; none at all gives none for ``tensorrt`` (the GPU that is there) and, for
            ``tensorrt-rtx``, all that can be built ahead of time but Turing, which has no float32 products there.
        where: the place they were written.

    Raises:
        EngineError: a name is unknown, or this kind cannot be built ahead of time for it.
    """
    wanted = {capability_of(name, where=where): name for name in names}
    able = ahead_of_time(kind)
    refused = [capability for capability in wanted if able and capability not in able]
    if refused:
        shown = ", ".join(f"{wanted[capability]} ({sm_name(capability)})" for capability in refused)
        raise EngineError(
            f"{kind} engines cannot be built ahead of time for {shown}",
            where=where,
            expected=f"of {', '.join(map(sm_name, able))}",
            got=shown,
            fix=f"take it out of `gpu`, or build a `tensorrt-*` variant on a machine with {wanted[refused[0]]}",
        )
    usual = [capability for capability in able if capability not in _data()["ahead_of_time"]["only_by_name"]]
    return tuple(sorted(wanted or usual, key=as_pair))


def ahead_of_time(kind: str) -> tuple[str, ...]:
    """The compute capabilities that this kind is built for without having the GPU; none where it never is."""
    return tuple(_data()["ahead_of_time"].get(kind, ()))


def as_pair(capability: str) -> tuple[int, int]:
    """``8.6`` -> ``(8, 6)``."""
    major, minor = capability.split(".")
    return int(major), int(minor)


def sm_name(capability: str) -> str:
    """``8.6`` -> ``sm86``."""
    return "sm" + capability.replace(".", "")


def engine_file(capability: str) -> str:
    """What the engine for a compute capability is called in a version folder: ``8.6`` -> ``model_sm86.plan``."""
    return f"model_{sm_name(capability)}.plan"


def _plain(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for maker in _MAKERS:
        plain = plain.removeprefix(maker)
    return plain


def _shown() -> list[str]:
    """A few cards of every architecture, for a message."""
    return [name.replace(" ", "") for names in _data()["cards"].values() for name in names[:2]]
