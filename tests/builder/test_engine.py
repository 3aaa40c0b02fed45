"""What an engine is for and how large its inputs may be: GPUs, profiles, timing caches, and what a machine lacks."""

import json
from pathlib import Path

import pytest

from builder.artifact import Artifact
from builder.config.fields import fields_of
from builder.config.model_config import ModelConfig
from builder.config.render import parse, render
from builder.engine import EngineOptions, available, engine_file, profiles_of, resolve_targets
from builder.engine.building import capabilities_here, engine_from_onnx, fitting
from builder.engine.device import Gpu
from builder.engine.device import parse as parse_gpus
from builder.engine.library import Missing, check_version, library_version, too_old
from builder.engine.targets import ahead_of_time, capability_of, cards
from builder.engine.timing_cache import Origin, sign, timing_cache
from builder.errors import EngineError, UnavailableError
from builder.tensors import Interface, parse_tensor
from builder.variants import VARIANTS

A10 = Gpu("NVIDIA A10", "8.6", "580.82.07")


def refused(call, *args, **kwargs):
    with pytest.raises(EngineError) as caught:
        call(*args, **kwargs)
    assert caught.value.fix and caught.value.expected
    return str(caught.value)


@pytest.mark.parametrize(
    "name, capability",
    [
        ("sm86", "8.6"), ("SM_86", "8.6"), ("8.6", "8.6"), ("compute_90", "9.0"), ("sm120", "12.0"), ("t4", "7.5"),
        ("A10G", "8.6"), ("NVIDIA L4", "8.9"), ("Tesla T4", "7.5"), ("h100", "9.0"), ("b200", "10.0"),
        ("GeForce RTX 4090", "8.9"), ("rtx5090", "12.0"), ("RTX 6000 Ada", "8.9"), ("rtx 3090", "8.6"), ("a30", "8.0"),
    ],
)  # fmt: skip
def test_a_gpu_by_its_names(name, capability):
    assert capability_of(name) == capability


def test_no_card_is_in_the_table_twice_or_reads_as_an_architecture():
    assert len(cards()) == sum(map(len, json.loads(_gpus_text())["cards"].values()))
    assert all(capability_of(name) == capability for name, capability in cards().items())


def _gpus_text():
    import importlib.resources

    return importlib.resources.files("builder.engine").joinpath("gpus.json").read_text()


@pytest.mark.parametrize("name, meant", [("sm87x", "sm87"), ("l40z", "l40"), ("rtx4091", "rtx4090"), ("h10", "h100")])
def test_a_gpu_that_is_not_in_the_table(name, meant):
    text = refused(capability_of, name, where="models.yaml:7")
    assert f"unknown GPU {name!r}" in text and "models.yaml:7" in text and f"did you mean `{meant}" in text


def test_a_gpu_like_nothing_known_says_how_to_ask():
    assert "nvidia-smi --query-gpu" in refused(capability_of, "voodoo")
    assert "unknown GPU 'sm33'" in refused(capability_of, "sm33")


def test_targets_are_in_order_and_once():
    assert resolve_targets("tensorrt", ["l4", "sm86", "a10", "h100"]) == ("8.6", "8.9", "9.0")
    assert resolve_targets("tensorrt", []) == ()
    assert resolve_targets("tensorrt-rtx", []) == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert resolve_targets("tensorrt-rtx", ["t4"]) == ("7.5",) == ahead_of_time("tensorrt-rtx")[:1]


def test_what_cannot_be_built_ahead_of_time():
    text = refused(resolve_targets, "tensorrt-rtx", ["sm86", "h100"])
    assert "ahead of time for h100 (sm90)" in text and "sm75, sm80, sm86, sm89, sm120, sm121" in text
    assert "on a machine with h100" in text


def test_an_engine_of_tensorrt_is_for_the_gpu_that_is_there():
    assert capabilities_here((), A10, "none") == ("8.6",)
    assert capabilities_here(("8.6", "8.9"), A10, "ampere_plus") == ("8.6", "8.9")
    text = refused(capabilities_here, ("8.6", "8.9"), A10, "none")
    assert "for sm89 cannot be built on NVIDIA A10 (sm86)" in text and "ampere_plus" in text
    assert "cannot be built" in refused(capabilities_here, ("7.5",), A10, "ampere_plus")


def test_what_nvidia_smi_says():
    answer = "NVIDIA A10, 8.6, 580.82.07, GPU-1f\nNVIDIA H200, 9.0, 580.82.07, GPU-2e\nno devices\n"
    both = parse_gpus(answer)
    assert both == (Gpu("NVIDIA A10", "8.6", "580.82.07", "GPU-1f"), Gpu("NVIDIA H200", "9.0", "580.82.07", "GPU-2e"))
    assert fitting((), both) == both[0] == fitting(("8.9",), both) and fitting(("9.0",), both) == both[1]
    assert parse_gpus("NVIDIA-SMI has failed, because it, could not") == ()


# profiles


def interface(*inputs):
    tensors = tuple(parse_tensor(f"x{index}", text) for index, text in enumerate(inputs))
    return Interface(tensors, (parse_tensor("y", "float32[batch, 3]"),))


