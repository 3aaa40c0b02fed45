"""Folders of a model, outside its versions, that have to be there for Triton to find files in a version.

``<model>/warmup`` is where Triton looks for samples; ours are named from there, ``../3/warmup/FILE``, and lie in the
version folder. On the disk that way only leads through a folder that is there. It holds nothing of any version, is made
before the version that needs it arrives, and stays: a file in it keeps it where folders without files are lost (git,
object stores).
"""

from __future__ import annotations

from pathlib import Path

PLACES = ("warmup", "initial_state")
"""Names of such folders, in the model's folder and in that of a version."""
NOTE = "README"
_TEXT = "Triton looks for files here; those of a version are in the folder of the same name in it. Keep this folder.\n"


def places_of(version_dir: Path) -> list[str]:
    """The folders that a version needs."""
    return [name for name in PLACES if (version_dir / name).is_dir()]


def make_places(model_dir: Path, version_dir: Path) -> list[Path]:
    """Make the folders that a version needs in its model's folder; what is there is left as it is.

    Returns:
        The files that were written, to be brought to the disk.
    """
    written = []
    for name in places_of(version_dir):
        note = model_dir / name / NOTE
        if not note.exists():
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(_TEXT, encoding="utf-8")
            written.append(note)
    return written
