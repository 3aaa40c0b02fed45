"""Files around a model: the one that is loaded, engines, labels, samples, manifests; each rule fires and is mended."""

import dataclasses
import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from builder.check.artifacts import ARTIFACT_RULES
from builder.releases import RELEASES
from tests.builder.check.artifact_models import CONFIG, UNBATCHED, found, graph, on_disk, value


def hits_of(tmp_path, config, files, **more):
    return found(on_disk(tmp_path / "m", config, files, **more))


def only(hits, rule):
    assert list(hits) == [rule], hits
    return hits[rule][0]


# --- the file that is loaded ---


@pytest.mark.parametrize(
    "backend, there, missing",
    [
        ("onnxruntime", "1/net.onnx", "1/model.onnx"),
        ("pytorch", "1/net.pt", "1/model.pt"),
        ("tensorrt", "1/net.plan", "1/model.plan"),
        ("python", "1/net.py", "1/model.py"),
        ("openvino", "1/net.xml", "1/model.xml"),
        ("tensorflow", "1/net.pb", "1/model.savedmodel"),
        ("dali", "1/x", "1/model.dali"),
        ("vllm", "1/x", "1/model.json"),
        ("fil", "1/x", "1/xgboost.model"),
    ],
)
def test_a_version_without_its_file(backend, there, missing, tmp_path):
    hit = only(hits_of(tmp_path, "", {there: b"x"}, backend=backend), "artifact-missing")
    assert hit.message == f"{missing} is missing: no such file" and hit.file == missing
    assert "default_model_filename" in hit.fix and there[2:] in hit.fix


def test_files_of_other_backends_are_found_under_their_names(tmp_path):
    forest = 'parameters { key: "model_type" value { string_value: "lightgbm" } }'
    for number, (backend, config, files) in enumerate([
        ("dali", "", {"1/model.dali": "x"}), ("dali", "", {"1/dali.py": "x"}), ("vllm", "", {"1/model.json": "{}"}),
        ("fil", forest, {"1/model.txt": "x"}), ("openvino", "", {"1/model.xml": "x", "1/model.bin": "x"}),
        ("tensorflow", "", {"1/model.savedmodel/saved_model.pb": "x"}), ("identity", "", {}),
        ("tensorflow", 'default_model_filename: "model.graphdef"', {"1/model.graphdef": "x"}),
    ]):  # fmt: skip
        assert hits_of(tmp_path / str(number), config, files, backend=backend) == {}


def test_parts_that_belong_to_the_file(tmp_path):
    hit = only(hits_of(tmp_path / "a", "", {"1/model.xml": "x"}, backend="openvino"), "artifact-part-missing")
    assert hit.message == "1/model.bin is missing: 1/model.xml needs it"
    files = {"1/model.savedmodel/x": ""}
    hit = only(hits_of(tmp_path / "b", "", files, backend="tensorflow"), "artifact-part-missing")
    assert hit.message == "1/model.savedmodel/saved_model.pb is missing: 1/model.savedmodel needs it"


def test_links_to_nothing_and_in_circles(tmp_path):
    model = on_disk(tmp_path / "m", CONFIG, {})
    path = tmp_path / "m/1/model.onnx"
    path.symlink_to("gone.onnx")
    assert only(found(model), "artifact-missing").message == (
        "1/model.onnx is missing: a link to 'gone.onnx', which is not there"
    )
    path.unlink()
    path.symlink_to("model.onnx")
    assert only(found(model), "artifact-missing").message == "1/model.onnx is missing: a link that leads to itself"
    path.unlink()
    (tmp_path / "real.onnx").write_bytes(graph().SerializeToString())
    path.symlink_to(tmp_path / "real.onnx")
    assert found(model) == {}


def test_folders_pipes_and_sockets_in_place_of_a_file(tmp_path, monkeypatch):
    hit = only(hits_of(tmp_path / "a", "", {"1/model.pt/x": ""}, backend="pytorch"), "artifact-kind")
    assert hit.message == "1/model.pt is a folder, and the pytorch backend opens a file"
    model = on_disk(tmp_path / "b/m", CONFIG, {})
    os.mkfifo(tmp_path / "b/m/1/model.onnx")
    assert "neither a file nor a folder" in only(found(model), "artifact-kind").message
    (tmp_path / "b/m/1/model.onnx").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path / "b/m/1")  # the path of a socket is short
        server.bind("model.onnx")
        assert "neither a file nor a folder" in only(found(model), "artifact-kind").message


