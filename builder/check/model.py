"""One model of a repository as it lies on disk: what every rule about files is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.releases import Release


@dataclass(frozen=True)
class ModelOnDisk:
    """A folder of a repository, read once.

    Attributes:
        repository: the folder that was named to the command.
        folder: of the model, ``repository / name``.
        name: the folder's name, which is the model's name for Triton.
        config: the ``ModelConfig`` message of ``config.pbtxt`` as it is written there; an empty one where there is
            no such file; None where there is one that cannot be read or parsed.
        has_config: True where there is a ``config.pbtxt``.
        text: of ``config.pbtxt``, empty where there is none.
        versions: folders that Triton takes for versions, by number, rising.
        served: those of them that the version policy serves, rising.
        backend: what serves it, found as the server finds it: said by ``backend`` or ``platform``, by the file's
            name, or by what lies in the first version; ``""`` where none of that says it.
        filename: the file or folder of a version that the backend loads: ``default_model_filename``, or the backend's
            default; ``""`` for backends that are not known here.
        release: of Triton that is to serve it, as named by ``--server``; None where none was named.
    """

    repository: Path
    folder: Path
    name: str
    config: Any
    has_config: bool
    text: str = ""
    versions: Mapping[int, Path] = field(default_factory=dict)
    served: tuple[int, ...] = ()
    backend: str = ""
    filename: str = ""
    release: Release | None = None

    def artifact(self, version: int) -> Path:
        """Where the backend looks for the model's file in a version; ``cc_model_filenames`` left aside."""
        return self.versions[version] / self.filename

    def relative(self, path: Path) -> str:
        """A path as :attr:`builder.rules.rule.Hit.file` wants it: relative to the model's folder."""
        return path.relative_to(self.folder).as_posix()
