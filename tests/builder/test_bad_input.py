"""What a bad spec gets: one clear message for each mistake, all of them at once, fast, and never a traceback.

Every row is a spec (the good one, changed in one place), what the message says, and where: line and key path.
"""

import importlib.util
import os
import resource
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from builder.errors import SpecError
from builder.spec import read_spec
from builder.spec.problems import MAX_PROBLEMS
from builder.spec.yaml_source import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from serving.errors import MissingDependencyError

GOOD = """\
repository: out
models:
  digits:
    source: {python: "model.py:load"}
    inputs: {image: "float32[batch, 1, 8, 8]"}
    outputs: {logits: "float32[batch, 10]"}
"""
SOURCE = '{python: "model.py:load"}'
LOGITS = '"float32[batch, 10]"'
IMAGE = '"float32[batch, 1, 8, 8]"'


@pytest.fixture
def write(tmp_path):
    (tmp_path / "model.py").write_text("def load(): ...\n")
    (tmp_path / "labels.txt").write_text("a\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "labels.txt").write_text("b\n")

    def writer(content):
        path = tmp_path / "models.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


def _refused(path):
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert caught.value.exit_code == 2
    return caught.value


def _one_problem(error):
    assert len(error.problems) == 1, str(error)
    return error.problems[0]


# (a line added to the model, what, key path below the model, what else the message says)
KEYS = [
    ("bacth: {max: 4}", "unknown key `bacth`", "bacth", "did you mean `batch`?"),
    ("batch: {mx: 4}", "unknown key `mx`", "batch.mx", "did you mean `max`?"),
    ("samples: {python: 'model.py:load', arg: {}}", "unknown key `arg`", "samples.arg", "did you mean `args`?"),
    ("evaluate: {python: 'model.py:load', maxdrop: 1}", "unknown key `maxdrop`", "evaluate.maxdrop", "`max_drop`"),
    ("instances: {knd: KIND_CPU}", "unknown key `knd`", "instances.knd", "did you mean `kind`?"),
    ("warmup: {batchsizes: [1]}", "unknown key `batchsizes`", "warmup.batchsizes", "did you mean `batch_sizes`?"),
    ("export: {exproter: auto}", "unknown key `exproter`", "export.exproter", "did you mean `exporter`?"),
    ("preferred: [8]", "unknown key `preferred`", "preferred", "`preferred` belongs into `batch`"),
    ("opset: 18", "unknown key `opset`", "opset", "`opset` belongs into `export`"),
    ("server: '26.09'", "unknown key `server`", "server", "`server` belongs into the top level"),
    ("max_batch_size: 8", "unknown key `max_batch_size`", "max_batch_size", "`batch.max` decides that"),
    ("version_policy: {}", "unknown key `version_policy`", "version_policy", "config: {version_policy: ...}"),
    ("xyzzy: 1", "unknown key `xyzzy`", "xyzzy", "in models.digits: source, ensemble"),
    ("batch: {<<: {max: 4}}", "unknown key `<<`", "batch.<<", "max, preferred"),
    ("batch: {~: 4}", "unknown key `~`", "batch.~", "max, preferred"),
]
VALUES = [
    ("batch: 8", "`batch` is of the wrong type", "batch", "a mapping"),
    ("batch: {max: many}", "`max` is of the wrong type", "batch.max", "a whole number"),
    ("batch: {max: '8'}", "`max` is of the wrong type", "batch.max", "'8'"),
    ("batch: {max: true}", "`max` is of the wrong type", "batch.max", "a whole number"),
    ("batch: {max: 8.5}", "`max` is of the wrong type", "batch.max", "8.5"),
    ("batch: {max: 2020-01-01}", "`max` is of the wrong type", "batch.max", "'2020-01-01'"),
    ("batch: {max: -1}", "`max` is out of range", "batch.max", "at least 0"),
    ("batch: {max: 70000}", "`max` is out of range", "batch.max", "at most 65536"),
    (f"batch: {{max: {'9' * 300}}}", "`max` is out of range", "batch.max", "999...999"),
    ("batch: {dynamic: 1}", "`dynamic` is of the wrong type", "batch.dynamic", "true or false"),
    ("batch: {max: 4, preferred: [8]}", "preferred batch size 8 is outside 1..4", "batch.preferred[0]", "raise `max`"),
    ("batch: {dynamic: false, preferred: [2]}", "need `dynamic: true`", "batch.dynamic", "preferred"),
    ("batch: {preferred: 8}", "`preferred` is of the wrong type", "batch.preferred", "preferred: [8]"),
    ("batch: {max_queue_delay_microseconds: -1}", "is out of range", "max_queue_delay_microseconds", "at least 0"),
    ("variants: onnx-fp32", "`variants` is of the wrong type", "variants", "variants: ['onnx-fp32']"),
    ("variants: [onnx-fp23]", "unknown variant 'onnx-fp23'", "variants[0]", "did you mean `onnx-fp32`?"),
    ("variants: []", "`variants` is empty", "variants", "at least one"),
    ("variants: [onnx-fp32, onnx-fp32]", "is listed twice", "variants", "keep one"),
    ("serve: onnx-int8", "serve: 'onnx-int8' is none of the variants", "serve", "onnx-fp32"),
    ("samples: model.py:load", "`samples` is of the wrong type", "samples", 'samples: {python: "model.py:load"}'),
    ("samples: {python: model.py}", "names no callable", "samples.python", "model.py:FUNCTION"),
    ("samples: {}", "`python` is missing", "samples", "models.digits.samples.python: ..."),
    ("evaluate: {python: 'model.py:load', max_drop: -1}", "is out of range", "evaluate.max_drop", "at least 0"),
    ("evaluate: {python: 'model.py:load', max_drop: .nan}", "`max_drop`", "evaluate.max_drop", "finite"),
    ("evaluate: {python: 'model.py:load', max_drop: true}", "are no numbers", "evaluate.max_drop", "a number"),
    ("instances: {count: 0}", "`count` is out of range", "instances.count", "at least 1"),
    ("instances: {kind: GPU}", "`kind` has no such choice", "instances.kind", "did you mean KIND_GPU?"),
    ("instances: {kind: KIND_CPU, gpus: [0]}", "`gpus` with KIND_CPU", "instances.gpus", "KIND_GPU"),
    ("warmup: {batch_sizes: [0]}", "is out of range", "warmup.batch_sizes[0]", "at least 1"),
    ("warmup: {batch_sizes: [9]}", "warmup with 9, beyond the largest batch", "warmup.batch_sizes[0]", "at most 8"),
    ("response_cache: 1", "`response_cache` is of the wrong type", "response_cache", "true or false"),
    ("response_cache:", "`response_cache` is of the wrong type", "response_cache", "nothing"),
    ("export: {opset: 99}", "`opset` is out of range", "export.opset", "at most 23"),
    ("export: {exporter: torchscript, opset: 22}", "opset 22 is too new", "export.opset", "at most 20"),
    ("export: {exporter: dinamo}", "`exporter` has no such choice", "export.exporter", "did you mean dynamo?"),
    ("labels: {logit: labels.txt}", "none of the outputs", "labels.logit", "did you mean `logits`?"),
    ("depends: model.py", "`depends` is of the wrong type", "depends", "depends: ['model.py']"),
    ("depends: [vocab.txt]", "'vocab.txt' matches no file", "depends[0]", "at least one file"),
    ("depends: [model.py, 'data/**']", "'data/**' matches no file", "depends[1]", "mend the glob"),
    ("depends: [modell.py]", "matches no file", "depends[0]", "did you mean model.py?"),
    ("depends: ['[']", "matches no file", "depends[0]", "mend the glob"),
    ("depends: ['$']", "names no environment variable", "depends[0]", "$NAME alone"),
    ("depends: [$HOME/x]", "names no environment variable", "depends[0]", "./$HOME/x"),
    ("depends: ['']", "an empty entry", "depends[0]", "a glob"),
]
FILES = [
    ("samples: {python: 'nothing.py:f'}", "nothing.py is not there", "samples.python", "a file at /"),
    ("samples: {python: 'modell.py:f'}", "modell.py is not there", "samples.python", "did you mean model.py?"),
    ("labels: {logits: label.txt}", "label.txt is not there", "labels.logits", "did you mean labels.txt?"),
    ("labels: {logits: other}", "other is no file", "labels.logits", "a folder"),
    ("labels: {logits: pipe}", "pipe is no file", "labels.logits", "a pipe"),
    ("labels: {logits: loop}", "loop is a link that leads in a circle", "labels.logits", "make it a file"),
    ("labels: {logits: dangling}", "dangling is not there", "labels.logits", "a link to gone"),
    ("labels: {logits: model.py/x}", "model.py/x is not there", "labels.logits", "a file at"),
    ("labels: {logits: ~/none.txt}", "~/none.txt is not there", "labels.logits", "~ is not expanded"),
    ("labels: {logits: 'https://a.b/labels.txt'}", "is a URL", "labels.logits", "nothing is downloaded"),
    ('labels: {logits: "a\\0b"}', "is no path", "labels.logits", "a path"),
    (f"depends: [{'y' * 300}]", "matches no file", "depends[0]", "at least one file"),
    (f"samples: {{python: '{'y' * 300}.py:f'}}", "cannot be read", "samples.python", "name too long"),
    ("labels: {logits: ''}", "is no path", "labels.logits", "a path"),
]
# What is written from a path is its last segment: it must not be a name that the version folder has already.
LABELS = ["config.pbtxt", "model.onnx", "model.onnx.data", "manifest.json", "golden.npz", "MODEL.ONNX", ".hidden"]
TRITON = [
    ("config: [1]", "`config` is of the wrong type", "config", "a mapping"),
    ("config: {version_polcy: {}}", "no field `version_polcy`", "config.version_polcy", "`version_policy`"),
    ("config: {max_batch_size: 4}", "`max_batch_size` is decided by the spec", "config.max_batch_size", "`batch.max`"),
    ("config: {optimization: }", "`optimization` has a wrong value", "config.optimization", "nothing"),
    ("config: {parameters: {a: b}}", "`a` has a wrong value", "config.parameters.a", "a mapping of string_value"),
    ("config: {parameters: [a]}", "`parameters` has a wrong value", "config.parameters", "a mapping"),
    ("config: {parameters: {a: {string_value: 1}}}", "`string_value`", "config.parameters.a.string_value", "text"),
    ("config: {parameters: {a: {strng: x}}}", "no field `parameters.a.strng`", "config.parameters.a.strng", "string_v"),
    ("config: {instance_group: {count: 1}}", "`instance_group` has a wrong value", "config.instance_group", "a list"),
    ("config: {instance_group: [3]}", "`instance_group` has a wrong value", "config.instance_group[0]", "a mapping"),
    ("config: {instance_group: [{kind: KIND_TPU}]}", "`kind`", "config.instance_group[0].kind", "KIND_GPU`?"),
    ("config: {instance_group: [{count: 1.5}]}", "`count`", "config.instance_group[0].count", "a whole number"),
    ("config: {instance_group: [{gpus: 1}]}", "`gpus`", "config.instance_group[0].gpus", "a list"),
    (f"config: {{instance_group: [{{count: {2**31}}}]}}", "`count`", "config.instance_group[0].count", "to 2147483647"),
    ("config: {dynamic_batching: {priority_queue_policy: {x: {}}}}", "`x` has", "priority_queue_policy.x", "number"),
    ("config: {version_policy: {latest: {}, all: {}}}", "no valid ModelConfig", "config", "one choice"),
    ("config: {input: [{name: imag}]}", "config.input names 'imag'", "config.input[0]", "did you mean `image`?"),
    ("config: {output: [{dims: [1]}]}", "config.output names None", "config.output[0]", "logits"),
]


@pytest.mark.parametrize(("line", "what", "at", "says"), KEYS + VALUES + FILES + TRITON)
def test_a_wrong_line_of_a_model(write, tmp_path, line, what, at, says):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    error = _refused(write(f"{GOOD}    {line}\n"))
    problem = _one_problem(error)
    assert what in problem.what
    assert problem.where.startswith(f"{tmp_path}/models.yaml:7, models.digits.")
    assert at in problem.where
    assert says in str(problem.as_error()).replace("\n            ", " ")


@pytest.mark.parametrize("name", LABELS)
def test_a_label_file_that_would_replace_a_file_of_the_version(write, tmp_path, name):
    (tmp_path / "other" / name).write_text("")
    problem = _one_problem(_refused(write(f"{GOOD}    labels: {{logits: other/{name}}}\n")))
    assert f"cannot be called {name}" in problem.what
    assert problem.where.endswith("models.yaml:7, models.digits.labels.logits")


def test_label_files_may_come_from_anywhere_but_not_collide(write, tmp_path):
    two = GOOD.replace(LOGITS, f"{LOGITS}, more: {LOGITS}")
    labels = "    labels: {{logits: {}, more: {}}}\n"
    read_spec(write(two + labels.format("labels.txt", "./labels.txt")))
    read_spec(write(two + labels.format(f"../{tmp_path.name}/labels.txt", tmp_path / "models.yaml")))
    problem = _one_problem(_refused(write(two + labels.format("labels.txt", "other/labels.txt"))))
    assert problem.what == "two label files would be one: labels.txt and other/labels.txt are both copied as labels.txt"
    assert "more_labels.txt" in problem.fix
    (tmp_path / ("y" * 210)).touch()
    problem = _one_problem(_refused(write(GOOD + f"    labels: {{logits: {'y' * 210}}}\n")))
    assert "at most 200 bytes" in problem.expected


# (tensor in place of the logits, what, what else)
TENSORS = [
    ("float32", "is no tensor", "float32[batch, ...], in quotes"),
    ("float32[batch", "is no tensor", "TYPE[DIM, ...]"),
    ("[batch, 10]", "is no tensor", "for example float32[batch, 3, 224, 224]"),
    ("", "is no tensor", "TYPE[DIM, ...]"),
    ("x" * 20_000, "is no tensor", "TYPE[DIM, ...]"),
    ("float33[batch, 10]", "unknown element type 'float33'", "did you mean float32?"),
    ("FP32[batch, 10]", "unknown element type 'FP32'", "did you mean float32?"),
    ("TYPE_INT64[batch, 10]", "unknown element type 'TYPE_INT64'", "did you mean int64?"),
    ("double[batch, 10]", "unknown element type 'double'", "did you mean float64?"),
    ("complex64[batch, 10]", "unknown element type 'complex64'", "one of bool, uint8"),
    ("bfloat16[batch, 10]", "which clients have no arrays for", "take float32 at the border"),
    ("float32[batch, -1]", "dimension '-1'", "a free size is a name"),
    ("float32[batch, ?]", "dimension '?'", "a free size is a name"),
    ("float32[batch, 1.5]", "dimension '1.5'", "a number, a name"),
    ("float32[batch, ²]", "dimension '²'", "a number, a name"),
    ("float32[batch, a b]", "dimension 'a b'", "a number, a name"),
    ("float32[batch, größe]", "dimension 'größe'", "a number, a name"),
    ("float32[batch, 10,]", "dimension ''", "a number, a name"),
    ("float32[batch, 0]", "dimension 0", "at least 1"),
    ("float32[batch, n: 5..2]", "range 5..2", "at most the upper end"),
    ("float32[batch, n: 0..2]", "range 0..2", "at least 1"),
    ("float32[batch, n: 1...2]", "dimension 'n: 1...2'", "LOW..HIGH"),
    ("float32[10, batch]", "`batch` is the first dimension", "batch.max bounds it"),
    ("float32[batch: 1..4, 10]", "`batch` is the first dimension", "has no range"),
    (f"float32[batch, {'9' * 5000}]", "is too large", "at most 2147483647"),
    (f"float32[batch, n: 1..{'9' * 30}]", "is too large", "at most 2147483647"),
    ("float32[batch, 100000, 100000]", "is up to 40.0 GB for one sample", "at most 2147483647 bytes"),
    ("float32[batch, n: 1..2000000000]", "is up to 8.0 GB for one sample", "make a dimension smaller"),
    (f"float32[batch{', 1' * 40}]", "41 dimensions", "at most 32"),
    ("float32[batch]", "'logits' has no dimension beside `batch`", "float32[batch, 1]"),
    ("float32[10]", "'image' begins with `batch` and 'logits' does not", "batch: {max: 0}"),
]


@pytest.mark.parametrize(("text", "what", "says"), TENSORS)
def test_a_wrong_tensor(write, text, what, says):
    problem = _one_problem(_refused(write(GOOD.replace(LOGITS, f'"{text}"'))))
    assert what in problem.what
    assert problem.where.endswith("models.yaml:6, models.digits.outputs.logits")
    assert says in str(problem.as_error())


# (the good spec with this replaced, by that, what, where, what else)
WHOLE = [
    (SOURCE, "{}", "a source is exactly one kind", ":4, models.digits.source", "none of them"),
    (SOURCE, "model.py:load", "`source` is of the wrong type", ":4, models.digits.source", '{python: "model.py:load"}'),
    (SOURCE, "{python: 'model.py:load', onnx: model.py}", "exactly one kind", ":4, models.digits", "keep one of"),
    (SOURCE, "{checkpoint: model.py}", "`factory` is missing", "source.checkpoint", "builds the module"),
    (SOURCE, "{onnx: model.py, args: {a: 1}}", "`args` are for `python`", "source.args", "`onnx` takes none"),
    (SOURCE, "{onnx: {pyton: 'model.py:load'}}", "neither a file nor a callable", "source.onnx", "onnx: {python:"),
    (SOURCE, "{onnx: {python: model.py}}", "names no callable", "source.onnx", "model.py:FUNCTION"),
    (SOURCE, "{onnx: model.onnx}", "model.onnx is not there", "source.onnx", "did you mean model.py?"),
    (SOURCE, "{huggingface: model.py}", "model.py is no folder", "source.huggingface", "name the folder"),
    (SOURCE, "{python: 'model.py:load', class: A}", "`class` is for `huggingface`", "source.class", ""),
    (SOURCE, "{python: 'model.py:load', allow_pickle: true}", "`allow_pickle` is for `checkpoint`", "allow_pickle", ""),
    (SOURCE, '{python: "mo\\0del.py:load"}', "names no callable", "source.python", "file.py:function"),
    (SOURCE, "{pyton: 'model.py:load'}", "unknown key `pyton`", "source.pyton", "did you mean `python`?"),
    (f"    outputs: {{logits: {LOGITS}}}\n", "", "`outputs` is missing", "models.digits", "only an `onnx` source"),
    (f"{{image: {IMAGE}}}", "", "`inputs` is of the wrong type", ":5, models.digits.inputs", "nothing"),
    ("outputs:", "ouputs:", "unknown key `ouputs`", ":6, models.digits.ouputs", "did you mean `outputs`?"),
    ("logits:", "image:", "'image' is an input and an output", "outputs.image", "rename one"),
    ("logits:", '"":', "'' is no name for a tensor", "outputs", "printable text"),
    ("logits:", '"a\\nb":', "is no name for a tensor", "outputs", "printable text"),
    (IMAGE, '"int8[batch, n: 1..3]", more: "int8[batch, n: 1..4]"', "two ranges", "inputs.more", "range once"),
    ("repository: out", "repositry: out", "unknown key `repositry`", ":1, repositry", "did you mean `repository`?"),
    ("repository: out", "repository: .", "the spec's own folder", ":1, repository", "every folder of a repository"),
    ("repository: out", "repository: ../..", "or one above it", ":1, repository", "repository: model_repository"),
    ("repository: out", "repository: model.py", "is no folder", ":1, repository", "a file"),
    ("repository: out", "repository: ''", "is no path", ":1, repository", "a path"),
    ("repository: out", "server: 26.10", "`server` is of the wrong type", ":1, server", 'put it in quotes: "26.10"'),
    ("repository: out", "server: '19.01'", "unknown Triton release '19.01'", ":1, server", "24.10 to 26.09"),
    ("repository: out", "batch: {max: 3}", "unknown key `batch`", ":1, batch", "`batch` belongs into `models.NAME`"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "what", "at", "says"), WHOLE)
def test_a_spec_that_is_wrong_in_one_place(write, old, new, what, at, says):
    assert old in GOOD
    problem = _one_problem(_refused(write(GOOD.replace(old, new))))
    assert what in problem.what
    assert at in problem.where
    assert says in str(problem.as_error())


NAMES = [
    ("../evil", "is no model name", "`_evil`"),
    ("a/b", "is no model name", "`a_b`"),
    ("a\\\\b", "is no model name", "`a_b`"),
    ("a\\0b", "is no model name", "`a_b`"),
    ("a\\n", "is no model name", "letters, digits"),
    ("..", "is no model name", "letters, digits"),
    (".hidden", "is no model name", "`hidden`"),
    ("trailing.", "is no model name", "`trailing`"),
    ("trailing ", "is no model name", "`trailing_`"),
    ("-rf", "is no model name", "`rf`"),
    ("größe", "is no model name", "`gr_e`"),
    ("", "is no model name", "letters, digits"),
    ("x" * 201, "(201 bytes)' is no model name", "at most 200"),
    ("config.pbtxt", "is a reserved name", "a model has a file of that name"),
    ("digits.candidate", "is a reserved name", "does not end in .candidate"),
    ("stats", "is a reserved name", "/v2/models/stats"),
]


@pytest.mark.parametrize(("name", "what", "says"), NAMES)
def test_a_name_that_triton_or_a_file_system_cannot_hold(write, name, what, says):
    problem = _one_problem(_refused(write(GOOD.replace("digits:", f'"{name}":'))))
    assert what in problem.what
    assert "models.yaml:3, models" in problem.where
    assert says in str(problem.as_error())


def test_two_models_of_one_name(write):
    entry = GOOD.partition("models:\n")[2]
    problem = _one_problem(_refused(write(GOOD + entry)))
    assert problem.what == "key 'digits' is here twice"
    assert problem.got == "first on line 3, again on line 7"
    problem = _one_problem(_refused(write(GOOD + entry.replace("digits", "Digits"))))
    assert problem.what == "'Digits' and 'digits' differ in case only"


# (bytes of the whole file, what, line, what else)
NO_YAML = [
    (b"", "empty or no mapping", "", "nothing"),
    (b"# nothing\n", "empty or no mapping", "", "nothing"),
    (b"- 1\n", "empty or no mapping", "", "[1]"),
    (b"hello", "empty or no mapping", "", "'hello'"),
    (b"models:\n", "`models` is of the wrong type", ":1, models", "nothing"),
    (b"models: {}\n", "`models`", ":1, models", "at least"),
    (b"models: [a]\n", "`models` is of the wrong type", ":1, models", "a mapping"),
    (b"models: {a: b}\n", "`a` is of the wrong type", ":1, models.a", "a mapping"),
    (GOOD.replace("    source", "\tsource").encode(), "a tab indents this line", ":4, column 1", "replace the tab"),
    (GOOD.replace("    source", "  \t source").encode(), "a tab indents this line", ":4, column", "replace the tab"),
    (GOOD.encode("utf-16"), "no UTF-8 text", ":1", "UTF-16"),
    (GOOD.encode() + b"# caf\xe9\n", "no UTF-8 text", ":7", "byte 0xe9"),
    (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "no UTF-8 text", ":1", "is this the right file?"),
    (b"\x08\x07\x12\x07pytorch", "a character that YAML does not allow", ":1", "U+0008"),
    (GOOD.encode() + b"\0", "a character that YAML does not allow", ":7", "U+0000"),
    (GOOD.encode() + b"---\n" + GOOD.encode(), "a second document", ":7", "one file, one spec"),
    (b"a: [1, 2\n", "not valid YAML", ":2", "quote values"),
    (b"a: 'x\nb: 1\n", "not valid YAML", ":3", "which began on line 1"),
    (b"a: {b: float32[batch, 1]}\n", "not valid YAML", ":1, column", "a: {b: float32[batch, 1]}"),
    (b"a: b: c\n", "mapping values are not allowed", ":1", "quote values"),
    (b'a: "\\ud800"\n', "not valid YAML", ":1", "quote values"),
    (b"a: &x 1\nb: *x\n", "alias *x", ":2", "write the value out"),
    (b"a: &x [*x]\n", "alias *x", ":1", "write the value out"),
    (b"? [a, b]\n: 1\n", "a key is a list, a mapping or an alias", ":1", "text, then"),
    (b"? {a: b}\n: 1\n", "a key is a list, a mapping or an alias", ":1", "text, then"),
    (b"&x a: 1\n*x : 2\n", "a key is a list, a mapping or an alias", ":2", "text, then"),
]


@pytest.mark.parametrize(("content", "what", "at", "says"), NO_YAML)
def test_what_is_no_spec_at_all(write, tmp_path, content, what, at, says):
    problem = _one_problem(_refused(write(content)))
    assert what in problem.what
    assert problem.where.startswith(f"{tmp_path}/models.yaml{at}")
    assert says in str(problem.as_error())


@pytest.mark.parametrize(
    ("value", "what", "says"),
    [
        ("9" * 5000, "a number of 5000 digits", "999"),
        ("0x" + "f" * 5000, "a number of 5002 digits", "0xfff"),
        ("010", "010 is one number to YAML 1.1 and another to YAML 1.2", "a plain decimal number"),
        ("1:20", "1:20 is one number to YAML 1.1 and another to YAML 1.2", "a plain decimal number"),
        ("1:20.5", "1:20.5 is one number to YAML 1.1 and another to YAML 1.2", "a plain decimal number"),
        ("!!int abc", "'abc' is no number", "a plain decimal number"),
        ("!!float abc", "'abc' is no number", "a plain decimal number"),
        ("!!bool abc", "'abc' is neither true nor false", "abc"),
        ("!!timestamp abc", "tag !!timestamp is not for specs", "take out `!!timestamp`"),
        ("!!binary aGk=", "tag !!binary is not for specs", "take out `!!binary`"),
        ("!!python/object/apply:os.system ['true']", "tag !!python/object/apply:os.system is not", "take out"),
        ("!mine 1", "tag !mine is not for specs", "take out `!mine`"),
        ("!!set {a, b}", "tag !!set is not for specs", "take out `!!set`"),
    ],
)
def test_a_value_that_yaml_readers_take_for_different_things(write, value, what, says):
    line = f"    samples: {{python: 'model.py:load', args: {{n: {value}}}}}\n"
    problem = _one_problem(_refused(write(GOOD + line)))
    assert what in problem.what
    assert problem.where.endswith("models.yaml:7, models.digits.samples.args.n")
    assert says in str(problem.as_error())


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_what_an_editor_leaves_behind_is_no_mistake(write, change):
    spec, document = read_spec(write(change(GOOD)))
    assert spec.models["digits"].served == "onnx-fp32"
    assert document.lines["models", "digits", "outputs"] == 6


def test_all_problems_of_all_kinds_come_at_once_in_the_order_of_the_file(write):
    text = (
        GOOD.replace("outputs", "ouputs")
        .replace("float32[batch, 10]", "float31[batch, 10]")
        .replace("model.py", "modl.py")
        .replace("repository: out", "repository: .")
    )
    text += "    bacth: {mx: 3}\n    config: {dynamic_batchin: {}, instance_group: [{count: x}, {kidn: 3}]}\n"
    text += "    labels: {logits: lab.txt}\n    depends: [none.csv]\n"
    text += "    warmup: {batch_sizes: [1:20]}\n    warmup: {a: 3}\n"
    text += "  ../evil: {source: {onnx: none.onnx}}\nfoo: 1\n"
    error = _refused(write(text))
    expected = [
        (1, "the spec's own folder"), (4, "modl.py is not there"), (6, "unknown key `ouputs`"), (6, "'float31'"),
        (7, "unknown key `bacth`"), (7, "unknown key `mx`"), (8, "no field `dynamic_batchin`"), (8, "`count`"),
        (8, "no field `instance_group.kidn`"), (9, "lab.txt is not there"), (10, "'none.csv' matches no file"),
        (11, "1:20 is one number"), (12, "key 'warmup' is here twice"), (13, "'../evil' is no model name"),
        (13, "none.onnx is not there"), (14, "unknown key `foo`"),
    ]  # fmt: skip
    found = [(int(problem.where.split(":")[1].split(",")[0]), problem.what) for problem in error.problems]
    assert [line for line, _ in found] == [line for line, _ in expected], str(error)
    for what in (what for _, what in expected):
        assert any(what in text for _, text in found), f"{what}\n{error}"
    assert str(error).startswith(f"{len(expected)} problems in the spec")


def test_what_is_wrong_in_a_whole_model_shows_beside_a_misspelt_key(write):
    text = GOOD.replace(LOGITS, '"float32[10]"') + "    variant: [onnx-fp32]\n    serve: onnx-fp23\n"
    whats = [problem.what for problem in _refused(write(text)).problems]
    assert whats == ["unknown key `variant`", "unknown variant 'onnx-fp23'"]


def test_thousands_of_problems_are_counted_not_printed(write):
    error = _refused(write("models:\n" + "".join(f"  m{i}: {{}}\n" for i in range(3000))))
    assert len(error.problems) == MAX_PROBLEMS + 1
    assert error.problems[-1].what == "and 2900 more"


def test_a_path_is_said_as_seen_from_the_spec_when_it_was_written_as_seen_from_here(write, tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    write("").rename(tmp_path / "specs" / "models.yaml")
    (tmp_path / "specs" / "models.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    problem = _one_problem(_refused(tmp_path / "specs" / "models.yaml"))
    assert problem.fix == "paths are relative to the spec's folder: write ../model.py"


def test_config_cannot_be_checked_without_tritonclient(write, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("tritonclient", "tritonclient.grpc"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "tritonclient.grpc.model_config_pb2", raising=False)
    with pytest.raises(MissingDependencyError, match="tritonclient"):
        read_spec(write(GOOD + "    config: {metric_tags: {a: b}}\n"))
    _one_problem(_refused(write(GOOD + "    config: {metric_tags: {a: b}}\n    labels: {logits: x.txt}\n")))
    read_spec(write(GOOD))


# What is no file to read: (how it is made, what)
PLACES = {
    "absent": (lambda path: None, "no such file", "give the spec as an argument"),
    "folder": (lambda path: path.mkdir(), "this is a folder", "build-repo"),
    "pipe": (lambda path: os.mkfifo(path), "this is no regular file", "write it to a file first"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "this is no regular file", "write it to a file first"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read", "symbolic links"),
    "dangling": (lambda path: path.symlink_to(path.parent / "gone"), "no such file", "gone"),
}


@pytest.mark.parametrize(("make", "what", "says"), PLACES.values(), ids=PLACES)
def test_a_spec_that_is_no_file(tmp_path, make, what, says):
    path = tmp_path / "models.yaml"
    make(path)
    problem = _one_problem(_refused(path))
    assert what in problem.what
    assert says in str(problem.as_error())


def test_a_spec_below_a_file_with_too_long_a_name_or_with_a_nul(tmp_path):
    (tmp_path / "file").touch()
    assert "Not a directory" in str(_refused(tmp_path / "file" / "models.yaml"))
    assert "name too long" in str(_refused(tmp_path / ("x" * 300)))
    assert "is no path" in str(_refused(f"{tmp_path}/a\0b"))


@pytest.fixture
def open_folder():
    """A folder that every user may enter: pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        if any(not parent.stat().st_mode & stat.S_IXOTH for parent in folder.parents):
            pytest.skip(f"{folder.parent} is closed to other users")
        yield folder


def test_files_that_the_user_may_not_read(open_folder):
    """As another user where the tests run as root, who may read everything."""
    for name, text in (("model.py", ""), ("labels.txt", "a\n"), ("good.yaml", GOOD), ("closed.yaml", GOOD)):
        (open_folder / name).write_text(text)
    (open_folder / "models.yaml").write_text(f"{GOOD}    labels: {{logits: labels.txt}}\n")
    (open_folder / "labels.txt").chmod(0)
    (open_folder / "closed.yaml").chmod(0)
    code = (
        "import os, sys\nfrom builder.spec import read_spec\nfrom builder.errors import SpecError\n"
        "read_spec(sys.argv.pop())\n"  # so that all is imported before this is nobody, who may not read the sources
        "if os.geteuid() == 0:\n    os.setresuid(65534, 65534, 65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        read_spec(path)\n"
        "    except SpecError as exc:\n        sys.stdout.write(str(exc))\n"
    )
    files = [str(open_folder / name) for name in ("models.yaml", "closed.yaml", "good.yaml")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert "labels.txt cannot be read" in done.stdout
    assert "mode ----------" in done.stdout
    assert "Permission denied" in done.stdout


def _laughs():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join(lines + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)])


BOMBS = {
    "a billion laughs": (_laughs, "alias *a0"),
    "quadratic": (lambda: f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 50_000)}]\n", "alias *a"),
    "open brackets": (lambda: "[" * (MAX_BYTES - 1), "nested too deeply"),
    "open braces": (lambda: "{a: " * (MAX_BYTES // 4 - 1), "nested too deeply"),
    "open lists": (lambda: "- " * (MAX_BYTES // 2 - 1), "nested too deeply"),
    "steps": (lambda: "\n".join("  " * depth + "a:" for depth in range(1500)), "nested too deeply"),
    "just too deep": (lambda: "a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested too deeply"),
    "many items": (lambda: "- a\n" * (MAX_BYTES // 4 - 1), "too many values"),
    "many keys": (lambda: "".join(f"k{n}: \n" for n in range(MAX_VALUES)), "too many values"),
    "one key again and again": (lambda: "a: 1\n" * 100_000, "here twice"),
    "a long text": (lambda: "a: '" + "x" * (MAX_BYTES - 10) + "'\n", "unknown key `a`"),
    "a long key": (lambda: "x" * 900 + ": 1\n", "unknown key `xxx"),
    "many unknown keys": (lambda: "".join(f"key{n}: 1\n" for n in range(20_000)), "unknown key `key0`"),
    "a hundred megabytes": (lambda: None, "too large"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_fast_and_without_much_memory(write, bomb):
    make, what = BOMBS[bomb]
    text = make()
    path = write(text or "")
    if text is None:
        with path.open("wb") as stream:
            stream.truncate(100 * 1024 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    error = _refused(path)
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # kilobytes
    assert any(what in problem.what for problem in error.problems)
    assert len(str(error)) < 200_000
