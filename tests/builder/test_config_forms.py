"""Short forms: what each becomes in config.pbtxt, and what is said of those that contradict themselves."""

import textwrap

import pytest

from builder.api import load_spec
from builder.config import decide, parse, render
from builder.config.forms import instance_group
from builder.config.judged import findings_of
from builder.config.warmup import sample_files
from builder.errors import ConfigError, SpecError
from builder.samples import random_samples
from builder.spec import Instances

SPEC = """\
models:
  m:
    source: {python: "model.py:load"}
    inputs:
      ids: "int64[batch, seq: 1..64]"
      image: "float32[batch, 3, 8, 8]"
      start: "int32[batch, 1]"
      state: "float32[batch, 4]"
    outputs: {logits: "float32[batch, 10]", next: "float32[batch, 4]"}
"""


@pytest.fixture
def model_of(tmp_path):
    (tmp_path / "model.py").write_text("")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    (tmp_path / "state.bin").write_bytes(bytes(16))

    def make(extra):
        path = tmp_path / "models.yaml"
        path.write_text(SPEC + textwrap.indent(textwrap.dedent(extra).strip() + "\n", "    "))
        return load_spec(path).models["m"]

    return make


@pytest.fixture
def message_of(model_of, tmp_path):
    def make(extra, version=None, **how):
        model = model_of(extra)
        config = decide("m", model, model.declared, fmt="onnx", sizes={"seq": 7}, folder=tmp_path, **how)
        return parse(render(config if version is None else config.at(version)))

    return make


def test_queues_and_their_policies(message_of):
    batching = message_of(
        """
        batch:
          max: 8
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy: {timeout_action: DELAY, default_timeout_microseconds: 9}
          priority_queue_policy: {1: {max_queue_size: 5, allow_timeout_override: true}, 3: {}}
        """
    ).dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    assert batching.default_queue_policy.timeout_action == 1
    assert batching.default_queue_policy.default_timeout_microseconds == 9
    assert batching.priority_queue_policy[1].max_queue_size == 5
    assert batching.priority_queue_policy[1].allow_timeout_override
    assert sorted(batching.priority_queue_policy) == [1, 3]
    assert message_of("batch: {preserve_ordering: true}").dynamic_batching.preserve_ordering


def test_instances_are_one_mapping_or_a_list(message_of):
    assert len(message_of("instances: {count: 2}").instance_group) == 1
    first, second = message_of(
        """
        instances:
          - {name: a, count: 2, kind: KIND_GPU, gpus: [0, 1], host_policy: gpu_0, passive: true,
             secondary_devices: [{device_id: 1}]}
          - {kind: KIND_CPU, rate_limiter: {priority: 3, resources: [{name: R, count: 4, global: true}]}}
        """
    ).instance_group
    assert (first.name, first.count, list(first.gpus)) == ("a", 2, [0, 1])
    assert (first.host_policy, first.passive, first.secondary_devices[0].device_id) == ("gpu_0", True, 1)
    limiter = second.rate_limiter
    assert (limiter.priority, limiter.resources[0].count) == (3, 4)
    assert getattr(limiter.resources[0], "global")


def test_profiles_are_for_engines(model_of):
    assert instance_group(Instances(profile=("0",)))["profile"] == ["0"]
    with pytest.raises(SpecError, match="names a TensorRT profile, and onnxruntime serves the model"):
        model_of('instances: {profile: ["0"]}')


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("all", "all {\n}\n"),
        ("latest", "latest {\n  num_versions: 1\n}\n"),
        ("latest 3", "latest {\n  num_versions: 3\n}\n"),
        ("[1, 3]", "specific {\n  versions: 1\n  versions: 3\n}\n"),
    ],
)
def test_versions(message_of, text, policy):
    assert str(message_of(f"versions: {text}", version=5).version_policy) == policy


def test_without_versions_the_built_one_is_pinned(message_of):
    assert list(message_of("batch: {max: 4}", version=5).version_policy.specific.versions) == [5]