def test_a_profile_out_of_batch_and_ranges():
    text = interface("int64[batch, seq: 1..128]", "float32[batch, 3, 8]")
    assert profiles_of(text, max_batch=16, preferred=(4, 8)) == (
        {"x0": ((1, 1), (8, 128), (16, 128)), "x1": ((1, 3, 8), (8, 3, 8), (16, 3, 8))},
    )
    assert profiles_of(text, max_batch=16, typical={"seq": 32})[0]["x0"] == ((1, 1), (16, 32), (16, 128))
    assert profiles_of(text, max_batch=16, typical={"seq": 999})[0]["x0"][1] == (16, 128)


def test_a_range_counts_wherever_its_name_appears():
    text = interface("int64[batch, seq: 1..128]", "int64[batch, seq]")
    assert profiles_of(text, max_batch=4)[0]["x1"] == ((1, 1), (4, 128), (4, 128))
    wide = {"x1": {"min": [1, 1], "opt": [4, 200], "max": [4, 200]}}
    assert "leaves the range of `seq`" in refused(profiles_of, text, max_batch=4, explicit=[wide])


def test_explicit_profiles_go_first_and_the_rest_is_filled_in():
    text = interface("int64[batch, seq: 1..128]", "float32[batch, 3]")
    small = {"x0": {"min": [1, 1], "opt": [1, 16], "max": [1, 32]}, "x1": {"min": [1, 3], "opt": [1, 3], "max": [1, 3]}}
    large = {"x0": {"min": [1, 1], "opt": [8, 64], "max": [8, 128]}}
    assert profiles_of(text, max_batch=8, explicit=[small, large]) == (
        {"x0": ((1, 1), (1, 16), (1, 32)), "x1": ((1, 3), (1, 3), (1, 3))},
        {"x0": ((1, 1), (8, 64), (8, 128)), "x1": ((1, 3), (8, 3), (8, 3))},
    )


def test_a_profile_smaller_than_max_batch_size():
    written = {"x0": {"min": [1, 16], "opt": [4, 16], "max": [4, 16]}}
    text = refused(profiles_of, interface("float32[batch, 16]"), max_batch=8, explicit=[written])
    assert "`x0` is smaller than `max_batch_size`" in text
    assert "a largest batch of 8 or more" in text and "a largest batch of 4" in text and "batch: {max: 4}" in text


def test_a_profile_without_a_batch_of_one():
    written = {"x0": {"min": [2, 16], "opt": [8, 16], "max": [8, 16]}}
    assert "takes a batch of 1" in refused(
        profiles_of, interface("float32[batch, 16]"), max_batch=8, explicit=[written]
    )


@pytest.mark.parametrize(
    "written, says",
    [
        ({"z": {}}, "names an input that the model does not have: `z`"),
        ({"x0": {"min": [1, 1], "opt": [8, 8]}}, "min, opt and max"),
        ({"x0": {"min": [1, 1], "opt": [8], "max": [8, 9]}}, "wrong number of dimensions"),
        ({"x0": {"min": [1, 0], "opt": [8, 8], "max": [8, 9]}}, "below 1"),
        ({"x0": {"min": [1, 9], "opt": [8, 8], "max": [8, 9]}}, "dimension seq: min 9, opt 8, max 9"),
        ({"x0": {"min": [1, 1], "opt": [8, 8], "max": [8, 129]}}, "leaves the range of `seq`"),
        ({"x1": {"min": [1, 3, 8], "opt": [8, 3, 8], "max": [8, 4, 8]}}, "changes a fixed dimension"),
        ({"x1": {"min": [1, 3, 8], "opt": [4, 3, 8], "max": [9, 3, 8]}}, "`batch` has two sizes in the same profile"),
    ],
)
def test_a_profile_that_contradicts_the_spec(written, says):
    model = interface("int64[batch, seq: 1..128]", "float32[batch, 3, 8]")
    text = refused(profiles_of, model, max_batch=8, explicit=[written])
    assert says in text and "engine.profiles[0]" in text


def test_a_dimension_without_bounds():
    text = refused(profiles_of, interface("int64[batch, seq]"), max_batch=8)
    assert "`seq` of input `x0` has no upper bound" in text and "`seq: 1..512`" in text and "engine.profiles" in text
    assert "`batch` of input `x0` has no upper bound" in refused(profiles_of, interface("int64[batch, 4]"), max_batch=0)


@pytest.mark.parametrize(
    "option, value",
    [("optimization_level", 6), ("hardware_compatibility", "hopper_plus"), ("workspace_bytes", 0), ("dla_core", -1)],
)
def test_values_that_no_library_has(option, value):
    assert "cannot be used" in refused(EngineOptions, **{option: value})


def test_options_cross_a_process():
    given = EngineOptions(gpus=("8.6",), profiles=({"x": ((1, 2), (3, 2), (4, 2))},), plugins=("a.so",), refit=True)
    assert EngineOptions.from_dict(json.loads(json.dumps(given.as_dict()))) == given


# timing caches


