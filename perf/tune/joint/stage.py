"""One server for a joint search: each member has a stage of its own on it, an ensemble is loaded over their models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from perf.inputs import Request, RequestData, model_spec, request_data
from perf.target import Subject, Target
from perf.tune.joint.plan import Plan, way_of
from perf.tune.space import Settings, config_with
from perf.tune.stage import Stage, own_server, read_variants
from perf.tune.variants import find_variants
from serving import Client
from serving.progress import SILENT, Reporter

RESOURCE = "cores"
"""The rate limiter's resource: an execution takes one for each thread that it keeps busy."""

_ENSEMBLE = "tune-repo-ensemble"


def limiter_arguments(cores: int) -> list[str]:
    """What ``tritonserver`` needs for the rate limiter; without them it reads ``rate_limiter`` and does nothing."""
    return ["--rate-limit=execution_count", f"--rate-limit-resource={RESOURCE}:{cores}"]


@dataclass
class LimitedStage(Stage):
    """A stage whose configurations take the rate limiter's resources.

    Attributes:
        threads: of an execution whose settings do not say.
        cores: at most.
    """

    threads: int = 1
    cores: int = 1

    def config(self, settings: Settings, name: str) -> dict[str, Any]:
        """With a limiter in each instance group."""
        found = config_with(self.configs[settings.variant], settings, name)
        taken = min(self.cores, settings.threads or self.threads)
        limiter = {"resources": [{"name": RESOURCE, "count": taken}]}
        return found | {"instance_group": [{**group, "rate_limiter": limiter} for group in found["instance_group"]]}


@dataclass
class JointStage:
    """The server and what is loaded on it.

    Attributes:
        stages: by member; ``limited`` the same with the rate limiter.
        ensemble: its configuration as it is published, None for models side by side.
        data: the ensemble's requests.
    """

    target: Target
    stages: dict[str, Stage]
    limited: dict[str, LimitedStage] = field(default_factory=dict)
    ensemble: dict[str, Any] | None = None
    data: RequestData | None = None
    _loaded: Plan | None = None

    @property
    def client(self) -> Client:
        """For control."""
        return self.target.client

    def members(self, plan: Plan) -> dict[str, Subject]:
        """Each member with its settings, loaded and warm.

        Raises:
            ModelLoadError: the server refuses one.
            ServerUnavailableError: the server is gone.
        """
        if self._loaded not in (None, plan):
            self._drop()  # before a model that it needs is unloaded
        stages: Mapping[str, Stage] = self.limited if plan.limited else self.stages
        return {name: stages[name].subject(settings) for name, settings in plan.parts}

    def whole(self, plan: Plan, members: Mapping[str, Subject]) -> Subject:
        """The ensemble over members that are loaded."""
        assert self.ensemble is not None and self.data is not None
        if self._loaded != plan:
            self.client.load(_ENSEMBLE, _over(self.ensemble, {name: each.name for name, each in members.items()}))
            self._loaded = plan
            spec = model_spec(self.client.config(_ENSEMBLE), "1")
            for request in self.data.requests[:2]:
                for _ in range(2):
                    self.client.infer(_ENSEMBLE, _batched(request, batching=spec.max_batch_size > 0))
        return Subject(_ENSEMBLE, model_spec(self.client.config(_ENSEMBLE), "1"), self.data)

    def _drop(self) -> None:
        self._loaded = None
        self.client.unload(_ENSEMBLE)


