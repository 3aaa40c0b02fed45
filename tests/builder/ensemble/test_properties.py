"""Random ensembles of small ONNX models: wired, written, read back, fused, run."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.ensemble.adapters import config_tree, graph_of_config, step_model_of_config, step_model_of_interface
from builder.ensemble.checks import check
from builder.ensemble.compose import EnsembleRunner
from builder.ensemble.equality import compare_fused
from builder.ensemble.fuse import fuse_onnx, parts_of
from builder.ensemble.groups import fused_graph, groups
from builder.ensemble.wiring import wire
from builder.ensemble.written import written_of
from builder.graphs.onnx_tensors import interface_of_onnx
from builder.reference import OnnxRunner
from builder.triton_fields import message_of
from tests.builder.ensemble.onnx_parts import branching, calling, dense, request

KINDS = ("dense", "two outputs", "branch", "function")


@st.composite
def dags(draw):
    """For each step its kind, its opset, where its inputs are from, and whether it may be fused."""
    steps, tensors = [], ["x"]
    for index in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(KINDS))
        many = draw(st.integers(1, min(3, len(tensors)))) if kind in ("dense", "two outputs") else 1
        sources = draw(st.lists(st.sampled_from(tensors), min_size=many, max_size=many, unique=True))
        steps.append((kind, draw(st.sampled_from((13, 17, 20))), sources, draw(st.booleans())))
        tensors += [f"s{index}.y", *([f"s{index}.z"] if kind == "two outputs" else [])]
    return steps


def files_of(steps, folder):
    files = {}
    for index, (kind, opset, sources, _) in enumerate(steps):
        name, more = f"s{index}", {"opset": opset}
        if kind == "branch":
            files[name] = branching(folder, name, seed=index, **more)
        elif kind == "function":
            files[name] = calling(folder, name, scale=1.0 + index, **more)
        else:
            outputs = ("y", "z") if kind == "two outputs" else ("y",)
            inputs = [f"i{k}" for k in range(len(sources))]
            files[name] = dense(folder, name, inputs=inputs, outputs=outputs, seed=index, **more)
    return files


def wired(steps, files):
    models = {
        name: step_model_of_interface(
            name, interface_of_onnx(path), max_batch_size=8, format="onnx" if steps[index][3] else "python"
        )
        for index, (name, path) in enumerate(files.items())
    }
    tree = {
        "steps": [
            {
                "model": name,
                "inputs": {port.name: source for port, source in zip(models[name].inputs, row[2], strict=True)},
            }
            for name, row in zip(models, steps, strict=True)
        ],
        "inputs": {"x": "float32[batch, 4]"},
    }
    every = {f"{name}.{port.name}" for name, one in models.items() for port in one.outputs}
    used = {source for row in steps for source in row[2]}
    tree["outputs"] = {f"out_{name.replace('.', '_')}": name for name in sorted(every - used)}
    return wire("whole", written_of(tree), models), models


# The first example imports onnx and starts ONNX Runtime: no deadline.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dags())
def test_random_ensembles_survive_everything(steps):
    with TemporaryDirectory() as folder:
        files = files_of(steps, Path(folder))
        whole, models = wired(steps, files)
        assert [hit for rule, hit in check(whole) if rule.severity == "error"] == []

        # What is written is read back.
        message = message_of(config_tree(whole))
        read = graph_of_config(message, models)
        assert replace(read, uses=whole.uses, models=whole.models) == whole
        assert step_model_of_config(message).steps == tuple(models)

        # The ensemble, fused, answers as the ensemble.
        runners = {name: OnnxRunner(path, threads=1) for name, path in files.items()}
        asked = request(("x",))
        expected = EnsembleRunner(whole, runners)(asked)
        assert set(expected) == {port.name for port in whole.outputs}
        fused = whole
        for number, group in enumerate(groups(whole)):
            to = Path(folder) / f"f{number}" / "model.onnx"
            parts = parts_of(whole, group, files)
            fuse_onnx(parts, group.inputs, group.outputs, to)
            given = {name: asked["x"] * (k + 1) for k, name in enumerate(group.inputs)}
            assert all(difference.ok for difference in compare_fused(parts, to, [given]))
            steps_now = {one.name: index for index, one in enumerate(fused.steps)}
            here = replace(group, steps=tuple(steps_now[whole.steps[index].name] for index in group.steps))
            fused = fused_graph(fused, here, f"fused{number}")
            runners[f"fused{number}"] = OnnxRunner(to, threads=1)
        assert [hit for rule, hit in check(fused) if rule.severity == "error"] == []
        got = EnsembleRunner(fused, runners)(asked)
        for name, answer in expected.items():
            np.testing.assert_allclose(got[name], answer, rtol=1e-4, atol=1e-5)