def test_empty_files(tmp_path):
    hits = hits_of(tmp_path, CONFIG, {"1/model.onnx": b""})
    assert only(hits, "artifact-empty").message == "1/model.onnx is empty"


def test_files_that_others_may_not_read(tmp_path):
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": graph()})
    (tmp_path / "m/1/model.onnx").chmod(0o600)
    hit = only(found(model), "file-unreadable")
    assert (
        hit.message == "the file 1/model.onnx is -rw-------: only some users may read it" and hit.fix == "chmod a+r it"
    )
    (tmp_path / "m/1/model.onnx").chmod(0o644)
    (tmp_path / "m/1").chmod(0o744)
    assert only(found(model), "file-unreadable").message == "the folder 1 is drwxr--r--: only some users may read it"
    (tmp_path / "m/1").chmod(0o755)
    assert found(model) == {}


def test_a_configuration_that_does_not_parse_has_no_findings_of_files(tmp_path):
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": b"x"})
    object.__setattr__(model, "config", None)
    assert found(model) == {}


# --- engines ---


def engine(version=(10, 3, 0, 26), magic=b"ftrt"):
    return magic + bytes(20) + bytes(version) + bytes(100)


def manifest(files=None, **engine_part):
    return json.dumps({"schema_version": 2, "files": files or {}, "engine": engine_part or None})


def test_engines_are_told_by_their_first_bytes(tmp_path):
    hit = only(hits_of(tmp_path / "a", "", {"1/model.plan": graph()}, backend="tensorrt"), "plan-unreadable")
    assert hit.message.startswith("1/model.plan is an ONNX file: it begins with ")
    hit = only(hits_of(tmp_path / "b", "", {"1/model.plan": b"nothing"}, backend="tensorrt"), "plan-unreadable")
    assert "no engine of TensorRT" in hit.message
    hit = only(hits_of(tmp_path / "c", "", {"1/model.plan": b"ftrt\0\0"}, backend="tensorrt"), "plan-unreadable")
    assert hit.message == "1/model.plan was cut short: 6 bytes"
    files = {"1/model.plan": engine((1, 7, 1, 116), b"vtrt")}
    hit = only(hits_of(tmp_path / "d", "", files, backend="tensorrt"), "plan-of-rtx")
    assert hit.message == "1/model.plan is an engine of TensorRT-RTX 1.7.1.116, which Triton has no backend for"
    assert hits_of(tmp_path / "e", "", {"1/model.plan": engine(magic=b"ptrt")}, backend="tensorrt") == {}


def test_an_engine_and_its_server(tmp_path, monkeypatch):
    hits = hits_of(tmp_path / "a", "", {"1/model.plan": engine()}, backend="tensorrt")
    hit = only(hits, "plan-other-server")
    assert hit.message == "1/model.plan was built by TensorRT 10.3.0.26: the server has to have exactly this one"
    assert "dpkg-query" in hit.fix
    monkeypatch.setitem(RELEASES, "25.09", dataclasses.replace(RELEASES["25.09"], tensorrt="10.13.3.9"))
    hits = hits_of(tmp_path / "b", "", {"1/model.plan": engine()}, backend="tensorrt", release="25.09")
    assert "the server of release 25.09 cannot load an engine of TensorRT 10.3.0.26" in (
        only(hits, "plan-other-server").message
    )
    files = {"1/model.plan": engine((10, 13, 3, 9))}
    assert hits_of(tmp_path / "c", "", files, backend="tensorrt", release="25.09") == {}


