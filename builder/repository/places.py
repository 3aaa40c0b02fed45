"""Folders of a model, outside its versions, that have to be there for Triton to find files in a version.

``<model>/warmup`` is where Triton looks for samples; ours are named from there, ``../3/warmup/FILE``, and lie in the
version folder. On the disk that way only leads through a folder that is there. It holds nothing of any version, is made
before the version that needs it arrives, and stays: a file in it keeps it where folders without files are lost (git,
object stores).
"""

from __future__ import annotations

from pathlib import Path

from builder.repository import durable

PLACES = ("warmup", "initial_state")
"""Names of such folders, in the model's folder and in that of a version."""
NOTE = "README"
_TEXT = b"Triton looks for files here; those of a version are in the folder of the same name in it. Keep this folder.\n"


def places_of(version_dir: Path) -> list[str]:
    """The folders that a version needs."""
    return [name for name in PLACES if (version_dir / name).is_dir()]


def make_places(model_dir: Path, version_dir: Path) -> None:
    """Make the folders that a version needs in its model's folder; what is there is left as it is."""
    for name in places_of(version_dir):
        note = model_dir / name / NOTE
        if not note.exists():
            durable.make_folder(note.parent)
            durable.write(note, _TEXT)
            mode = version_dir.stat().st_mode & 0o777  # whoever may read the version may read this
            note.chmod(mode & 0o666)
            note.parent.chmod(mode)
            durable.sync(note.parent)
