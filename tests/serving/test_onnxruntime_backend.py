"""The ONNX Runtime backend in a real server: what it serves, and what it does with bad requests."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from onnx import TensorProto, helper

from serving.runtime import embedded_runtime
from serving.server import Server

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("onnxruntime_backend")]  # one server for all of them

_spec = importlib.util.spec_from_file_location("onnx_repository", Path(__file__).with_name("onnx_repository.py"))
r = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(r)

TYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}
# Enough time for requests that are sent together to be batched together, on a machine that is busy.
GATHER = "dynamic_batching { preferred_batch_size: [8] max_queue_delay_microseconds: 3000000 }\n"
PARAMETERS = """
optimization { graph { level: 1 } execution_accelerators {
  gpu_execution_accelerator: [ { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } } ]
  cpu_execution_accelerator: [ { name: "openvino" }, { name: "warp_drive" } ] } }
"""


def parameters(**values):
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in values.items()
    )


# ONNX Runtime refuses to run with these two together: proof that both arrive.
NO_ARENA = parameters(**{"enable_mem_arena": "false", "memory.enable_memory_arena_shrinkage": "cpu:0"})


def types_model():
    kinds = {name.lower(): kind for name, (kind, _) in TYPES.items()}
    return r.model(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in kinds],
        {f"in_{name}": (kind, ("batch", 3)) for name, kind in kinds.items()},
        {f"out_{name}": (kind, ("batch", 3)) for name, kind in kinds.items()},
    )


def optional_model():
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [4], [10.0] * 4)
    return r.model(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        {"x": (r.FLOAT, (4,)), "bias": (r.FLOAT, (4,))},
        {"y": (r.FLOAT, (4,))},
        [bias],
    )


def bfloat16_model():
    kind = TensorProto.BFLOAT16
    return r.model(
        [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Cast", ["x"], ["y"], to=r.FLOAT)],
        {"x": (kind, ("batch", 3))},
        {"same": (kind, ("batch", 3)), "y": (r.FLOAT, ("batch", 3))},
    )


def external_model():
    weights = onnx.numpy_helper.from_array(np.arange(4096, dtype=np.float32).reshape(4, 1024), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return r.model([node], {"x": (r.FLOAT, ("batch", 4))}, {"y": (r.FLOAT, ("batch", 1024))}, [weights])


def first_row_model():
    keep = helper.make_tensor("keep", TensorProto.BOOL, [1], [True])
    node = helper.make_node("Compress", ["x", "keep"], ["y"], axis=0)
    return r.model([node], {"x": (r.FLOAT, ("batch", 4))}, {"y": (r.FLOAT, ("rows", 4))}, [keep])


def sequence_model():
    return r.model(
        [helper.make_node("Add", ["x", "start"], ["y"])],
        {"x": (r.FLOAT, ("batch", 1)), "start": (r.FLOAT, ("batch", 1))},
        {"y": (r.FLOAT, ("batch", 1))},
    )


def good_models(root):
    plain = r.io({"x": "TYPE_FP32[4]"}, {"y": "TYPE_FP32[4]"})
    names = [name.lower() for name in TYPES]
    r.add(
        root,
        "types",
        types_model(),
        "max_batch_size: 8\n"
        + r.io(
            {f"in_{name}": f"TYPE_{name.upper()}[3]" for name in names},
            {f"out_{name}": f"TYPE_{name.upper()}[3]" for name in names},
        ),
    )
    r.add(root, "auto", r.doubler())
    r.add(root, "auto_more", r.doubler(), "max_batch_size: 16\n")
    r.add(root, "auto_fixed", r.doubler((2, 3)))
    r.add(root, "auto_scalar", r.doubler(("batch",)))
    r.add(
        root,
        "strings",
        r.one_op("Identity", r.STRING, ("batch", 2)),
        "max_batch_size: 8\n" + GATHER + r.io({"x": "TYPE_STRING[2]"}, {"y": "TYPE_STRING[2]"}),
    )
    r.add(root, "rank0", r.doubler(()), r.io({"x": "TYPE_FP32[1]"}, {"y": "TYPE_FP32[1]"}))
    r.add(
        root,
        "optional",
        optional_model(),
        r.io({"x": "TYPE_FP32[4]", "bias": "TYPE_FP32[4]; optional: true"}, {"y": "TYPE_FP32[4]"}),
    )
    lookup = r.io({"index": "TYPE_INT64[-1]"}, {"y": "TYPE_FP32[-1,2]"})
    r.add(root, "lookup", r.lookup(), "max_batch_size: 8\n" + GATHER + lookup)
    external = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 0}
    files = r.io({"x": "TYPE_FP32[4]"}, {"y": "TYPE_FP32[1024]"})
    r.add(root, "external", external_model(), "max_batch_size: 4\n" + files, **external)
    r.add(root, "renamed", r.doubler(), 'default_model_filename: "net/other.onnx"\n', filename="net/other.onnx")
    r.add(root, "folder", r.doubler(), 'default_model_filename: "net"\n', filename="net/model.onnx")
    r.add(
        root,
        "options",
        r.doubler(),
        "max_batch_size: 4\n"
        + plain
        + PARAMETERS
        + parameters(intra_op_thread_count=1, inter_op_thread_count=2, execution_mode=1, enable_mem_arena=1)
        + parameters(**{"enable_mem_pattern": "false", "session.intra_op.allow_spinning": "0"})
        + parameters(**{"memory.enable_memory_arena_shrinkage": "cpu:0", "somebody_elses": "value"}),
    )
    r.add(
        root,
        "bfloat16",
        bfloat16_model(),
        "max_batch_size: 4\n" + r.io({"x": "TYPE_BF16[3]"}, {"same": "TYPE_BF16[3]", "y": "TYPE_FP32[3]"}),
    )
    r.add(root, "rows", first_row_model(), "max_batch_size: 4\n" + plain)
    r.add(root, "no_arena", r.doubler(), "max_batch_size: 4\n" + plain + NO_ARENA)
    r.add(
        root,
        "sequence",
        sequence_model(),
        "max_batch_size: 4\n"
        'sequence_batching { control_input [ { name: "start" control [ { kind: CONTROL_SEQUENCE_START '
        "fp32_false_true: [0, 100] } ] } ] }\n" + r.io({"x": "TYPE_FP32[1]"}, {"y": "TYPE_FP32[1]"}),
    )
    r.add(root, "reshaped", r.doubler(("batch", 2, 2)), "max_batch_size: 4\n" + reshaped())
    r.add(
        root, "instances", r.doubler(), "max_batch_size: 4\n" + plain + "instance_group [{ count: 2 kind: KIND_CPU }]"
    )
    (root / "chain" / "1").mkdir(parents=True)
    (root / "chain" / "config.pbtxt").write_text(ensemble())


def reshaped():
    shape = "; reshape { shape: [2, 2] }"
    return r.io({"x": f"TYPE_FP32[4]{shape}"}, {"y": f"TYPE_FP32[4]{shape}"})


def ensemble():
    maps = 'input_map {{ key: "x" value: "{}" }} output_map {{ key: "y" value: "{}" }}'
    step = '{{ model_name: "{}" model_version: -1 ' + maps + " }}"
    steps = step.format("instances", "a", "b") + ", " + step.format("options", "b", "c")
    return (
        'platform: "ensemble"\nmax_batch_size: 4\n'
        + r.io({"a": "TYPE_FP32[4]"}, {"c": "TYPE_FP32[4]"})
        + f"ensemble_scheduling {{ step [ {steps} ] }}\n"
    )


def bad_models(root):
    plain = r.io({"x": "TYPE_FP32[4]"}, {"y": "TYPE_FP32[4]"})
    batch = "max_batch_size: 4\n"
    r.add(root, "bad_input", r.doubler(), batch + r.io({"z": "TYPE_FP32[4]"}, {"y": "TYPE_FP32[4]"}))
    r.add(root, "bad_output", r.doubler(), batch + r.io({"x": "TYPE_FP32[4]"}, {"z": "TYPE_FP32[4]"}))
    r.add(root, "bad_type", r.doubler(), batch + r.io({"x": "TYPE_INT32[4]"}, {"y": "TYPE_FP32[4]"}))
    r.add(root, "bad_dims", r.doubler(), batch + r.io({"x": "TYPE_FP32[5]"}, {"y": "TYPE_FP32[4]"}))
    r.add(root, "bad_batch", r.doubler((2, 4)), batch + plain)
    r.add(root, "bad_autofill", r.doubler((2, 4)), batch)
    r.add(root, "bad_count", sequence_model(), batch + r.io({"x": "TYPE_FP32[1]"}, {"y": "TYPE_FP32[1]"}))
    r.add(root, "bad_file", b"not an ONNX file", batch + plain)
    r.add(root, "no_file", None, batch + plain)
    (root / "no_file" / "1").mkdir(exist_ok=True)
    r.add(root, "bad_parameter", r.doubler(), batch + plain + parameters(intra_op_thread_count="many"))
    r.add(root, "bad_mode", r.doubler(), batch + plain + parameters(execution_mode=2))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    good_models(root)
    bad_models(root)
    runtime = embedded_runtime()
    runtime = replace(runtime, env={**runtime.env, "TRITON_REPO_OPENVINO": ""})  # not fetched for the one that asks
    with Server(root, runtime=runtime, exit_on_error=False, extra_args=["--model-load-thread-count=4"]) as running:
        yield running


@pytest.fixture(scope="module")
def clients(server):
    with (
        http.InferenceServerClient(server.http_url, concurrency=8) as over_http,
        grpc.InferenceServerClient(server.grpc_url) as over_grpc,
    ):
        yield {"http": (http, over_http), "grpc": (grpc, over_grpc)}


@pytest.fixture(scope="module")
def infer(clients):
    """``infer(model, x=array, ...)`` -> ``{name: array}``, over gRPC unless told otherwise."""

    def call(name, protocol="grpc", outputs=None, types=None, **arrays):
        library, client = clients[protocol]
        inputs = []
        for key, array in arrays.items():
            kind = (types or {}).get(key) or ("BYTES" if array.dtype.kind in "OS" else None)
            kind = kind or next(triton for triton, (_, numpy) in TYPES.items() if array.dtype == numpy)
            inputs.append(library.InferInput(key, list(array.shape), kind))
            inputs[-1].set_data_from_numpy(array)
        wanted = None if outputs is None else [library.InferRequestedOutput(output) for output in outputs]
        answer = client.infer(name, inputs, outputs=wanted)
        response = answer.get_response()
        names = [o["name"] for o in response["outputs"]] if protocol == "http" else [o.name for o in response.outputs]
        return {output: answer.as_numpy(output) for output in names}

    return call


def together(calls):
    """Runs the calls at once; their results, or the exceptions that they raised."""

    def outcome(call):
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def executions(clients, name):
    _, client = clients["http"]
    stats = client.get_inference_statistics(name)["model_stats"][0]
    return stats["execution_count"], stats["inference_count"]


def in_one_batch(clients, name, calls):
    """:func:`together`, again until the server (which waits three seconds for the last) had them in one batch."""
    for _ in range(5):
        before, _ = executions(clients, name)
        answers = together(calls)
        if executions(clients, name)[0] == before + 1:
            return answers
    raise AssertionError("the requests were never batched together")


def rand(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


# --- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_type_comes_back_as_it_went(infer, protocol):
    random = np.random.default_rng(1)
    arrays = {f"in_{name.lower()}": random.integers(0, 2, (2, 3)).astype(numpy) for name, (_, numpy) in TYPES.items()}
    arrays["in_int64"][0, 0] = -(2**60)
    arrays["in_fp64"][1, 2] = 1e300
    answers = infer("types", protocol, **arrays)
    assert len(answers) == len(TYPES)
    for name, array in arrays.items():
        answer = answers[name.replace("in_", "out_")]
        assert answer.dtype == array.dtype
        np.testing.assert_array_equal(answer, array)


def test_only_the_outputs_asked_for_come_back_whatever_others_ask_for(infer):
    arrays = {f"in_{name.lower()}": np.ones((1, 3), numpy) for name, (_, numpy) in TYPES.items()}
    for outputs in (["out_int8"], ["out_fp16", "out_bool"], None, ["out_fp32"], None):
        arrays["in_fp32"] = arrays["in_fp32"] + 1
        answers = infer("types", outputs=outputs, **arrays)
        assert len(answers) == len(outputs or TYPES)
        for name, answer in answers.items():
            np.testing.assert_array_equal(answer, arrays[name.replace("out_", "in_")])


def test_answers_are_the_requests_own_however_they_are_batched(infer, clients):
    """Responses are reused between batches: none may show another's values, in any mixture of sizes."""
    before = executions(clients, "auto_more")
    random = np.random.default_rng(3)
    for _ in range(40):
        arrays = [random.standard_normal((random.integers(1, 4), 4)).astype(np.float32) for _ in range(6)]
        answers = together([lambda a=a: infer("auto_more", x=a)["y"] for a in arrays])
        for array, answer in zip(arrays, answers, strict=True):
            np.testing.assert_array_equal(answer, array + array)
    assert executions(clients, "auto_more")[0] - before[0] < 40 * 6, "none of them were batched"