ORIGIN = Origin("tensorrt", "10.13.3.9", "8.6", "NVIDIA A10", "580.82.07")
ELSEWHERE = Origin("tensorrt", "10.13.3.9", "8.9", "NVIDIA L4", "580.82.07")


def kept(path, origin, data=b"times"):
    path.write_bytes(data)
    sign(path, origin)
    return path


def test_every_gpu_driver_and_version_has_a_timing_cache_of_its_own(tmp_path):
    ours = timing_cache(tmp_path, ORIGIN).path
    others = [
        Origin("tensorrt", "10.14.1.48", "8.6", "NVIDIA A10", "580.82.07"),
        Origin("tensorrt", "10.13.3.9", "8.6", "NVIDIA A10", "590.44.01"),
        Origin("tensorrt", "10.13.3.9", "8.6", "NVIDIA A40", "580.82.07"),
        ELSEWHERE,
    ]
    assert len({ours, *(timing_cache(tmp_path, other).path for other in others)}) == 5
    kept(ours, ORIGIN)
    assert timing_cache(tmp_path, ORIGIN).notes == () and ours.read_bytes() == b"times"


@pytest.mark.parametrize(
    "harm, why", [("data", "not as it was written"), ("note", "nothing says where"), ("swap", "made elsewhere")]
)
def test_a_timing_cache_that_is_not_as_it_was_written_is_dropped(harm, why, tmp_path):
    path = kept(timing_cache(tmp_path, ORIGIN).path, ELSEWHERE if harm == "swap" else ORIGIN)
    if harm == "data":
        path.write_bytes(b"tim")
    if harm == "note":
        path.with_name(path.name + ".json").write_text("{")
    found = timing_cache(tmp_path, ORIGIN)
    assert found.path == path and not path.exists() and why in found.notes[0]


def test_a_timing_cache_of_the_users_from_another_gpu(tmp_path):
    text = refused(timing_cache, kept(tmp_path / "mine.cache", ELSEWHERE), ORIGIN)
    assert "made elsewhere" in text and "NVIDIA L4 (sm89)" in text and "NVIDIA A10 (sm86), driver 580.82.07" in text
    assert (tmp_path / "mine.cache").exists()


def test_a_timing_cache_of_the_users(tmp_path):
    path = kept(tmp_path / "mine.cache", ORIGIN)
    assert timing_cache(path, ORIGIN).path == path
    path.write_bytes(b"other times")
    assert "damaged" in refused(timing_cache, path, ORIGIN)
    foreign = tmp_path / "trtexec.cache"
    foreign.write_bytes(b"times")
    assert "does not say where it was made" in timing_cache(foreign, ORIGIN).notes[0]


# what a machine lacks


def test_without_a_gpu_tensorrt_says_what_is_missing_and_where_it_builds(tmp_path):
    missing = available("tensorrt")
    if missing is None:
        pytest.skip("a machine with TensorRT and a GPU")
    text = str(missing.error("tensorrt-fp16", spec="models.yaml", model="digits"))
    assert "tensorrt-fp16 cannot be built on this machine" in text
    assert "build-repo models.yaml --only digits, on a machine with an NVIDIA GPU and TensorRT 10.0" in text
    assert "--in-container" in text
    with pytest.raises(UnavailableError):
        engine_from_onnx(tmp_path / "no.onnx", tmp_path / "no.plan", kind="tensorrt", options=EngineOptions())


def test_tensorrt_rtx_is_here():
    assert available("tensorrt-rtx") is None
    assert library_version("tensorrt-rtx").startswith("1.")


def test_what_only_an_installation_lacks_is_said_as_one():
    missing = Missing("tensorrt-rtx", ("no module named polygraphy",), "pip install 'triton-repo[tensorrt-rtx]'")
    assert "pip install 'triton-repo[tensorrt-rtx]' && build-repo a.yaml --only m" in missing.command("a.yaml", "m")


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0.post12.dev1", "9.9"])
def test_a_tensorrt_that_is_too_old(version):
    text = refused(check_version, "tensorrt", version)
    assert f"TensorRT {version} is older than 10.0" in text and "TensorRT 10.0 or newer" in text


@pytest.mark.parametrize(
    "kind, version", [("tensorrt", "10.0.1"), ("tensorrt", "11.4.1"), ("tensorrt-rtx", "1.7.1.116")]
)
def test_a_version_that_is_new_enough(kind, version):
    check_version(kind, version)
    assert too_old(kind, None) == ""


# one folder, one engine for each compute capability


def test_cc_model_filenames_come_out_of_config_pbtxt_as_they_went_in():
    capabilities = ("8.6", "8.9", "12.0")
    files = {engine_file(capability): "0" * 64 for capability in capabilities}
    artifact = Artifact(Path("1/model_sm86.plan"), "plan", "fp16", interface("float32[batch, 16]"), files, 1, {})
    fields = fields_of(VARIANTS["tensorrt-fp16"], None, artifact)
    message = parse(render(ModelConfig({"name": "digits", "backend": "tensorrt", **fields}, {})))
    assert dict(message.cc_model_filenames) == {capability: engine_file(capability) for capability in capabilities}
    assert message.cc_model_filenames["12.0"] == "model_sm120.plan"
