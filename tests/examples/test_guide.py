"""docs/guides/your-first-model.md shows what is in examples/digits, and says what build-repo says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "your-first-model.md"


def _quoted() -> list[tuple[str, list[str]]]:
    blocks = re.findall(r"```(?:python|yaml)\n# (examples/\S+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return [(path, [line for line in body.splitlines() if line.strip()]) for path, body in blocks]


def test_guide_quotes_all_files_of_the_example() -> None:
    assert {path for path, _ in _quoted()} == {
        f"examples/digits/{name}" for name in ("model.py", "data.py", "models.yaml", "client.py")
    }


@pytest.mark.parametrize(("path", "lines"), _quoted(), ids=lambda value: value if isinstance(value, str) else "")
def test_quoted_lines_are_in_the_file_in_this_order(path: str, lines: list[str]) -> None:
    rest = iter((ROOT / path).read_text(encoding="utf-8").splitlines())
    missing = [line for line in lines if line not in rest]  # `in` on an iterator goes on from the last hit
    assert not missing


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", GUIDE.read_text(encoding="utf-8"))
    assert targets
    assert not [target for target in targets if not (GUIDE.parent / target).exists()]


@pytest.mark.slow
def test_error_shown_is_the_error_given(tmp_path: Path) -> None:
    import shutil

    from builder import build, load_spec

    folder = tmp_path / "digits"
    shutil.copytree(ROOT / "examples" / "digits", folder)
    text = (folder / "models.yaml").read_text(encoding="utf-8")
    (folder / "models.yaml").write_text(text.replace("float32[batch, 10]", "float32[batch, 12]"), encoding="utf-8")
    spec = load_spec(folder / "models.yaml").model_copy(update={"repository": tmp_path / "model_repository"})
    (result,) = build(spec).models
    assert f"{result.model} failed at {result.stage}: {result.error}" in GUIDE.read_text(encoding="utf-8")
