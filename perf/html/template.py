"""The templates of the pages, rendered; nothing that they name may be missing."""

from __future__ import annotations

import importlib.resources
from typing import Any


def rendered(name: str, **values: Any) -> str:
    """A template of ``templates/`` with these values; whatever they hold is text, not markup."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda file: importlib.resources.files("templates").joinpath(file).read_text(encoding="utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
