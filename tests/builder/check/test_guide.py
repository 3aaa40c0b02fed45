"""The commands of the guide, run, give what the guide shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tritonclient", reason="tritonclient carries the ModelConfig message")

from builder.cli_check import app
from serving.terminal import run

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "checking.md"
SHOWN = re.findall(r"```bash\n(.*?)```\n\n```text\n(.*?)```\n", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize(("commands", "shown"), SHOWN, ids=[shown.split()[0] for _, shown in SHOWN])
def test_what_the_guide_shows_is_what_comes_out(tmp_path, monkeypatch, capsys, commands, shown):
    *made, asked = commands.strip().splitlines()
    subprocess.run(["bash", "-e"], input="\n".join(made) + "\n", text=True, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    run(app, asked.split()[1:])
    assert capsys.readouterr().out.rstrip() == shown.rstrip()


def test_every_command_of_the_guide_is_run():
    assert len(SHOWN) == GUIDE.read_text().count("```bash\n")


if __name__ == "__main__":  # rewrites what the guide shows: python tests/builder/check/test_guide.py
    import tempfile

    text = GUIDE.read_text()
    for commands, shown in SHOWN:
        *made, asked = commands.strip().splitlines()
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["bash", "-e"], input="\n".join(made) + "\n", text=True, cwd=folder, check=True)
            done = subprocess.run(
                [sys.executable, "-m", "builder.cli_check", *asked.split()[1:]],
                capture_output=True, text=True, cwd=folder, check=False,
            )  # fmt: skip
        text = text.replace(
            f"{commands}```\n\n```text\n{shown}```", f"{commands}```\n\n```text\n{done.stdout.rstrip()}\n```"
        )
    GUIDE.write_text(text)