def test_sequences_with_controls_and_state(message_of):
    message = message_of(
        """
        sequence:
          oldest: {max_candidate_sequences: 16, preferred_batch_size: [4], preserve_ordering: true}
          max_sequence_idle_microseconds: 5
          controls: {start: {START: [-1, 1]}}
          state: [{input_name: state, output_name: next, initial_state: state.bin}]
          iterative: true
        """,
        version=3,
    )
    batching = message.sequence_batching
    assert message.WhichOneof("scheduling_choice") == "sequence_batching"
    assert (batching.oldest.max_candidate_sequences, list(batching.oldest.preferred_batch_size)) == (16, [4])
    assert batching.iterative_sequence
    assert batching.control_input[0].name == "start"
    assert list(batching.control_input[0].control[0].int32_false_true) == [-1, 1]
    assert (batching.state[0].input_name, list(batching.state[0].dims)) == ("state", [4])
    assert batching.state[0].initial_state[0].data_file == "../3/initial_state/state"
    assert [tensor.name for tensor in message.input] == ["ids", "image"]  # what Triton fills in is no input to clients
    assert [tensor.name for tensor in message.output] == ["logits"]


def test_a_direct_sequence_and_a_state_of_zeros(message_of):
    batching = message_of(
        """
        sequence:
          direct: {minimum_slot_utilization: 0.5, max_queue_delay_microseconds: 7}
          state: [{input_name: state, output_name: next, initial_state: zero}]
        """
    ).sequence_batching
    assert (batching.direct.minimum_slot_utilization, batching.direct.max_queue_delay_microseconds) == (0.5, 7)
    assert batching.state[0].initial_state[0].zero_data


def test_tensors(message_of):
    message = message_of(
        """
        batch: {max: 4}
        tensors:
          image: {format: FORMAT_NCHW, allow_ragged_batch: true}
          start: {batch_input: BATCH_ELEMENT_COUNT, source_input: [image]}
          state: {dims: [2, 2]}
          logits: {batch_output: BATCH_SCATTER_WITH_INPUT_SHAPE, source_input: [image]}
        """
    )
    image, state = message.input[1:]
    assert (image.format, image.allow_ragged_batch) == (2, True)
    assert (list(state.dims), list(state.reshape.shape)) == ([2, 2], [4])
    assert [tensor.name for tensor in message.input] == ["ids", "image", "state"]
    made = message.batch_input[0]
    assert (list(made.target_name), list(made.source_input)) == (["start"], ["image"])
    assert list(message.batch_output[0].target_name) == ["logits"]


def test_the_rest(message_of):
    message = message_of(
        """
        optimization:
          graph_level: -1
          priority: PRIORITY_MIN
          cuda: {graphs: true, graph_spec: [{batch_size: 4, input: {ids: [8]}, graph_lower_bound: {batch_size: 1}}]}
          gpu_execution_accelerator: [{name: tensorrt, parameters: {precision_mode: FP16}}]
          cpu_execution_accelerator: openvino
          input_pinned_memory: false
          gather_kernel_buffer_threshold: 3
          eager_batching: true
        parameters: {a: "1"}
        metric_tags: {team: search}
        metrics: {nv_inference_first_response_histogram_ms: [1, 10.5]}
        operations: [ops.so]
        agents: [checksum, {name: other, parameters: {k: v}}]
        """,
        version=2,
        checksums={"model.onnx": "0" * 32, "labels.txt": "1" * 32},
    )
    optimization = message.optimization
    assert (optimization.graph.level, optimization.priority, optimization.eager_batching) == (-1, 2, True)
    assert optimization.cuda.graph_spec[0].graph_lower_bound.batch_size == 1
    assert optimization.execution_accelerators.cpu_execution_accelerator[0].name == "openvino"
    assert optimization.HasField("input_pinned_memory")
    assert not optimization.HasField("output_pinned_memory")
    assert message.parameters["a"].string_value == "1"
    assert message.metric_tags["team"] == "search"
    assert list(message.model_metrics.metric_control[0].histogram_options.buckets) == [1, 10.5]
    assert list(message.model_operations.op_library_filename) == ["ops.so"]
    checksum, other = message.model_repository_agents.agents
    assert dict(checksum.parameters) == {"MD5:2/labels.txt": "1" * 32, "MD5:2/model.onnx": "0" * 32}
    assert dict(other.parameters) == {"k": "v"}


def test_warmup_with_real_samples(model_of, message_of):
    extra = "batch: {max: 4}\nwarmup: {samples: 2, batch_sizes: [1, 4], count: 3}"
    model = model_of(extra)
    rows = random_samples(model.declared).rows[:2]
    message = message_of(extra, version=6, rows=rows)
    assert [(w.name, w.batch_size, w.count) for w in message.model_warmup][:2] == [
        ("sample 0, batch of 1", 1, 3),
        ("sample 1, batch of 1", 1, 3),
    ]
    ids = message.model_warmup[1].inputs["ids"]
    assert (ids.input_data_file, list(ids.dims)) == ("../6/warmup/1_0_ids", list(rows[1]["ids"].shape))
    files = dict(sample_files(model, model.declared, rows))
    assert len(files) == 8
    assert files["1_0_ids"] == rows[1]["ids"].tobytes()


