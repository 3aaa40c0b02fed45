"""The files that a configuration names: where they lie in the version folder, and how Triton is told.

Triton looks for warmup samples in ``<model>/warmup`` and for initial states in ``<model>/initial_state``, which no
version has of its own. Ours are in the version folder, so that they come and go with it, and are named from there:
``../3/warmup/FILE``. For that a folder of that name has to be there: see :mod:`builder.repository.places`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ODD = re.compile(r"[^A-Za-z0-9_.\-]+")


def plain(text: str) -> str:
    """A tensor's name as part of a file's name."""
    return _ODD.sub("_", text).lstrip(".")[:100] or "tensor"


def place(tree: Mapping[str, Any], names: frozenset[str], version: int) -> dict[str, Any]:
    """The tree with its files named as those of a version.

    Args:
        tree: a decided configuration; files are named as they lie in the version folder.
        names: the files of the version folder, relative to it. Others are the user's own, and left as they are.
        version: which.
    """
    result = dict(tree)
    if "output" in tree:
        result["output"] = [_labelled(output, names, version) for output in tree["output"]]
    if isinstance(tree.get("model_warmup"), list):
        result["model_warmup"] = [_warm(sample, names, version) for sample in tree["model_warmup"]]
    sequence = tree.get("sequence_batching")
    if isinstance(sequence, Mapping) and isinstance(sequence.get("state"), list):
        states = [_state(state, names, version) for state in sequence["state"]]
        result["sequence_batching"] = {**sequence, "state": states}
    agents = tree.get("model_repository_agents")
    if isinstance(agents, Mapping) and isinstance(agents.get("agents"), list):
        result["model_repository_agents"] = {"agents": [_agent(agent, names, version) for agent in agents["agents"]]}
    return result


def _labelled(output: Any, names: frozenset[str], version: int) -> Any:
    name = output.get("label_filename") if isinstance(output, Mapping) else None
    return {**output, "label_filename": f"{version}/{name}"} if name in names else output


def _from(folder: str, name: Any, names: frozenset[str], version: int) -> Any:
    return f"../{version}/{folder}/{name}" if f"{folder}/{name}" in names else name


def _warm(sample: Any, names: frozenset[str], version: int) -> Any:
    if not isinstance(sample, Mapping) or not isinstance(sample.get("inputs"), Mapping):
        return sample
    inputs = {}
    for key, value in sample["inputs"].items():
        has = isinstance(value, Mapping) and "input_data_file" in value
        file = _from("warmup", value["input_data_file"], names, version) if has else None
        inputs[key] = {**value, "input_data_file": file} if has else value
    return {**sample, "inputs": inputs}


def _state(state: Any, names: frozenset[str], version: int) -> Any:
    if not isinstance(state, Mapping) or not isinstance(state.get("initial_state"), list):
        return state
    first = [
        {**each, "data_file": _from("initial_state", each["data_file"], names, version)}
        if isinstance(each, Mapping) and "data_file" in each
        else each
        for each in state["initial_state"]
    ]
    return {**state, "initial_state": first}


def _agent(agent: Any, names: frozenset[str], version: int) -> Any:
    parameters = agent.get("parameters") if isinstance(agent, Mapping) else None
    if not isinstance(parameters, Mapping):
        return agent
    placed = {}
    for key, value in parameters.items():
        algorithm, colon, name = str(key).partition(":")
        placed[f"{algorithm}:{version}/{name}" if colon and name in names else key] = value
    return {**agent, "parameters": placed}
