"""The ONNX Runtime backend's parts without a server: settings, providers, signatures, responses."""

import contextlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import serving
from serving.backends.onnxruntime.ort_backend import sessions, settings, signature
from serving.backends.onnxruntime.ort_backend.batching import Batcher
from serving.backends.onnxruntime.ort_backend.responses import ResponseMaker
from serving.backends.onnxruntime.ort_backend.settings import Accelerator, ConfigError, Settings
from serving.backends.onnxruntime.ort_backend.strings import decode_strings

CPU = ["AzureExecutionProvider", "CPUExecutionProvider"]
GPU = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


class Tensor:
    """What the stub's tensor does, as far as it matters here: sent once, it lives in another place."""

    def __init__(self, name, array):
        self._name, self._array, self.copies = name, np.ascontiguousarray(array), 0

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array

    def shape(self):
        return list(self._array.shape)

    def to_dlpack(self):
        return self._array.__dlpack__()

    def send(self):
        if not self.copies:
            self.copies, self._array = 1, self._array.copy()
        return self._array


class Response:
    def __init__(self, tensors, error=None):
        self.tensors, self.error = tensors, error


utils = types.SimpleNamespace(Tensor=Tensor, InferenceResponse=Response, TritonError=str)


def sent(responses):
    """What the server reads from these responses while it has them."""
    return [{tensor.name(): tensor.send().copy() for tensor in response.tensors} for response in responses]


# --- settings ---------------------------------------------------------------------------------------------------


def config(**parameters):
    return {"name": "m", "parameters": {key: {"string_value": value} for key, value in parameters.items()}}


def test_settings_default_to_the_official_ones():
    assert settings.settings_from_config({"name": "m"}, Path("m/1")) == Settings()


def test_settings_read_everything():
    made = settings.settings_from_config(
        {
            **config(
                intra_op_thread_count="3",
                inter_op_thread_count="2",
                execution_mode="1",
                enable_mem_arena="0",
                enable_mem_pattern="True",
                gpu_mem_limit="1000",
                **{"session.disable_prepacking": "1", "memory.enable_memory_arena_shrinkage": "cpu:0"},
            ),
            "optimization": {
                "graph": {"level": -1},
                "execution_accelerators": {
                    "cpu_execution_accelerator": [{"name": "openvino", "parameters": {"a": "b"}}]
                },
            },
            "model_operations": {"op_library_filename": ["custom.so"]},
        },
        Path("m/1"),
    )
    assert made == Settings(
        graph_level=-1,
        execution_mode=1,
        intra_op_thread_count=3,
        inter_op_thread_count=2,
        enable_mem_arena=False,
        enable_mem_pattern=True,
        session_entries={"session.disable_prepacking": "1"},
        run_entries={"memory.enable_memory_arena_shrinkage": "cpu:0"},
        cpu_accelerators=(Accelerator("openvino", {"a": "b"}),),
        cuda_options={"gpu_mem_limit": "1000"},
        op_libraries=("custom.so",),
    )


def test_a_library_of_operators_is_looked_for_beside_the_model(tmp_path):
    version = tmp_path / "m/1"
    version.mkdir(parents=True)
    for path in (version / "in_both.so", tmp_path / "m/in_both.so", tmp_path / "m/in_model.so"):
        path.write_bytes(b"")
    names = ["in_both.so", "in_model.so", "elsewhere.so", "/opt/ops.so"]
    made = settings.op_libraries({"model_operations": {"op_library_filename": names}}, version)
    assert made == (str(version / "in_both.so"), str(tmp_path / "m/in_model.so"), "elsewhere.so", "/opt/ops.so")


def test_a_boolean_that_is_none_is_refused():
    with pytest.raises(
        ConfigError, match="'enable_mem_arena' to a boolean: its value is 'maybe', not 0, 1, true, false"
    ):
        settings.settings_from_config(config(enable_mem_arena="maybe"), Path("m/1"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--backend-config=onnxruntime,default-max-batch-size=8"], "8"),
        (["--backend-config", "onnxruntime,default-max-batch-size=8"], "8"),
        (["--backend-config=default-max-batch-size=2"], "2"),
        (["--backend-config=onnxruntime,default-max-batch-size=8", "--backend-config=default-max-batch-size=2"], "8"),
        (["--backend-config=python,default-max-batch-size=8", "--http-port=1"], None),
        ([], None),
    ],
)
def test_backend_options_from_the_servers_command_line(arguments, expected):
    assert settings.backend_options(["tritonserver", *arguments]).get("default-max-batch-size") == expected