def test_warmup_with_random_data(message_of):
    message = message_of("warmup: {data: random}")
    assert message.model_warmup[0].inputs["ids"].random_data


def test_what_was_asked_for_replaces_the_other_choice(message_of):
    message = message_of("config: {sequence_batching: {oldest: {max_candidate_sequences: 8}}}")
    assert message.WhichOneof("scheduling_choice") == "sequence_batching"


def test_a_field_that_the_server_does_not_know_yet_is_refused(model_of, tmp_path):
    metrics = "metrics: {nv_inference_first_response_histogram_ms: [1, 10]}"
    assert model_of(metrics).metrics
    path = tmp_path / "models.yaml"
    path.write_text('server: "24.10"\n' + path.read_text())
    with pytest.raises(SpecError, match=r"model_metrics(?s:.*)24\.10"):
        load_spec(path)


def test_hosts_have_whole_configurations(model_of, tmp_path):
    model = model_of("hosts: {numa: {instance_group: [{count: 3, kind: KIND_CPU}]}}")
    config = decide("m", model, model.declared, fmt="onnx", sizes={}, folder=tmp_path).at(4)
    message = parse(render(config.on("numa")))
    assert (message.instance_group[0].count, list(message.version_policy.specific.versions)) == (3, [4])
    assert len(message.input) == 4


# (lines added to the model, what is said, the key it is said of)
REFUSED = [
    ("batch: {priority_levels: 2}", "`default_priority_level` is missing", "batch.priority_levels"),
    ("batch: {priority_levels: 2, default_priority_level: 3}", "outside", "batch.default_priority_level"),
    ("batch: {default_priority_level: 1}", "without `priority_levels`", "batch.default_priority_level"),
    ("batch: {priority_queue_policy: {1: {}}}", "level 1, which is none", "batch.priority_queue_policy.1"),
    ("batch: {dynamic: false, preserve_ordering: true}", "turns off", "batch.preserve_ordering"),
    ("batch: {preserve_ordering: true, priority_levels: 2, default_priority_level: 1}", "preserve_ordering with",
     "batch.preserve_ordering"),
    ("batch: {preferred: [2]}\nsequence: {}", "takes the place", "batch.preferred"),
    ("sequence: {direct: {}, oldest: {max_candidate_sequences: 9}}", "two strategies", "sequence.oldest"),
    ("sequence: {controls: {strat: START}}", "none of the inputs", "sequence.controls.strat"),
    ("sequence: {controls: {ids: START}}", "cannot be written into 'ids'", "sequence.controls.ids"),
    ("sequence: {controls: {start: STRT}}", "no control of a sequence", "sequence.controls.start"),
    ("sequence: {controls: {start: {START: 1}}}", "needs two values", "sequence.controls.start"),
    ("sequence: {controls: {start: {CORRID: [0, 1]}}}", "no values for false and true", "sequence.controls.start"),
    ("sequence: {controls: {start: [START]}}", "this is no control", "sequence.controls.start"),
    ("sequence: {controls: {start: START, image: START}}", "is given to 'start' and to", "sequence.controls.image"),
    ("sequence: {state: [{input_name: stat, output_name: next}]}", "none of the inputs",
     "sequence.state[0].input_name"),
    ("sequence: {state: [{input_name: ids, output_name: next}]}", "of different types", "sequence.state[0]"),
    ("sequence: {state: [{input_name: state, output_name: next}, {input_name: state, output_name: logits}]}",
     "'state' is here twice", "sequence.state[1].input_name"),
    ("sequence: {controls: {start: START}, state: [{input_name: start, output_name: next}]}", "a control and a state",
     "sequence.state[0].input_name"),
    ("sequence: {state: [{input_name: state, output_name: next, initial_state: gone.bin}]}", "gone.bin is not there",
     "sequence.state[0].initial_state"),
    ("sequence: {oldest: {max_candidate_sequences: 9, preferred_batch_size: [99]}}", "is outside 1..8",
     "sequence.oldest.preferred_batch_size[0]"),
    ("sequence: {}\nconfig: {dynamic_batching: {}}", "a model has one scheduler", "config.dynamic_batching"),
    ("sequence: {}\nconfig: {sequence_batching: {}}", "say the same thing twice", "config.sequence_batching"),
    ("sequence: {}\nresponse_cache: true", "never taken from the cache", "response_cache"),
    ("versions: all\nconfig: {version_policy: {all: {}}}", "say the same thing twice", "config.version_policy"),
    ("versions: latest 0", "serves no version", "versions"),
    ("versions: lates", "says no versions", "versions"),
    ("versions: 3", "says no versions", "versions"),
    ("versions: []", "`versions` is empty", "versions"),
    ("versions: [1, 1]", "each once", "versions"),
    ("versions: {latest: 1}", "`versions` is of the wrong type", "versions"),
    ("instances: [{name: a}, {name: a}]", "two groups of instances are called 'a'", "instances[1].name"),
    ("instances: {kind: KIND_MODEL, gpus: [0]}", "`gpus` with KIND_MODEL", "instances.gpus"),
    ("instances: [{cout: 2}]", "unknown key `cout`", "instances[0].cout"),
    ("warmup: {samples: 1, data: zero}", "either made up, or real", "warmup.data"),
    ("agents: [checksum, checksum]", "is listed twice", "agents[1]"),
    ("agents: checksum\nconfig: {model_repository_agents: {}}", "would replace `agents`",
     "config.model_repository_agents"),
    ("metrics: {a: [3, 1]}", "do not rise", "metrics.a"),
    ("tensors: {imag: {optional: true}}", "is none of the model's", "tensors.imag"),
    ("tensors: {logits: {optional: true}}", "`optional` for 'logits', which is an output", "tensors.logits.optional"),
    ("tensors: {ids: {batch_input: BATCH_ITEM_SHAPE}}", "looks at one input", "tensors.ids.batch_input"),
    ("tensors: {ids: {source_input: [image]}}", "is for `batch_input`", "tensors.ids.source_input"),
    ("tensors: {ids: {batch_input: BATCH_ITEM_SHAPE, source_input: [ids]}}", "which is no other input",
     "tensors.ids.source_input[0]"),
    ("tensors: {state: {dims: [-1, -1]}}", "more than one free size", "tensors.state.dims"),
    ("tensors: {state: {dims: []}}", "is empty, or has a 0", "tensors.state.dims"),
    ("tensors: {state: {dims: [5]}}", "cannot be reshaped", "tensors.state.dims"),
    ("optimization: {cuda: {graph_spec: [{}]}}", "without `graphs: true`", "optimization.cuda.graph_spec"),
    ("hosts: {a: {max_batch_size: 3}}", "is decided by the spec", "hosts.a.max_batch_size"),
    ("hosts: {a: {dynamic_batching: {priority_levels: 3}}}", "default_priority_level is not there",
     "hosts.a.dynamic_batching.priority_levels"),
    ("config: {dynamic_batching: {priority_levels: 3}}", "default_priority_level is not there",
     "config.dynamic_batching.priority_levels"),
    ("tensors: {ids: {format: FORMAT_NCHW}}", "FORMAT_NCHW and has 1 dims", "tensors.ids.format"),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "what", "key"), REFUSED)