def _over(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """An ensemble's configuration with other models for its steps."""
    steps = [
        {**step, "model_name": names[str(step["model_name"])], "model_version": -1}
        for step in config["ensemble_scheduling"]["step"]
    ]
    made = {key: value for key, value in config.items() if key not in ("instance_group", "runtime")}
    return made | {"name": _ENSEMBLE, "ensemble_scheduling": {**config["ensemble_scheduling"], "step": steps}}


def _batched(request: Request, *, batching: bool) -> dict[str, Any]:
    return {name: array[None] if batching else array for name, array in request.items()}


@contextmanager
def open_joint_stage(
    repository: Path, models: tuple[str, ...], *, ensemble: bool, limiter: int | None, reporter: Reporter = SILENT
) -> Iterator[JointStage]:
    """Start a server for these models, or for the steps of one ensemble; it is gone when the block ends.

    Args:
        limiter: also prepare for the rate limiter, with so many resources; None starts the server without it.

    Raises:
        ServerStartError, RuntimeUnavailableError: no server could be started.
        ModelLoadError: a model does not load as it is.
        TuneUsageError: one is not there, or of a kind that is not tuned.
    """
    found = {name: find_variants(repository, name) for name in models}
    arguments = limiter_arguments(limiter) if limiter is not None else []
    with own_server(repository, arguments, reporter=reporter) as (target, folder):
        stage = JointStage(target, {})
        members = models
        if ensemble:
            members = _read_ensemble(stage, models[0], folder)
            found = {name: find_variants(repository, name) for name in members}
        for place, name in enumerate(members):
            stage.stages[name] = _member(stage.target, folder, f"tune-repo-{place + 1}", found[name], reporter)
        if ensemble:
            _ask_steps(stage, members)
        if limiter is not None:
            for place, name in enumerate(members):
                stage.limited[name] = _with_limiter(stage.stages[name], f"tune-repo-{place + 1}-limited", limiter)
        yield stage


def _member(target: Target, folder: Path, prefix: str, variants: tuple[Any, ...], reporter: Reporter) -> Stage:
    stage = Stage(target, folder, {each.name: each for each in variants}, prefix=prefix)
    read_variants(stage, reporter=reporter)
    return stage


def _with_limiter(stage: Stage, prefix: str, cores: int) -> LimitedStage:
    return LimitedStage(
        stage.target,
        stage.repository,
        stage.variants,
        stage.configs,
        stage.data,
        prefix,
        threads=threads_by_default(_served(stage), cores),
        cores=cores,
    )


def threads_by_default(config: Mapping[str, Any], cores: int) -> int:
    """What an execution keeps busy where nothing says how many threads: Python runs on one core, others on all."""
    return 1 if config.get("backend") == "python" else cores


def _read_ensemble(stage: JointStage, name: str, folder: Path) -> tuple[str, ...]:
    """Load an ensemble as it is, to see its configuration; its steps' names, each once."""
    client = stage.client
    client.load(name)
    config = client.config(name)
    spec = model_spec(config, "1")
    stage.ensemble = config
    stage.data = request_data(spec, repository=folder, shapes={}, batch_size=2 if spec.max_batch_size else 1)
    client.unload(name, with_steps=True)
    (folder / _ENSEMBLE / "1").mkdir(parents=True)
    return tuple(dict.fromkeys(step for step, _ in way_of(config)))


def _ask_steps(stage: JointStage, members: tuple[str, ...]) -> None:
    """Give each step the requests that it gets in the ensemble: all tensors between the steps are asked for once.

    Made-up tensors would do for most models, but not for one that decodes pictures or looks tokens up.
    """
    assert stage.ensemble is not None and stage.data is not None
    client, config = stage.client, stage.ensemble
    batching = int(config.get("max_batch_size", 0)) > 0
    outputs: dict[str, Any] = {}
    for name in members:
        client.load(name)
    steps = config["ensemble_scheduling"]["step"]
    for step in steps:
        made = {entry["name"]: entry for entry in _served(stage.stages[step["model_name"]])["output"]}
        for own, tensor in step["output_map"].items():
            outputs[tensor] = {**made[own], "name": tensor}
    client.load(_ENSEMBLE, _over(config, {name: name for name in members}) | {"output": list(outputs.values())})
    try:
        rows = []
        for request in stage.data.requests:
            tensors = _batched(request, batching=batching)
            rows.append(tensors | dict(client.infer(_ENSEMBLE, tensors)))
    finally:
        if client.is_live():
            client.unload(_ENSEMBLE, with_steps=True)
    for step in steps:
        member = stage.stages[step["model_name"]]
        spec = model_spec(_served(member), "1")
        asked = []
        for row in rows:
            request = {own: row[tensor] for own, tensor in step["input_map"].items()}
            bare = batching and spec.max_batch_size > 0
            asked.append({own: np.asarray(array)[0] if bare else array for own, array in request.items()})
        alike = [each for each in asked if _shapes(each) == _shapes(asked[0])]
        for variant in member.data:
            source = f"what reaches it in {config['name']}"
            member.data[variant] = replace(member.data[variant], requests=tuple(alike), source=source, expected=())


def _shapes(request: Request) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in request.items()}


def find_ensemble(repository: Path, model: str) -> bool:
    """True where a model is an ensemble, by its configuration's text."""
    try:
        text = (repository / model / "config.pbtxt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        return False
    lines = (line.partition("#")[0] for line in text.splitlines())
    return any("ensemble_scheduling" in line for line in lines)


def _served(stage: Stage) -> dict[str, Any]:
    """The configuration of what is served now: the first that was read."""
    return next(iter(stage.configs.values()))