# --- sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (-1, "ORT_ENABLE_BASIC"),
        (0, "ORT_ENABLE_ALL"),
        (1, "ORT_ENABLE_EXTENDED"),
        (2, "ORT_DISABLE_ALL"),
        (7, "ORT_ENABLE_ALL"),
    ],
)
def test_session_options(level, name):
    ort = pytest.importorskip("onnxruntime")
    options = sessions.session_options(
        ort,
        Settings(
            graph_level=level,
            execution_mode=1,
            intra_op_thread_count=3,
            inter_op_thread_count=2,
            enable_mem_arena=False,
            enable_mem_pattern=False,
            session_entries={"session.intra_op.allow_spinning": "1"},
        ),
    )
    assert options.graph_optimization_level == getattr(ort.GraphOptimizationLevel, name)
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 2)
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"


def test_gpu_instance_without_cuda_is_a_clear_error():
    with pytest.raises(ConfigError) as caught:
        sessions.choose_providers("m", Settings(), "GPU", 0, CPU)
    assert "its instance group is KIND_GPU, and the ONNX Runtime of this server has no CUDAExecutionProvider" in str(
        caught.value
    )
    assert "Use KIND_CPU or KIND_AUTO" in str(caught.value)


def test_gpu_instance_with_accelerators():
    asked = Settings(
        gpu_accelerators=(
            Accelerator("tensorrt", {"precision_mode": "FP16", "max_workspace_size_bytes": "1", "trt_dla_core": "0"}),
            Accelerator("cuda", {"cudnn_conv_use_max_workspace": "0"}),
            Accelerator("nonsense"),
        )
    )
    chosen = sessions.choose_providers("m", asked, "GPU", 1, GPU)
    assert chosen.names == GPU
    tensorrt, cuda, _ = chosen.options
    assert tensorrt == {
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "1",
        "trt_dla_core": "0",
        "device_id": "1",
    }
    assert cuda == {"cudnn_conv_use_max_workspace": "0", "device_id": "1"}
    assert chosen.warnings == ["model 'm': unknown Execution Accelerator 'nonsense' is ignored"]


def test_older_cuda_parameters():
    asked = Settings(cuda_options={"cudnn_conv_algo_search": "1", "gpu_mem_limit": "1000"})
    chosen = sessions.choose_providers("m", asked, "GPU", 0, GPU)
    assert chosen.options[0] == {"cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit": "1000", "device_id": "0"}
    with pytest.raises(ConfigError, match="unsupported cudnn_conv_algo_search value '3' is requested"):
        sessions.choose_providers("m", Settings(cuda_options={"cudnn_conv_algo_search": "3"}), "GPU", 0, GPU)


def test_openvino_gets_the_threads_of_the_model():
    available = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    asked = Settings(cpu_accelerators=(Accelerator("openvino"),), intra_op_thread_count=2)
    chosen = sessions.choose_providers("m", asked, "CPU", 0, available)
    assert chosen.names == available and chosen.warnings == []
    assert chosen.options[0] == {"device_type": "CPU", "num_of_threads": "2"}
    asked = Settings(cpu_accelerators=(Accelerator("openvino", {"num_of_threads": "1"}),), intra_op_thread_count=2)
    assert sessions.choose_providers("m", asked, "CPU", 0, available).options[0]["num_of_threads"] == "1"
    missing = sessions.choose_providers("m", asked, "CPU", 0, CPU)
    assert missing.names == ["CPUExecutionProvider"] and "no OpenVINOExecutionProvider" in missing.warnings[0]


@pytest.mark.parametrize(
    ("accelerators", "kind", "first"), [(("openvino",), "CPU", True), ((), "CPU", False), (("openvino",), "GPU", False)]
)
def test_the_build_with_openvino_is_taken_where_a_cpu_model_asks_for_it(
    accelerators, kind, first, monkeypatch, tmp_path
):
    monkeypatch.setenv("TRITON_REPO_OPENVINO", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sessions.importlib, "import_module", lambda name: (name, sys.path[0]))
    asked = Settings(cpu_accelerators=tuple(map(Accelerator, accelerators)))
    name, path = sessions.load_onnxruntime(asked, kind)
    assert name == "onnxruntime" and (path == str(tmp_path)) is first


def test_without_the_build_with_openvino_the_plain_one_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", before := list(sys.path))
    for value in ("", str(tmp_path / "nothing there")):
        monkeypatch.setenv("TRITON_REPO_OPENVINO", value)
        sessions.load_onnxruntime(Settings(cpu_accelerators=(Accelerator("openvino"),)), "CPU")
        assert sys.path == before


