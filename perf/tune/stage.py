"""One server for a whole search: configurations are loaded side by side, each as a model of its own, without a restart.

The server gets an empty repository of its own. A configuration becomes a folder there whose version is a link to the
real one, and is loaded with its configuration overridden: what is measured is the published artifact, and nothing in
the published repository is touched, whoever serves it at the same time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perf.inputs import ModelSpec, RequestData, model_spec, request_data
from perf.target import Subject, Target, how_it_ended
from perf.tune.curve import Curve, measure_curve
from perf.tune.errors import TuneUsageError
from perf.tune.space import Settings, config_with, settings_of
from perf.tune.variants import Variant
from serving import Client, Server, find_runtime
from serving.errors import Problem, ServerUnavailableError, TritonRepoError
from serving.progress import SILENT, Reporter

LOADED_AT_ONCE = 6
"""Configurations that are kept loaded; the one that was not used for the longest time goes first."""

_LOAD_TIMEOUT_S = 300.0


@dataclass
class Stage:
    """A server, and the configurations that are loaded on it.

    Attributes:
        target: the server, as the harness measures it.
        repository: the server's own.
        variants: by name.
        configs: of each variant as it is published, by name, as the server completes it.
        data: requests without the batch dimension, of one shape where the model batches.
        prefix: of the names that configurations are loaded under; several stages may share a server.
    """

    target: Target
    repository: Path
    variants: dict[str, Variant]
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, RequestData] = field(default_factory=dict)
    prefix: str = "tune-repo"
    _names: dict[Settings, str] = field(default_factory=dict)
    _loaded: list[Settings] = field(default_factory=list)
    _count: int = 0

    @property
    def client(self) -> Client:
        """For control."""
        return self.target.client

    def subject(self, settings: Settings) -> Subject:
        """A configuration, loaded and warm.

        Raises:
            ModelLoadError: the server refuses it.
            ServerUnavailableError: the server is gone.
        """
        name = self._names.get(settings)
        if name is None:
            name = self._names[settings] = self._place(settings.variant)
        if settings not in self._loaded:
            while len(self._loaded) >= LOADED_AT_ONCE:
                self.client.unload(self._names[self._loaded.pop(0)])
            self.client.load(name, self.config(settings, name))
            spec = self._spec(name, settings.variant)
            self._warm(spec, settings)
        else:
            self._loaded.remove(settings)
        self._loaded.append(settings)
        return Subject(name, self._spec(name, settings.variant), self.data[settings.variant])

    def config(self, settings: Settings, name: str) -> dict[str, Any]:
        """What a configuration is loaded with."""
        return config_with(self.configs[settings.variant], settings, name)

    def curve(self, variant: str, threads: int | None, instances: int, largest: int, seconds: float) -> Curve:
        """Measure the times of a variant's executions; see :func:`perf.tune.curve.measure_curve`."""
        plain = settings_of(self.configs[variant], variant)
        batching = plain.max_batch_size > 0
        settings = Settings(variant, instances, threads, largest if batching else 0, dynamic=False)
        name = self._place(variant)
        self.client.load(name, config_with(self.configs[variant], settings, name, batcher=False))
        try:
            spec = self._spec(name, variant)
            requests = self.data[variant].requests
            return measure_curve(
                self.client, spec, requests, variant=variant, threads=threads, instances=instances, seconds=seconds
            )
        finally:
            if self.client.is_live():
                self.client.unload(name)

    def read(self, variant: Variant) -> None:
        """Load a variant as it is published, to see its configuration and find requests for it."""
        self.client.load(variant.model)
        config = self.client.config(variant.model)
        served = max(
            (int(number) for number in self.client.metadata(variant.model)["versions"]), default=variant.version
        )
        self.variants[variant.name] = replace(variant, version=served)  # after a rollback not the newest
        spec = model_spec(config, str(served))
        if problem := _untunable(spec, config):
            raise TuneUsageError([problem])
        self.configs[variant.name] = config
        self.data[variant.name] = request_data(
            spec, repository=self.repository, shapes={}, batch_size=2 if spec.max_batch_size else 1
        )
        self.client.unload(variant.model)

    def _place(self, variant: str) -> str:
        """A new folder of the server's repository with this variant's version; its name."""
        found = self.variants[variant]
        self._count += 1
        name = f"{self.prefix}-{self._count:03d}"
        folder = self.repository / name
        folder.mkdir()
        for entry in found.folder.iterdir():  # the version, and what it needs beside it: samples for warmup, states
            if entry.name == str(found.version) or not (entry.name.isdigit() or entry.name == "config.pbtxt"):
                (folder / entry.name).symlink_to(entry.absolute(), target_is_directory=entry.is_dir())
        return name

    def _spec(self, name: str, variant: str) -> ModelSpec:
        return model_spec(self.client.config(name), str(self.variants[variant].version))

    def _warm(self, spec: ModelSpec, settings: Settings) -> None:
        """A few requests for each instance: the first ones are slow."""
        for request in self.data[settings.variant].requests[:2]:
            tensors = {name: array[None] if spec.max_batch_size else array for name, array in request.items()}
            for _ in range(2 * settings.instances):
                self.client.infer(spec.name, tensors)


