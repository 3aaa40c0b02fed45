"""A result as one HTML page that needs nothing else: no network, no files beside it, no scripts by others."""

from __future__ import annotations

from typing import Any

__all__ = ["to_html"]


def __getattr__(name: str) -> Any:
    """Import on first use: jinja2 is needed for the page alone."""
    if name == "to_html":
        from perf.html.page import to_html

        return to_html
    raise AttributeError(f"module 'perf.html' has no attribute {name!r}")
