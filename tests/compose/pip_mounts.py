"""Hands this machine's pip settings to an image build: one pip.conf, and `-v` arguments for it and what it names.

pip_mounts.py FILE writes FILE and prints the arguments for `podman build`. Certificates and local indexes are mounted
for the build only, so that nothing of this machine stays in the image.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

CERTIFICATES = "/run/machine-certificates.crt"  # a place of its own: the image's packages may replace the usual one
OF_THIS_ENVIRONMENT = {"require-virtualenv", "target", "prefix", "user", "constraint", "cache-dir", "log"}


def settings() -> dict[str, str]:
    """``option: value`` of pip's files and PIP_* variables, a stronger source over a weaker one."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, str] = {}
    for strength in ("global.", "install.", "wheel.", ":env:."):
        for line in lines:
            key, _, value = line.partition("=")
            option = key.removeprefix(strength)
            if key.startswith(strength) and option not in OF_THIS_ENVIRONMENT:
                found[option] = str(ast.literal_eval(value))
    return found


def local_folders(value: str) -> list[str]:
    """What a setting names on this machine, plainly or as ``file://``; for an index the folder around it, as its links
    may lead to files beside it.
    """
    plain = [word for word in value.split() if word.startswith("/")]
    indexes = [str(Path(urlsplit(word).path).parent) for word in value.split() if word.startswith("file:///")]
    return [path for path in plain + indexes if Path(path).exists()]


def main(target: Path) -> None:
    """Write the file and print the arguments."""
    found = settings()
    certificates = found.pop("cert", None) or os.environ.get("SSL_CERT_FILE")
    mounts = {path: path for value in found.values() for path in local_folders(value)}
    if certificates:
        found["cert"] = CERTIFICATES
        mounts[str(Path(certificates).resolve())] = CERTIFICATES
    lines = (f"{option} = {' '.join(value.split())}\n" for option, value in found.items())
    target.write_text("[global]\n" + "".join(lines))
    mounts[str(target.absolute())] = "/etc/pip.conf"
    sys.stdout.write(" ".join(f"-v {source}:{inside}:ro" for source, inside in mounts.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