def test_large_answers_take_the_ordinary_way(infer):
    array = rand(4, 4)
    weights = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    for _ in range(3):
        np.testing.assert_allclose(infer("external", x=array)["y"], array @ weights, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_strings_both_ways(infer, protocol):
    array = np.array([["", "plain"], ["Grüße 🙂", "a\0b"]], dtype=np.object_)
    answer = infer("strings", protocol, x=array)["y"]
    assert [[element.decode() for element in row] for row in answer] == array.tolist()


def test_strings_batch_and_a_bad_one_fails_alone(infer, clients):
    good = [np.array([[f"one {i}", "two"]], dtype=np.object_) for i in range(7)]
    bad = np.array([[b"\xff\x00\xfe", b"two"]], dtype=np.object_)
    calls = [lambda a=a: infer("strings", x=a)["y"] for a in [*good, bad]]
    answers = in_one_batch(clients, "strings", calls)
    for array, answer in zip(good, answers, strict=False):
        assert answer.tolist() == [[element.encode() for element in array[0]]]
    assert "is not UTF-8" in str(answers[-1])


def test_bfloat16(infer):
    array = np.array([[1.0, -2.5, 0.0], [3.0, 1e30, 7.0]], dtype=ml_dtypes.bfloat16)
    for _ in range(3):
        array = array + array
        answers = infer("bfloat16", types={"x": "BF16"}, x=array)
        np.testing.assert_array_equal(answers["y"], array.astype(np.float32))
        np.testing.assert_array_equal(answers["same"].astype(np.float32), array.astype(np.float32))


def test_optional_input_takes_the_models_own_value(infer):
    x = rand(4)
    np.testing.assert_array_equal(infer("optional", x=x)["y"], x + 10)
    np.testing.assert_array_equal(infer("optional", x=x, bias=2 * x)["y"], x + 2 * x)


def test_rank_zero(infer):
    answer = infer("rank0", x=np.array([21.0], np.float32))["y"]
    assert answer.shape == (1,)
    assert answer[0] == 42


def test_reshape(infer):
    array = rand(3, 4)
    np.testing.assert_array_equal(infer("reshaped", x=array)["y"], 2 * array)


def test_dimension_of_size_zero(infer):
    answer = infer("lookup", index=np.empty((2, 0), np.int64))["y"]
    assert answer.shape == (2, 0, 2)


@pytest.mark.parametrize("name", ["external", "renamed", "folder", "options", "auto", "auto_more"])
def test_files_and_options(infer, name):
    array = rand(2, 4)
    expected = array @ np.arange(4096, dtype=np.float32).reshape(4, 1024) if name == "external" else 2 * array
    np.testing.assert_allclose(infer(name, x=array)["y"], expected, rtol=1e-4, atol=1e-4)


def test_ensemble_and_instances(infer):
    array = rand(2, 4)
    np.testing.assert_array_equal(infer("chain", a=array)["c"], 4 * array)


def test_sequence_control_reaches_the_model(clients):
    library, client = clients["grpc"]
    answers = []
    for step in range(3):
        x = library.InferInput("x", [1, 1], "FP32")
        x.set_data_from_numpy(np.array([[step]], np.float32))
        answer = client.infer("sequence", [x], sequence_id=5, sequence_start=step == 0, sequence_end=step == 2)
        answers.append(answer.as_numpy("y").item())
    assert answers == [100, 1, 2]


# --- errors of requests ----------------------------------------------------------------------------------------


def test_a_bad_request_fails_alone_and_its_batch_mates_do_not(infer, clients):
    values = [[1, 2], [3, 4], [5, 99], [6, 7], [8, 9], [0, 1], [2, 3], [4, 5]]
    calls = [lambda v=v: infer("lookup", index=np.array([v], np.int64))["y"] for v in values]
    answers = in_one_batch(clients, "lookup", calls)
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    for value, answer in zip(values, answers, strict=True):
        if 99 in value:
            assert "onnx runtime error" in str(answer)
            assert "out of data bounds" in str(answer)
        else:
            np.testing.assert_array_equal(answer, table[[value]])


def test_requests_of_different_lengths_at_once(infer):
    values = [[1], [1, 2], [3], [4, 5], [6, 7, 8]]
    answers = together([lambda v=v: infer("lookup", index=np.array([v], np.int64))["y"] for v in values])
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    for value, answer in zip(values, answers, strict=True):
        np.testing.assert_array_equal(answer, table[[value]])


def test_an_output_without_the_batch_dimension_is_an_error_not_garbage(infer):
    with pytest.raises(Exception, match=r"output 'y' has shape \[1, 4\] for a batch of 2: its first dimension"):
        infer("rows", x=rand(2, 4))


def test_memory_options_reach_the_runtime(infer):
    with pytest.raises(Exception, match="Did not find an arena based allocator"):
        infer("no_arena", x=rand(2, 4))


# --- loading ---------------------------------------------------------------------------------------------------


def config_of(clients, name):
    return clients["http"][1].get_model_config(name)


def test_completed_from_the_file(clients):
    config = config_of(clients, "auto")
    assert config["max_batch_size"] == 4
    assert "dynamic_batching" in config
    assert [(i["name"], i["data_type"], i["dims"]) for i in config["input"]] == [("x", "TYPE_FP32", [4])]
    assert [(o["name"], o["data_type"], o["dims"]) for o in config["output"]] == [("y", "TYPE_FP32", [4])]
    assert config_of(clients, "auto_more")["max_batch_size"] == 16
    assert "dynamic_batching" in config_of(clients, "auto_more")


def test_completed_without_batching(clients, infer):
    config = config_of(clients, "auto_fixed")
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [2, 3]
    assert "dynamic_batching" not in config
    array = rand(2, 3)
    np.testing.assert_array_equal(infer("auto_fixed", x=array)["y"], 2 * array)


def test_completed_scalars_are_reshaped(clients, infer):
    config = config_of(clients, "auto_scalar")
    assert config["input"][0]["dims"] == [1]
    assert config["input"][0]["reshape"] == {"shape": []}
    np.testing.assert_array_equal(infer("auto_scalar", x=np.array([[3.0]], np.float32))["y"], [[6.0]])


def test_nothing_is_completed_where_inputs_and_outputs_are_given(clients):
    assert "dynamic_batching" not in config_of(clients, "options")


def test_accelerators_that_are_not_here_are_named_in_the_log(server):
    log = server.log()
    assert "model 'options': gpu_execution_accelerator 'tensorrt' is ignored" in log
    assert "model 'options': Execution Accelerator 'openvino' is ignored" in log
    assert "model 'options': unknown Execution Accelerator 'warp_drive' is ignored" in log


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bad_input", "unable to load model 'bad_input', unexpected inference input 'z', allowed inputs are: x"),
        ("bad_output", "unable to load model 'bad_output', unexpected inference output 'z', allowed outputs are: y"),
        (
            "bad_type",
            "unable to load model 'bad_type', configuration expects datatype TYPE_INT32 for input 'x', "
            "model provides TYPE_FP32",
        ),
        (
            "bad_dims",
            "model 'bad_dims', tensor 'x': the model expects 2 dimensions (shape [-1,4]) but the model configuration "
            "specifies 2 dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit "
            "tensor shape, making complete shape [-1,5])",
        ),
        (
            "bad_batch",
            "model 'bad_batch', tensor 'x': for the model to support batching the shape should have at least 1 "
            "dimension and the first dimension must be -1; but shape expected by the model is [2,4]",
        ),
        ("bad_autofill", "model does not support batching while non-zero max_batch_size is specified"),
        ("bad_count", "configuration expects 1 inputs, model provides 2 (also needed: start)"),
        ("bad_file", "unable to load model 'bad_file': onnx runtime error:"),
        ("no_file", "no_file/1/model.onnx"),
        ("bad_parameter", "failed to convert parameter 'intra_op_thread_count' to an integer: its value is 'many'"),
        ("bad_mode", "Expected values for execution_mode are 0 or 1 but got 2."),
    ],
)
def test_why_a_model_cannot_be_loaded(server, name, reason):
    assert reason in server.failures[name]


def test_default_max_batch_size_is_the_servers(tmp_path):
    r.add(tmp_path, "auto", r.doubler())
    setting = "--backend-config=onnxruntime,default-max-batch-size=9"
    with (
        Server(tmp_path, extra_args=[setting]) as running,
        http.InferenceServerClient(running.http_url) as client,
    ):
        assert client.get_model_config("auto")["max_batch_size"] == 9
