"""The verdicts held against a real server: it loads every ensemble of the table, or refuses it, as the rule says."""

from dataclasses import replace

import pytest
from google.protobuf import text_format

from builder.ensemble.adapters import config_tree
from builder.ensemble.checks import check
from builder.ensemble.rules import AT_REQUEST, RULES
from builder.triton_fields import message_of
from serving.client import Client
from serving.server import Server
from tests.builder.ensemble.broken import BROKEN, GOOD

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.xdist_group("ensemble_on_server")]
SEVERITY = {rule.id: rule.severity for rule in RULES}
CODE = "class TritonPythonModel:\n    def execute(self, requests):\n        return [None for _ in requests]\n"
# Two ensembles that need each other cannot stand alone; the model of one is not known to begin with.
ROWS = [row for row in BROKEN if not (row[0] == "ensemble-recursion" and "deep" in row[1])]
GRAPHS = [row[2] for row in ROWS] + [good for good in GOOD if all(s.model and s.model.inputs for s in good.steps)]
NAMES = [f"{k}-{row[0]}" for k, row in enumerate(ROWS)] + [f"good-{k}" for k in range(len(GRAPHS) - len(ROWS))]


def tensors(ports, batches):
    return [
        {
            "name": port.name,
            "data_type": port.dtype.config,
            "dims": [dim.size or -1 for dim in port.dims[1 if batches else 0 :]],
        }
        | ({"optional": True} if port.optional else {})
        for port in ports
    ]


def model_tree(model):
    tree = {
        "backend": "python",
        "max_batch_size": model.max_batch_size,
        "input": tensors(model.inputs, model.batches),
        "output": tensors(model.outputs, model.batches),
        "model_transaction_policy": {"decoupled": model.decoupled},
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
    if model.served:
        tree["version_policy"] = {"specific": {"versions": list(model.served)}}
    return tree


@pytest.fixture(scope="module")
def verdicts(triton_runtime, tmp_path_factory):
    """Ensemble: ``(ready, reason)``; models that are equal but for their names are one model."""
    repository = tmp_path_factory.mktemp("ensembles")
    known = {}

    def write(folder, tree, versions, code):
        for version in versions:
            (folder / str(version)).mkdir(parents=True, exist_ok=True)
            if code:
                (folder / str(version) / "model.py").write_text(code)
        (folder / "config.pbtxt").write_text(text_format.MessageToString(message_of(tree)))

    for number, graph in enumerate(GRAPHS):
        steps = []
        for step in graph.steps:
            name = f"e{number}" if step.model_name == graph.name else step.model_name
            if step.model is not None:
                like = replace(step.model, name="", format="", versions=None)
                if like not in known:
                    known[like] = f"m{len(known)}"
                    write(repository / known[like], model_tree(like), like.served or [1], CODE)
                name = known[like]
            steps.append(replace(step, model_name=name))
        write(repository / f"e{number}", config_tree(replace(graph, name=f"e{number}", steps=tuple(steps))), [1], "")
    server = Server(repository, runtime=triton_runtime, exit_on_error=False, startup_timeout_s=240)
    with server, Client(server.http_url) as client:
        index = client.index()
    states = {entry["name"]: (entry.get("state") == "READY", entry.get("reason", "")) for entry in index}
    assert all(states[name][0] for name in known.values()), states
    return [states[f"e{number}"] for number in range(len(GRAPHS))]


@pytest.mark.parametrize("number", range(len(GRAPHS)), ids=NAMES)
def test_the_server_refuses_what_is_called_an_error_at_load(verdicts, number):
    ready, reason = verdicts[number]
    errors = {rule.id for rule, _ in check(GRAPHS[number]) if rule.severity == "error"}
    assert ready == (not errors - AT_REQUEST), reason or errors