def test_unknown_tensorrt_precision():
    asked = Settings(gpu_accelerators=(Accelerator("tensorrt", {"precision_mode": "FP4"}),))
    with pytest.raises(ConfigError, match="unsupported precision mode 'FP4' is requested"):
        sessions.choose_providers("m", asked, "GPU", 0, GPU)


# --- signatures -------------------------------------------------------------------------------------------------


def sig(inputs, outputs, optional=()):
    def infos(tensors):
        return {name: signature.TensorInfo(name, kind, tuple(shape)) for name, kind, shape in tensors}

    return signature.Signature(infos(inputs), infos(optional), infos(outputs))


def test_completion_leaves_a_scheduler_alone():
    model = sig([("x", "TYPE_FP32", (-1, 3))], [("y", "TYPE_INT64", (-1, -1))])
    made = {"name": "m", "max_batch_size": 8, "sequence_batching": {}}
    assert signature.complete(made, model, 4) == []
    assert "dynamic_batching" not in made
    assert made["output"] == [{"name": "y", "data_type": "TYPE_INT64", "dims": [-1]}]


@pytest.mark.parametrize(("default", "scheduler"), [(0, False), (1, False), (2, True)])
def test_completion_takes_the_default_batch_size(default, scheduler):
    model = sig([("x", "TYPE_FP32", (-1,))], [("y", "TYPE_FP32", (-1,))])
    made = {"name": "m", "max_batch_size": 0}
    (warning,) = signature.complete(made, model, default)
    assert f"autofilled max_batch_size to {default} for model 'm'" in warning
    assert made["max_batch_size"] == default
    assert ("dynamic_batching" in made) is scheduler


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"sequence_batching": {"state": [{}]}}, "implicit state"),
        ({"batch_input": [{}]}, "ragged batches"),
        ({"max_batch_size": 4, "input": [{"optional": True}]}, "optional input 'x' is not supported for models that"),
        ({"input": [{"dims": [2]}]}, "model 'm', tensor 'x': the model expects 2 dimensions"),
        (
            {"sequence_batching": {"control_input": [{"name": "start", "control": [{}]}]}},
            "configuration specified sequence control 'start', but model does not provide that input",
        ),
    ],
)
def test_what_is_refused(extra, message):
    tensor = [("x", "TYPE_FP32", (-1, 3))]
    optional = tensor if extra.get("input", [{}])[0].get("optional") else ()
    model = sig([] if optional else tensor, [("y", "TYPE_FP32", (-1, 3))], optional)
    base = {"name": "x", "data_type": "TYPE_FP32", "dims": [3]}
    made = {"name": "m", "max_batch_size": 1, "output": [{**base, "name": "y"}], **extra}
    made["input"] = [{**base, **io} for io in extra.get("input", [{}])]
    with pytest.raises(ConfigError, match=message):
        signature.check(made, model)


@pytest.mark.parametrize(
    ("control", "kind", "shape", "message"),
    [
        ({"fp32_false_true": [0, 1]}, "TYPE_FP32", (-1, 1), ""),
        ({"data_type": "TYPE_UINT64", "int32_false_true": []}, "TYPE_UINT64", (-1, 1), ""),
        ({"int32_false_true": [0, 1]}, "TYPE_FP32", (-1, 1), "the model expects data-type TYPE_FP32 but the model con"),
        ({"bool_false_true": [False, True]}, "TYPE_BOOL", (-1, 2), r"'START' in model has dims \[2\] but dims \[1\]"),
        ({"bool_false_true": [False, True]}, "TYPE_BOOL", (-1,), r"'START' in model has dims \[\] but dims \[1\]"),
    ],
)
def test_a_sequence_control_is_held_against_the_model(control, kind, shape, message):
    model = sig([("x", "TYPE_FP32", (-1, 3)), ("START", kind, shape)], [])
    made = {"name": "m", "max_batch_size": 1, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]}
    made["sequence_batching"] = {"control_input": [{"name": "START", "control": [control]}]}
    with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
        signature.check(made, model)


def test_a_sequence_of_tensors_is_no_tensor():
    node = types.SimpleNamespace(name="s", type="seq(tensor(float))", shape=[])
    session = types.SimpleNamespace(
        get_inputs=lambda: [node], get_outputs=lambda: [], get_overridable_initializers=lambda: []
    )
    with pytest.raises(ConfigError, match=r"Unsupported ONNX Type 'seq\(tensor\(float\)\)' for I/O 's'"):
        signature.signature_of(session)


# --- responses --------------------------------------------------------------------------------------------------


