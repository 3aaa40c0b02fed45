"""How to build: what ``build-repo`` takes as options, for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builder.incremental.cache import DEFAULT_LIMIT_BYTES


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        jobs: how many models at once; None for as many as processors and memory allow.
        force: run every stage, whatever is in the cache.
        cache_size_bytes: how large the cache may become.
        wait: wait for another build of the same repository; otherwise say who it is and stop.
        sign_key: a private key to sign every version with.
        activate: let a new version be served; False leaves the one that is.
        search_minutes: how long a search for a recipe may take, for each variant.
        allow_accuracy_drop: publish variants that lose more accuracy than the spec allows; their manifests say so.
        recipes_dir: write the recipe of each variant there.
    """

    jobs: int | None = None
    force: bool = False
    cache_size_bytes: int = DEFAULT_LIMIT_BYTES
    wait: bool = True
    sign_key: Path | None = None
    activate: bool = True
    search_minutes: float = 10.0
    allow_accuracy_drop: bool = False
    recipes_dir: Path | None = None