def _untunable(spec: ModelSpec, config: Mapping[str, Any]) -> Problem | None:
    """Why a model of this kind is not tuned; None where it is."""
    if spec.steps:
        fix = f"tune its steps: {', '.join(spec.steps)}"
        return Problem("an ensemble is not tuned as one", spec.name, "a model that is executed itself", fix=fix)
    kind = "decoupled" if spec.decoupled else "stateful (sequence batching)" if config.get("sequence_batching") else ""
    if not kind:
        return None
    expected = "one answer to each request, requests that do not depend on each other"
    return Problem(f"{kind} models are not tuned", spec.name, expected, fix="compare settings with bench-repo")


@contextmanager
def own_server(
    repository: Path, extra_args: Sequence[str] = (), *, reporter: Reporter = SILENT
) -> Iterator[tuple[Target, Path]]:
    """A server with an empty repository of its own, in which the models of another one are linked; with that folder.

    Nothing is loaded yet. Both are gone when the block ends.

    Raises:
        ServerStartError, RuntimeUnavailableError: no server could be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-repo-"))
    try:
        runtime = find_runtime(reporter=reporter)
        server = Server(
            folder,
            runtime=runtime,
            model_control_mode="explicit",
            exit_on_error=False,
            exit_timeout_s=2,
            extra_args=list(extra_args),
            reporter=reporter,
        )
        with server, Client(f"http://{server.http_url}", timeout_s=_LOAD_TIMEOUT_S) as client:
            facts = {"kind": runtime.kind, "url": server.http_url, "runtime": runtime.describe()}
            for path in repository.iterdir():  # only what is asked for is loaded
                if path.is_dir() and not path.name.startswith("."):
                    (folder / path.name).symlink_to(path.absolute(), target_is_directory=True)
            yield Target(client, server.http_url, facts, ended=lambda: how_it_ended(server)), folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_variants(stage: Stage, *, reporter: Reporter = SILENT) -> None:
    """See every variant of a stage; one that does not load is left out, unless it is the one that is served now.

    Raises:
        ModelLoadError: the model does not load as it is.
        TuneUsageError: it is of a kind that is not tuned.
    """
    for number, variant in enumerate(list(stage.variants.values())):
        try:
            stage.read(variant)
        except ServerUnavailableError:
            raise
        except TritonRepoError as error:
            if number == 0:
                raise
            reporter.warn(f"{variant.model} is left out: {error.what}" + (f": {error.got}" if error.got else ""))


@contextmanager
def open_stage(variants: Sequence[Variant], *, reporter: Reporter = SILENT) -> Iterator[Stage]:
    """Start a server for these variants, the one that is served now first; it is gone when the block ends.

    Raises:
        ServerStartError, RuntimeUnavailableError, ModelLoadError, TuneUsageError: see the two above.
    """
    with own_server(variants[0].folder.parent, reporter=reporter) as (target, folder):
        stage = Stage(target, folder, {each.name: each for each in variants})
        read_variants(stage, reporter=reporter)
        yield stage