def test_batches_beyond_the_engine(tmp_path):
    profiles = [{"x": {"min": [1, 4], "opt": [8, 4], "max": [32, 4]}}, {"x": {"min": [1, 4], "max": [16, 4]}}]
    files = {"1/model.plan": engine(magic=b"ptrt"), "1/manifest.json": manifest(version="10.3.0", profiles=profiles)}
    hit = only(hits_of(tmp_path / "a", "max_batch_size: 64", files, backend="tensorrt"), "batch-beyond-engine")
    assert hit.message == "max_batch_size is 64, and the engine of version 1 takes 32 at most"
    assert hits_of(tmp_path / "b", "max_batch_size: 32", files, backend="tensorrt") == {}
    for odd in (
        "[]",
        "{}",
        '{"schema_version": 2, "engine": {"profiles": [[], {"x": 3}, {"x": {"max": []}}]}}',
        "\xff",
    ):
        assert hits_of(tmp_path / f"o{len(odd)}", "max_batch_size: 64", {**files, "1/manifest.json": odd},
                       backend="tensorrt") == {}  # fmt: skip


def test_engines_by_compute_capability(tmp_path):
    config = 'cc_model_filenames { key: "8.6" value: "model_sm86.plan" }'
    files = {"1/model_sm89.plan": engine(magic=b"ptrt")}
    hit = only(hits_of(tmp_path / "a", config, files, backend="tensorrt"), "cc-file-missing")
    assert hit.message == "1/model_sm86.plan is missing (no such file): the file for GPUs of 8.6"
    files = {"1/model_sm86.plan": engine(magic=b"ptrt")}
    assert hits_of(tmp_path / "b", config, files, backend="tensorrt") == {}
    rtx = {"1/model_sm86.plan": engine(magic=b"vtrt")}
    assert only(hits_of(tmp_path / "c", config, rtx, backend="tensorrt"), "plan-of-rtx").file == "1/model_sm86.plan"


# --- labels, samples, states ---


def labelled(name):
    return CONFIG[: CONFIG.rindex("}")] + f'label_filename: "{name}" }} ]'


def test_labels(tmp_path):
    model = {"1/model.onnx": graph()}
    hit = only(hits_of(tmp_path / "a", labelled("labels.txt"), {**model, "1/labels.txt": "a"}), "labels-missing")
    assert hit.message == "label_filename 'labels.txt': no such file" and hit.path == ("output", 0, "label_filename")
    (tmp_path / "labels.txt").write_text("x")
    hits = hits_of(tmp_path, labelled("../labels.txt"), model)
    assert only(hits, "labels-outside").message == "label_filename '../labels.txt' leads out of the model's folder"
    on_disk(tmp_path / "l/m", labelled("labels.txt"), model)
    (tmp_path / "l/m/labels.txt").symlink_to(tmp_path / "labels.txt")
    assert "labels-outside" in hits_of(tmp_path / "l", labelled("labels.txt"), model)
    hits = hits_of(tmp_path / "c", labelled("labels.txt"), {**model, "labels.txt": "a\nb\nc\n"})
    assert only(hits, "labels-count").message == "labels.txt has 3 lines, and the output 4 classes"
    for number, text in enumerate(("a\nb\nc\nd\n", "a\nb\nc\nd")):
        assert hits_of(tmp_path / f"d{number}", labelled("sub/l.txt"), {**model, "sub/l.txt": text}) == {}


WARMUP = CONFIG + (
    'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] '
    'input_data_file: "sample" } } }'
)


def test_samples_for_warming_up(tmp_path):
    model = {"1/model.onnx": graph()}
    hit = only(hits_of(tmp_path / "a", WARMUP, {**model, "1/warmup/sample": bytes(16)}), "warmup-file")
    assert hit.message == "warmup/sample, the sample for 'x': no such file"
    hit = only(hits_of(tmp_path / "b", WARMUP, {**model, "warmup/sample": bytes(15)}), "warmup-file")
    assert hit.message == "warmup/sample, the sample for 'x': 15 bytes, and TYPE_FP32 of [4] needs 16"
    assert hits_of(tmp_path / "c", WARMUP, {**model, "warmup/sample": bytes(17)}) == {}
    text = WARMUP.replace(
        "data_type: TYPE_FP32 dims: [ 4 ] input_data", "data_type: TYPE_STRING dims: [ 4 ] input_data"
    )
    assert hits_of(tmp_path / "d", text, {**model, "warmup/sample": b"1"}) == {}
    skipped = WARMUP.replace("batch_size: 1", "batch_size: 0")
    assert hits_of(tmp_path / "e", skipped, model) == {}


