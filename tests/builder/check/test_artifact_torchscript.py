"""``model.pt``: archives that TorchScript wrote, what users ship by mistake, and rubbish; nothing is unpickled."""

import random
import time
import zipfile
import zlib

import pytest
import torch

from tests.builder.check.artifact_models import found, on_disk

TENSOR = '{{ name: "{}" data_type: TYPE_FP32 dims: [ 4 ] }}'


def config(*names, extra=""):
    inputs = ", ".join(TENSOR.format(name) for name in names)
    return f"input [ {inputs} ] output [ {TENSOR.format('OUTPUT__0')} ] {extra}"


class Two(torch.nn.Module):
    def forward(self, x, y):
        return x + y


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.two, self.table = Two(), torch.nn.Linear(4, 4)

    def forward(self, input):
        return self.two(self.table(input), input)


class Typed(torch.nn.Module):
    def forward(self, x: torch.Tensor, mode: int = 1):
        return x * mode


class Dictionary(torch.nn.Module):
    def forward(self, given: dict[str, torch.Tensor]):
        return given["a"] + given["b"]


def scripted(tmp_path, module):
    path = tmp_path / f"{type(module).__name__}.pt"
    torch.jit.script(module).save(str(path))
    return path.read_bytes()


def hits_of(tmp_path, content, text, **more):
    return found(on_disk(tmp_path / "m", text, {"1/model.pt": content}, backend="pytorch", **more))


@pytest.mark.parametrize(
    "module, names",
    [
        (Two(), ("x", "y")),
        (Two(), ("INPUT__0", "INPUT__1")),
        (Inner(), ("anything",)),
        (Dictionary(), ("a", "b")),
    ],
)
def test_what_libtorch_takes_is_clean(module, names, tmp_path):
    assert hits_of(tmp_path, scripted(tmp_path, module), config(*names)) == {}


def test_a_traced_module_tells_its_arguments_too(tmp_path):
    path = tmp_path / "t.pt"
    torch.jit.trace(Inner(), torch.zeros(2, 4)).save(str(path))
    assert hits_of(tmp_path, path.read_bytes(), config("input")) == {}
    assert list(hits_of(tmp_path, path.read_bytes(), config("a", "b"))) == ["torchscript-inputs"]


def test_arguments_are_counted_and_typed(tmp_path):
    hits = hits_of(tmp_path, scripted(tmp_path, Two()), config("x"))
    assert hits["torchscript-inputs"][0].message == (
        "forward(x, y) of 1/model.pt takes 2 inputs, and the configuration has 1"
    )
    hits = hits_of(tmp_path, scripted(tmp_path, Typed()), config("x", "mode"))
    assert [hit.message for hit in hits.pop("torchscript-argument")] == ["forward of 1/model.pt takes mode: int"]
    assert not hits
    hits = hits_of(tmp_path, scripted(tmp_path, Two()), config("b", "a"))
    assert "are not the arguments of forward(x, y) of 1/model.pt: they are taken in this order" in (
        hits["torchscript-names"][0].message
    )


def exported(tmp_path):
    torch.export.save(torch.export.export(Two(), (torch.zeros(2), torch.zeros(2))), tmp_path / "e.pt2")
    return (tmp_path / "e.pt2").read_bytes()


def saved(what, **options):
    def write(tmp_path):
        torch.save(what, tmp_path / "s.pt", **options)
        return (tmp_path / "s.pt").read_bytes()

    return write


@pytest.mark.parametrize(
    "write, reason",
    [
        (saved(Inner().state_dict()), "it was written by torch.save: a state dict or a pickled module"),
        (
            saved(Inner().state_dict(), _use_new_zipfile_serialization=False),
            "it was written by torch.save in its old format",
        ),
        (exported, "it is an exported program (torch.export.save)"),
        (lambda _: b"\x28\0\0\0\0\0\0\0{" + b" " * 40, "it is a safetensors file"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
        (lambda _: b"<html>", "it is a web page"),
        (lambda _: b"\x80\x04K\x01.", "it is a pickle"),
        (lambda _: b"PK\x03\x04" + bytes(90), "the zip archive cannot be read"),
        (lambda tmp: scripted(tmp, Two())[:-60], "the zip archive cannot be read"),
    ],
)
def test_what_users_ship_by_mistake_is_named(write, reason, tmp_path):
    hits = hits_of(tmp_path, write(tmp_path), config("x", "y"))
    assert list(hits) == ["torchscript-archive"]
    assert hits["torchscript-archive"][0].message.startswith(f"1/model.pt is no TorchScript archive: {reason}")


def test_other_platforms_of_the_backend_are_left_alone(tmp_path):
    assert hits_of(tmp_path, b"anything", config("x", extra='platform: "torch_aoti"')) == {}


def test_a_pickle_that_would_run_something_runs_nothing(tmp_path):
    proof = tmp_path / "proof"
    attack = f"cos\nsystem\n(S'touch {proof}'\ntR.".encode()
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": attack, "constants.pkl": attack, "code/__torch__.py": b"import os"}.items():
            archive.writestr(f"m/{name}", content)
    assert hits_of(tmp_path, path.read_bytes(), config("x")) == {}
    assert not proof.exists()


def test_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"m/{name}", b"c__torch__\nM\n" + bytes(60_000_000))
    began = time.process_time()
    hits_of(tmp_path, path.read_bytes(), config("x"))
    assert time.process_time() - began < 1
    # A table of contents that says it is huge is not read at all.
    huge = b"PK\x05\x06" + bytes(8) + (0xF0000000).to_bytes(4, "little") + bytes(6)
    began = time.process_time()
    assert hits_of(tmp_path, b"PK\x03\x04" + huge, config("x")) == {}
    assert time.process_time() - began < 1


def test_rubbish_is_never_an_exception(tmp_path):
    whole = scripted(tmp_path, Two())
    chance = random.Random(11)
    model = on_disk(tmp_path / "m", config("x", "y"), {"1/model.pt": whole}, backend="pytorch")
    for _ in range(300):
        flipped = bytearray(whole)
        for _ in range(4):
            flipped[chance.randrange(len(whole))] = chance.randrange(256)
        (tmp_path / "m/1/model.pt").write_bytes(flipped)
        found(model)
    for length in range(0, len(whole), 97):
        (tmp_path / "m/1/model.pt").write_bytes(whole[:length])
        assert found(model)
    (tmp_path / "m/1/model.pt").write_bytes(b"PK" + zlib.compress(bytes(1000)) * 50)
    assert "torchscript-archive" in found(model)
