"""config.pbtxt: what is decided, how it is written, and that the text says what was decided."""

import textwrap

import pytest

from builder.api import load_spec
from builder.config import decide, parse, render
from builder.errors import ConfigError, SpecError

SPEC = """
models:
  m:
    source: {python: "model.py:load"}
    inputs: {ids: "int64[batch, seq: 1..64]", image: "float32[batch, 3, 8, 8]"}
    outputs: {logits: "float32[batch, 10]"}
"""
ONNX = "models:\n  m:\n    source: {onnx: model.py}\n"
"""Whose tensors only the file knows."""


@pytest.fixture
def config_of(tmp_path):
    (tmp_path / "model.py").write_text("")
    (tmp_path / "labels.txt").write_text("a\nb\n")

    def make(extra="", spec=SPEC):
        path = tmp_path / "models.yaml"
        path.write_text(textwrap.dedent(spec) + textwrap.indent(textwrap.dedent(extra), "    "))
        model = load_spec(path).models["m"]
        return decide("m", model, model.declared, fmt="onnx", sizes={"seq": 7}, folder=tmp_path)

    return make


def test_the_default_batches_dynamically_and_leaves_instances_to_triton(config_of):
    message = parse(render(config_of()))
    assert (message.name, message.backend, message.max_batch_size) == ("m", "onnxruntime", 8)
    assert [(tensor.name, list(tensor.dims)) for tensor in message.input] == [("ids", [-1]), ("image", [3, 8, 8])]
    assert message.HasField("dynamic_batching")
    assert not message.instance_group


def test_batching_off_keeps_the_batch_dimension_and_writes_the_zero(config_of):
    text = render(config_of("batch: {max: 0}\n"))
    assert "max_batch_size: 0" in text
    message = parse(text)
    assert [list(tensor.dims) for tensor in message.input] == [[-1, -1], [-1, 3, 8, 8]]
    assert not message.HasField("dynamic_batching")


def test_every_short_form_arrives(config_of):
    extra = """
    batch: {max: 64, preferred: [8, 32], max_queue_delay_microseconds: 500}
    instances: {count: 2, kind: KIND_CPU}
    warmup: {batch_sizes: [1, 64]}
    response_cache: true
    labels: {logits: labels.txt}
    """
    config = config_of(extra)
    message = parse(render(config))
    assert list(message.dynamic_batching.preferred_batch_size) == [8, 32]
    assert message.dynamic_batching.max_queue_delay_microseconds == 500
    assert (message.instance_group[0].count, message.instance_group[0].kind) == (2, 2)
    assert [sample.batch_size for sample in message.model_warmup] == [1, 64]
    assert list(message.model_warmup[0].inputs["ids"].dims) == [7]
    assert message.response_cache.enable
    assert message.output[0].label_filename == "labels.txt"
    assert list(config.copies) == ["labels.txt"]


def test_any_field_of_model_config_survives_and_wins(config_of):
    extra = """
    config:
      version_policy: {specific: {versions: [1, 3]}}
      parameters: {intra_op_thread_count: {string_value: "2"}, quoted: {string_value: 'a "b"'}}
      dynamic_batching: {preserve_ordering: true}
      optimization: {graph: {level: -1}, input_pinned_memory: {enable: false}}
      input: [{name: ids, optional: true}]
      instance_group: [{count: 3, kind: KIND_CPU, rate_limiter: {priority: 2}}]
    """
    message = parse(render(config_of(extra)))
    assert list(message.version_policy.specific.versions) == [1, 3]
    assert message.parameters["quoted"].string_value == 'a "b"'
    assert message.dynamic_batching.preserve_ordering
    assert message.optimization.graph.level == -1
    assert message.optimization.HasField("input_pinned_memory")
    assert message.input[0].optional
    assert message.input[0].data_type != 0
    assert message.instance_group[0].rate_limiter.priority == 2


def test_sequence_batching_replaces_dynamic_batching(config_of):
    message = parse(render(config_of("config: {sequence_batching: {max_sequence_idle_microseconds: 5}}\n")))
    assert message.WhichOneof("scheduling_choice") == "sequence_batching"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{version_polcy: {}}", "did you mean `version_policy`?"),
        ("{dynamic_batching: {preferred_batch_sizes: [1]}}", "did you mean `preferred_batch_size`?"),
        ("{max_batch_size: 4}", "is decided by the spec"),
        ("{instance_group: [{count: many}]}", "`count` has a wrong value"),
        ("{instance_group: [{kind: KIND_TPU}]}", "did you mean `KIND_GPU`?"),
        ("{parameters: {x: {strng_value: a}}}", "did you mean `string_value`?"),
        ("{version_policy: {latest: {}, all: {}}}", "this is no valid ModelConfig"),
    ],
)
def test_a_wrong_field_is_refused_with_the_line(config_of, config, message):
    with pytest.raises(SpecError) as caught:
        config_of(f"config: {config}\n")
    assert message in str(caught.value)
    assert "models.yaml:7, models.m.config" in str(caught.value)
    assert caught.value.problems[0].expected


def test_an_input_that_the_file_does_not_have_is_refused(config_of):
    with pytest.raises(ConfigError, match="names 'idz'"):
        config_of("config: {input: [{name: idz}]}\n", spec=ONNX)


def test_warmup_beyond_the_largest_batch_is_refused(config_of):
    with pytest.raises(ConfigError, match="beyond the largest batch"):
        config_of("batch: {max: 4}\nwarmup: {batch_sizes: [8]}\n", spec=ONNX)


def test_an_unknown_release_is_refused(config_of):
    with pytest.raises(SpecError, match=r"unknown Triton release '19\.01'"):
        config_of(spec='server: "19.01"\n' + textwrap.dedent(SPEC))


def test_the_text_is_the_same_every_time_and_readable(config_of):
    header = ("m: written by build-repo from models.yaml; change that, not this file.",)
    text = render(config_of("batch: {max: 4, max_queue_delay_microseconds: 500}\n"), header=header)
    assert text == render(config_of("batch: {max: 4, max_queue_delay_microseconds: 500}\n"), header=header)
    assert text == textwrap.dedent(
        """\
        # m: written by build-repo from models.yaml; change that, not this file.

        name: "m"
        backend: "onnxruntime"
        max_batch_size: 4
        input [
          {
            name: "ids"
            data_type: TYPE_INT64
            dims: [-1]
          },
          {
            name: "image"
            data_type: TYPE_FP32
            dims: [3, 8, 8]
          }
        ]
        output [
          {
            name: "logits"
            data_type: TYPE_FP32
            dims: [10]
          }
        ]

        # Requests that are there together run together, up to 4; each waits for company at most 500 us.
        dynamic_batching {
          max_queue_delay_microseconds: 500
        }
        """
    )


def test_a_text_that_does_not_parse_says_the_line():
    with pytest.raises(ConfigError, match="2:"):
        parse('name: "m"\nmax_batch_sise: 4\n', "m")
