"""What a file of weights really is, by its first bytes: for the message when it is not what the spec says."""

from __future__ import annotations

import zipfile
from pathlib import Path

_LFS = b"version https://git-lfs"


def looks_like(path: Path) -> tuple[str, str]:
    """What a file looks like, and what to do about it; both in words.

    Returns:
        ``(what, fix)``; ``fix`` is empty where nothing better is known than to make the file again.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as exc:
        return str(exc), ""
    if not size:
        return "an empty file", ""
    if head.startswith(_LFS):
        return "a pointer of Git LFS, not the file itself", "git lfs pull"
    if head.startswith(b"PK"):
        return _archive(path, size)
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return f"a pickle of {size} bytes", ""
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return f"a .safetensors file of {size} bytes", ""
    if head.lstrip()[:1] in (b"<", b"{") or all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"a text file of {size} bytes: {head[:40].decode('latin-1').splitlines()[0]!r}", ""
    return f"{size} bytes of another kind, or cut short", ""


def _archive(path: Path, size: int) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return f"an archive that is cut short or damaged ({size} bytes)", "copy it again"
    tails = {name.partition("/")[2] for name in names}
    if any(tail.startswith("code/") for tail in tails) and "constants.pkl" in tails:
        return "a TorchScript archive (torch.jit.save)", "save its state dict: torch.jit.load(path).state_dict()"
    if "archive_format" in tails or "serialized_exported_program.json" in names:
        return "a torch.export program", "name it as `exported`"
    if "data.pkl" in tails:
        return "what torch.save() wrote", ""
    return f"an archive of something else ({', '.join(names[:3])})", ""
