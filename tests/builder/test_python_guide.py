"""The guide to python models holds: its class is built by its own spec, and answers in a real server."""

import re
from pathlib import Path

import numpy as np
import pytest

from builder import build, load_spec
from serving import Client, Server

GUIDE = Path(__file__).parents[2] / "docs/guides/python-models.md"


def test_the_class_that_asks_other_models_does_as_the_guide_says():
    (code,) = [block for block in _blocks("python") if block.startswith("# route.py")]
    values = {}
    exec(code, values)

    asked = []

    class Call:
        def __call__(self, model, inputs):
            asked.append(model)
            return {"y": inputs["x"] * (3 if model == "large" else 1)}

        def together(self, requests):
            return [self(*request) for request in requests]

    route = values["Route"](Call())
    assert route.execute(np.array([[0.9]]))["y"].tolist() == [[0.9]]
    assert route.execute(np.array([[0.25]]))["y"].tolist() == [[0.5]]
    assert asked == ["small", "small", "large", "larger"]


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.xdist_group("python_model")
def test_what_the_guide_shows_is_built_and_served(tmp_path, triton_runtime):
    for block in (*_blocks("python"), *_blocks("yaml")):
        if name := re.match(r"# (\S+\.(py|yaml))\n", block):
            (tmp_path / name[1]).write_text(block)
    (result,) = build(load_spec(tmp_path / "models.yaml")).models
    assert result.error is None, result.error
    repository = tmp_path / "model_repository"
    version = repository / "count/1"
    assert sorted(path.name for path in (version / "code").glob("*.py")) == ["count.py", "words.py"]
    assert {"model.py", "triton_repo_step.py"} <= {path.name for path in version.iterdir()}
    with Server(repository, runtime=triton_runtime) as server, Client(f"http://{server.http_url}") as client:
        answer = client.infer("count", {"text": np.array([["a kitten dozes"]], dtype=object)})
    assert (answer["count"].tolist(), answer["longest"].tolist()) == ([[2]], [[b"kitten"]])


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