def test_responses_are_reused_and_right():
    maker = ResponseMaker(utils, ["y"])
    seen = []
    for step in range(4):
        maker.begin()
        block = np.arange(6, dtype=np.float32).reshape(3, 2) + 10 * step
        responses = maker.many([block], 3)
        np.testing.assert_array_equal([answer["y"][0] for answer in sent(responses)], block)
        seen.append([id(response) for response in responses])
    assert seen[0] == seen[1] == seen[2] == seen[3]


def test_responses_of_one_batch_never_share_a_tensor():
    maker = ResponseMaker(utils, ["y"])
    for _ in range(3):
        maker.begin()
        parts = [np.full((1, 2), float(i), np.float32) for i in range(5)]
        responses = [maker.one([part]) for part in parts]
        answers = sent(responses)
        assert [answer["y"][0, 0] for answer in answers] == [0, 1, 2, 3, 4]


def test_tensors_that_were_left_out_are_followed_when_they_are_sent_later():
    """Of several outputs a request may ask for some: the others stay where they were made."""
    maker = ResponseMaker(utils, ["a", "b"])
    for step, wanted in enumerate([{"a"}, {"b"}, {"a"}, {"a", "b"}, {"b"}]):
        maker.begin()
        values = {"a": np.full((1, 2), step, np.float32), "b": np.full((1, 3), -step, np.int64)}
        response = maker.one(list(values.values()))
        response.tensors = [tensor for tensor in response.tensors if tensor.name() in wanted]
        (answer,) = sent([response])
        assert answer.keys() == wanted
        for name, array in answer.items():
            np.testing.assert_array_equal(array, values[name])


def test_the_budget_holds():
    maker = ResponseMaker(utils, ["y"], budget_bytes=1000)
    for width in [10, 20, 240, 1, 300, 10, 250]:
        for _ in range(2):
            maker.begin()
            block = np.random.default_rng(width).standard_normal((1, width)).astype(np.float32)
            np.testing.assert_array_equal(sent(maker.many([block], 1))[0]["y"], block)
            kept = sum(view.nbytes for shelf in maker._shelves.values() for view in shelf.views)
            assert kept <= 1000
            assert kept == maker._kept_bytes


def test_zero_rows():
    maker = ResponseMaker(utils, ["y"])
    maker.begin()
    assert sent([maker.one([np.empty((0, 3), np.float32)])])[0]["y"].shape == (0, 3)


# --- batches ----------------------------------------------------------------------------------------------------


def request(**arrays):
    return types.SimpleNamespace(inputs=lambda: [Tensor(name, array) for name, array in arrays.items()])


def test_a_batch_of_different_shapes_runs_shape_by_shape():
    runs = []

    def run(names, feed):
        runs.append(feed["x"].shape)
        return [feed["x"] * 2]

    arrays = [np.full((1, width), width, np.float32) for width in (2, 3, 2, 3, 4)]
    batcher = Batcher(utils, run, ["y"], batched=True)
    answers = sent(batcher.execute([request(x=array) for array in arrays]))
    for array, answer in zip(arrays, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * array)
    assert sorted(runs) == [(1, 4), (2, 2), (2, 3)]


def test_a_run_that_fails_is_repeated_one_by_one():
    def run(names, feed):
        if (feed["x"] < 0).any():
            raise RuntimeError("negative")
        return [feed["x"]]

    batcher = Batcher(utils, run, ["y"], batched=True)
    responses = batcher.execute([request(x=np.array([[value]], np.float32)) for value in (1, -2, 3)])
    assert [response.error for response in responses] == [None, "onnx runtime error: negative", None]
    assert [answer["y"].item() for answer in sent([responses[0], responses[2]])] == [1, 3]


def test_bytes_that_are_no_text_go_in_as_they_are():
    array = np.array([[b"\xff\xfe", b"ok"]], dtype=np.object_)
    assert decode_strings("x", array).tolist() == array.tolist()
    with pytest.raises(ValueError, match="string input 'x' is not UTF-8, and holds zero bytes"):
        decode_strings("x", np.array([b"\xff\x00"], dtype=np.object_))


# --- numpy ------------------------------------------------------------------------------------------------------


def test_numpy_2_is_refused(monkeypatch):
    folder = Path(serving.__file__).parent / "backends/onnxruntime"
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", types.ModuleType("triton_python_backend_utils"))
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("onnxruntime_backend_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.np, "__version__", "2.4.6")
    with pytest.raises(
        RuntimeError, match=r"numpy 2\.4\.6 is installed .* corrupts tensors with numpy 2: install numpy"
    ):
        module.TritonPythonModel().initialize({})
    monkeypatch.setattr(module.np, "__version__", "1.26.4")
    module.require_old_numpy()