def test_data_of_initial_states(tmp_path):
    config = """sequence_batching { state [ { input_name: "i" output_name: "o" data_type: TYPE_INT64 dims: [ 2 ]
    initial_state { data_type: TYPE_INT64 dims: [ 2 ] data_file: "zeros" name: "z" } } ] }"""
    hit = only(hits_of(tmp_path / "a", config, {}, backend="identity"), "initial-state-file")
    assert hit.message == "initial_state/zeros, the data of state 'i': no such file"
    hits = hits_of(tmp_path / "b", config, {"initial_state/zeros": bytes(8)}, backend="identity")
    assert "8 bytes, and TYPE_INT64 of [2] needs 16" in only(hits, "initial-state-file").message
    assert hits_of(tmp_path / "c", config, {"initial_state/zeros": bytes(16)}, backend="identity") == {}


# --- what we published ---


def test_files_that_are_not_what_was_published(tmp_path):
    content = graph().SerializeToString()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    files = {"1/model.onnx": content, "1/manifest.json": manifest({"model.onnx": entry})}
    model = on_disk(tmp_path / "m", CONFIG, files)
    assert found(model) == {}
    (tmp_path / "m/1/model.onnx").write_bytes(graph(opset=18).SerializeToString())
    assert only(found(model), "manifest-mismatch").message == (
        "1/model.onnx is not what was published: its content differs"
    )
    (tmp_path / "m/1/model.onnx").write_bytes(graph(opset=180).SerializeToString())
    (tmp_path / "m/1/manifest.json").write_text(manifest({"golden.npz": entry, "../../x": entry}))
    message = found(model)["manifest-mismatch"][0].message
    assert message == "1/golden.npz is not what was published: no such file"


# --- gains ---


def test_a_graph_that_could_batch(tmp_path):
    hit = only(hits_of(tmp_path / "a", UNBATCHED, {"1/model.onnx": graph()}), "batchable-unbatched")
    assert hit.path == ("max_batch_size",) and "begins with an open dimension" in hit.message
    fixed = graph(inputs=[value("x", shape=[2, 4])], outputs=[value("y", shape=[2, 4])])
    assert hits_of(tmp_path / "b", UNBATCHED.replace("-1", "2"), {"1/model.onnx": fixed}) == {}
    assert hits_of(tmp_path / "c", CONFIG, {"1/model.onnx": graph()}) == {}
    assert hits_of(tmp_path / "d", "", {"1/model.onnx": graph()}) == {}  # completed: the server turns batching on


def test_a_batch_beyond_the_profile_of_an_accelerator(tmp_path):
    accelerated = CONFIG + (
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" parameters { key: '
        '"trt_profile_max_shapes" value: "x:SIZEx4,z:SIZEx2" } } } }'
    )
    hits = hits_of(tmp_path / "a", accelerated.replace("SIZE", "4"), {"1/model.onnx": graph()})
    assert only(hits, "batch-beyond-profile").message == "max_batch_size is 8, and trt_profile_max_shapes ends at 4"
    assert hits_of(tmp_path / "b", accelerated.replace("SIZE", "8"), {"1/model.onnx": graph()}) == {}


def test_a_library_of_operators_that_is_not_here(tmp_path):
    config = CONFIG + 'model_operations { op_library_filename: "/nowhere/libops.so" }'
    hits = hits_of(tmp_path, config, {"1/model.onnx": graph()})
    assert only(hits, "onnx-op-library").message == "/nowhere/libops.so is not here: no such file"
    library = tmp_path / "libops.so"
    library.write_text("")
    assert hits_of(tmp_path / "b", config.replace("/nowhere/libops.so", str(library)), {"1/model.onnx": graph()}) == {}


# --- the table ---


def test_every_rule_has_what_its_page_needs():
    ids = [rule.id for rule, _ in ARTIFACT_RULES]
    assert len(ids) == len(set(ids)) > 40
    for rule, _ in ARTIFACT_RULES:
        assert rule.title and rule.reason and rule.fix and rule.bad and rule.good, rule.id
        assert not rule.title.endswith("."), rule.id


def test_every_rule_is_fired_by_a_test():
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_artifact_*.py"))
    assert [rule.id for rule, _ in ARTIFACT_RULES if f'"{rule.id}"' not in texts] == []
