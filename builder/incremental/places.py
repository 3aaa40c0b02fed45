"""Whose file is it: the user's, an installed package's, the system's, ours?"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_OUR_CODE = tuple(f"{_ROOT / name}/" for name in ("builder", "serving", "perf", "templates"))
_OF_A_PREFIX = ("bin", "sbin", "lib", "lib32", "lib64", "libexec", "include", "share", "etc")
_SYSTEM = (
    *("/proc/", "/sys/", "/dev/", "/run/", "/etc/"),
    *(f"/{name}/" for name in ("bin", "sbin", "lib", "lib32", "lib64")),
    *(f"{prefix}/{name}/" for prefix in ("/usr", "/usr/local") for name in _OF_A_PREFIX),
)
_NOT_THE_SYSTEMS = ("/dev/shm/", "/run/media/")
_PACKAGES = ("site-packages", "dist-packages")


class Places:
    """What is where on this machine, for one spec.

    Args:
        folder: the spec's folder, which is the user's whatever else lies in it.
        ours: folders that builds write: ``.build``, the repository.
    """

    def __init__(self, folder: Path, ours: Collection[Path]) -> None:
        self._folder = f"{folder}/"
        self._ours = (*(f"{path}/" for path in ours), *_OUR_CODE)
        paths = sysconfig.get_paths()
        places = {*site.getsitepackages(), site.getusersitepackages(), paths["purelib"], paths["platlib"]}
        places |= {entry for entry in sys.path if os.path.basename(entry) in _PACKAGES}  # noqa: PTH119
        self._site = tuple(f"{place}/" for place in places)
        prefixes = {sys.prefix, sys.base_prefix}
        below = {f"{prefix}/{name}/" for prefix in prefixes for name in (*_OF_A_PREFIX, "pyvenv.cfg")}
        self._python = (f"{paths['stdlib']}/", f"{paths['platstdlib']}/", *below)
        self._environment_inside = sys.prefix.startswith(self._folder)

    def package_of(self, path: str) -> str | None:
        """Top-level module of a file in an installed package, None elsewhere."""
        for place in self._site:
            if path.startswith(place):
                return path[len(place) :].split("/")[0].removesuffix(".py").split(".")[0]
        return None

    def is_the_users(self, path: str) -> bool:
        """True for what may change a result and is no installed package's, the system's, or ours."""
        if f"{path}/".startswith(self._ours) or "/__pycache__" in path or self.package_of(path) is not None:
            return False
        if f"{path}/".startswith(self._folder):
            return not (self._environment_inside and f"{path}/".startswith(self._python))
        if path.startswith(_NOT_THE_SYSTEMS):
            return True
        return not f"{path}/".startswith((*self._python, *_SYSTEM))

    def holds_the_spec(self, path: str) -> bool:
        """True for the folders that the spec's folder is in, and for itself."""
        return self._folder.startswith(f"{path.rstrip('/')}/")

    def is_below_the_spec(self, path: str) -> bool:
        """True for what is in the spec's folder."""
        return path.startswith(self._folder)
