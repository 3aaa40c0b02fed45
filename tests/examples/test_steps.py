"""The steps of the examples' ensembles, each asked directly."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from builder.errors import PythonModelError
from builder.python_model import PythonRunner, PythonStep, collect, write_version
from builder.tensors import Interface, parse_tensor
from builder.usercode import user_code

EXAMPLES = Path(__file__).parents[2] / "examples"
ModuleOf = Callable[[str, str], ModuleType]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Beside other workers, threads that wait for each other take four times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def step(reference: str, inputs: dict[str, str], outputs: dict[str, str], **keys: Any) -> PythonStep:
    sides = (tuple(parse_tensor(name, text) for name, text in side.items()) for side in (inputs, outputs))
    return PythonStep(reference, Interface(*sides), batching=True, **keys)


TOKENIZER = step(
    "tokenizer.py:Tokenizer",
    {"text": "string[batch, 1]"},
    {"input_ids": "int64[batch, seq: 1..128]", "attention_mask": "int64[batch, seq]"},
    together=False,
)
DECODE = step("decode.py:Decode", {"jpeg": "string[batch, 1]"}, {"pixels": "uint8[batch, 256, 256, 3]"})
NAMES = step("names.py:Names", {"classes": "int64[batch, 5]"}, {"labels": "string[batch, 5]"})


def ask(tmp_path: Path, example: str, wanted: PythonStep, files: tuple[str, ...] = (), **inputs: Any) -> Any:
    """The class out of its version folder: what it needs is there."""
    source = EXAMPLES / example
    code = collect(wanted.reference, source, files={name: source / name for name in files})
    assert set(code.imports) <= {"tokenizers", "PIL"}
    write_version(wanted, code, tmp_path / "1", name="m")
    home = tmp_path / "1" / "code"
    with user_code(home), PythonRunner(wanted, home) as runner:
        return runner(inputs)


def test_the_tokenizer_gives_the_tokens_that_the_encoder_was_trained_with(module_of: ModuleOf, tmp_path: Path) -> None:
    data = module_of("minilm", "data")
    texts = [*data.sentences(), "Über naïve café, 日本 unaffable!!", "", "word " * 300]
    for start in range(0, len(texts), 16):
        batch = texts[start : start + 16]
        expected = data.tokenize(batch)
        got = ask(tmp_path, "minilm", TOKENIZER, ("vocab.txt",), text=np.array(batch, dtype=object)[:, None])
        assert got.keys() == expected.keys()
        for name in expected:
            assert got[name].tolist() == expected[name].tolist()


def test_bytes_that_are_no_text_are_the_requests_own_error(tmp_path: Path) -> None:
    with pytest.raises(PythonModelError, match="raised UnicodeDecodeError"):
        ask(tmp_path, "minilm", TOKENIZER, ("vocab.txt",), text=np.array([[b"\xff\xfe"]], dtype=object))


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("JPEG", "L")])
def test_a_photograph_is_decoded_to_its_middle(module_of: ModuleOf, tmp_path: Path, kind: str, mode: str) -> None:
    from PIL import Image

    image = module_of("efficientnet", "data").photograph("flower").convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind)
    data = np.array([[stream.getvalue()]] * 2, dtype=object)
    pixels = ask(tmp_path, "efficientnet", DECODE, jpeg=data)["pixels"]
    side = image.height * 7 / 8
    left, top = (image.width - side) / 2, (image.height - side) / 2
    whole = Image.open(stream).convert("RGB").resize((256, 256), 3, box=(left, top, left + side, top + side))
    assert pixels.shape == (2, 256, 256, 3)
    assert (pixels[1] == np.asarray(whole)).all()


def test_what_is_no_photograph_is_an_error_and_sizes_may_differ(module_of: ModuleOf, tmp_path: Path) -> None:
    with pytest.raises(PythonModelError, match="raised UnidentifiedImageError"):
        ask(tmp_path, "efficientnet", DECODE, jpeg=np.array([[b"GIF?"]], dtype=object))
    files = [file["jpeg"] for file in module_of("efficientnet", "data").files()]
    pixels = ask(tmp_path, "efficientnet", DECODE, jpeg=np.stack(files))["pixels"]
    assert pixels.shape == (len(files), 256, 256, 3)


def test_a_photograph_in_and_its_labels_out(module_of: ModuleOf, tmp_path: Path) -> None:
    import torch

    data, model = module_of("efficientnet", "data"), module_of("efficientnet", "model")
    prepare, classifier, top = model.prepare(), model.load(), model.top()
    scores = []

    def predict(inputs: Any) -> Any:
        pixels = ask(tmp_path, "efficientnet", DECODE, jpeg=inputs["jpeg"])["pixels"]
        with torch.no_grad():
            found = top(classifier(prepare(torch.from_numpy(pixels))))
        scores.append(found["scores"].numpy())
        return ask(tmp_path, "efficientnet", NAMES, ("labels.txt",), classes=found["classes"].numpy())

    assert data.top_one(predict) >= 6 / 7
    assert all((row[:, :-1] >= row[:, 1:]).all() and 0 < row.sum() <= 1.0001 for row in scores)


def test_the_graph_that_prepares_does_as_pillow_does(module_of: ModuleOf) -> None:
    import torch
    from PIL import Image

    data, model = module_of("efficientnet", "data"), module_of("efficientnet", "model")
    with user_code(EXAMPLES / "efficientnet"):
        samples = data.pixels()
    for sample in samples[:3]:
        image = Image.fromarray(sample["pixels"])
        expected = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
        got = model.prepare()(torch.from_numpy(sample["pixels"][None]))[0].permute(1, 2, 0).numpy() * 128 + 127
        off = np.abs(got - expected)
        assert np.quantile(off, 0.999) <= 1.01  # Pillow rounds to whole levels, twice
        assert off.max() <= 8  # and cuts off at white between its two passes, at few and bright edges
        assert np.abs(got - expected).mean() < 0.5


def test_the_encoders_of_three_kinds_and_what_puts_them_together(module_of: ModuleOf) -> None:
    import torch

    data, model = module_of("multimodal", "data"), module_of("multimodal", "model")
    scenes = data.samples()
    assert [sample.keys() for sample in scenes] == [{"ids", "image", "audio"}] * 16
    fusion = model.fusion()
    scores = []
    with torch.no_grad():
        for scene in (*scenes, data.scene(0)):
            vectors = {
                f"{name}_vector": getattr(model, name)()(torch.from_numpy(scene[key][None]))
                for name, key in (("text", "ids"), ("image", "image"), ("audio", "audio"))
            }
            assert {name: tuple(vector.shape) for name, vector in vectors.items()} == dict.fromkeys(vectors, (1, 32))
            scores.append(fusion(**vectors)[0].numpy())
    assert scores[0].tolist() == scores[-1].tolist(), "the weights and the scenes are the same each time"
    assert np.allclose(np.sum(scores, axis=1), 1.0)
    assert len({tuple(np.round(row, 6)) for row in scores[:-1]}) == 16, "no two scenes look alike"


def test_padding_words_changes_nothing(module_of: ModuleOf) -> None:
    import torch

    data, model = module_of("multimodal", "data"), module_of("multimodal", "model")
    ids = data.ids(data.WORDS[0])
    padded = np.concatenate([ids, np.zeros(5, np.int64)])
    with torch.no_grad():
        short, long = (model.text()(torch.from_numpy(row[None])) for row in (ids, padded))
    assert torch.allclose(short, long)