def test_what_contradicts_itself_is_refused_with_the_line(model_of, extra, what, key):
    with pytest.raises(SpecError) as caught:
        model_of(extra)
    said = [problem for problem in caught.value.problems if what in problem.what]
    assert said, str(caught.value)
    assert said[0].where.endswith(f", models.m.{key}")
    line = int(said[0].where.partition("models.yaml:")[2].split(",")[0])
    assert line >= 10 + (1 if key.startswith("config") and "\n" in extra else 0)


def test_what_a_rule_finds_reaches_the_key_of_the_spec(model_of, tmp_path):
    model = model_of("batch: {max: 4}")
    wrong = model.model_copy(update={"config": {"dynamic_batching": {"preferred_batch_size": [9]}}})
    config = decide("m", wrong, model.declared, fmt="onnx", sizes={}, folder=tmp_path)
    assert [found.path for found in findings_of(config, wrong)] == [
        ("config", "dynamic_batching", "preferred_batch_size", 0)
    ]


def test_tensors_that_only_the_file_knows_are_checked_when_it_is_there(tmp_path, model_of):
    model = model_of("batch: {max: 4}")
    onnx = model.model_copy(update={"tensors": model_of("tensors: {ids: {optional: true}}").tensors})
    other = type(model.declared)(model.declared.inputs[1:], model.declared.outputs)
    with pytest.raises(ConfigError, match="'ids' is none of the model's") as caught:
        decide("m", onnx, other, fmt="onnx", sizes={}, folder=tmp_path)
    assert caught.value.where == "models.m.tensors.ids"
