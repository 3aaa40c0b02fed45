"""Real photographs and how EfficientNet-Lite wants to see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Arrays = Mapping[str, np.ndarray[Any, Any]]

LABELS = Path(__file__).parent / "labels.txt"
SIZE = 224
# EfficientNet-Lite was trained on (pixel - 127) / 128, not on ImageNet's usual mean and standard deviation.
MEAN, SCALE = 127.0, 128.0

# Photograph -> the ImageNet classes that are right for it.
PHOTOGRAPHS: dict[str, set[str]] = {
    "china": {"palace", "monastery"},
    "flower": {"daisy"},
    "chelsea": {"tabby", "tiger cat", "Egyptian cat"},
    "coffee": {"espresso"},
    "rocket": {"missile", "projectile"},
    "camera": {"tripod"},
    "motorcycle": {"moped", "motor scooter"},
}


def labels() -> list[str]:
    """The names of the 1000 classes, in the order of the logits."""
    return LABELS.read_text(encoding="utf-8").splitlines()


def photograph(name: str) -> Image.Image:
    """One of ``PHOTOGRAPHS``, in RGB: two come with scikit-learn, the others with scikit-image."""
    import skimage.data
    from PIL import Image
    from sklearn.datasets import load_sample_image

    if name in ("china", "flower"):
        pixels = load_sample_image(f"{name}.jpg")
    elif name == "motorcycle":
        pixels = skimage.data.stereo_motorcycle()[0]
    else:
        pixels = getattr(skimage.data, name)()
    return Image.fromarray(pixels).convert("RGB")


def prepare(image: Image.Image) -> np.ndarray[Any, Any]:
    """An RGB photograph as the model's input ``float32[3, 224, 224]``: the middle 7/8, bicubic, (pixel - 127) / 128."""
    side = min(image.size) * 7 / 8
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return _resize(image, (left, top, left + side, top + side))


def views(image: Image.Image, count: int, seed: int) -> list[np.ndarray[Any, Any]]:
    """``count`` different views of one photograph, prepared: squares of half its height or more, some mirrored."""
    from PIL import ImageOps

    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        side = min(image.size) * rng.uniform(0.5, 1.0)
        left, top = ((extent - side) * rng.uniform(0.1, 0.9) for extent in image.size)
        source = ImageOps.mirror(image) if number % 2 else image
        found.append(_resize(source, (left, top, left + side, top + side)))
    return found


def _resize(image: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray[Any, Any]:
    from PIL import Image

    resized = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    pixels = (np.asarray(resized, dtype=np.float32) - MEAN) / SCALE
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def samples() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Ten views of each photograph, the photographs taking turns."""
    per_photograph = [views(photograph(name), 10, seed=0) for name in PHOTOGRAPHS]
    return [{"image": view} for turn in zip(*per_photograph, strict=True) for view in turn]


def jpeg(image: Image.Image) -> bytes:
    """A photograph as a camera's file."""
    import io

    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def files() -> list[dict[str, np.ndarray[Any, Any]]]:
    """The photographs as files: samples of what is sent to the server, without the batch dimension."""
    return [{"jpeg": np.array([jpeg(photograph(name))], dtype=object)} for name in PHOTOGRAPHS]


def pixels() -> list[dict[str, np.ndarray[Any, Any]]]:
    """The photographs decoded: samples for what resizes them."""
    from decode import Decode

    decode = Decode()
    return [{"pixels": decode.execute(file["jpeg"][None])["pixels"][0]} for file in files()]


def logits() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Made-up logits with a winner each: samples for what picks the likeliest."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(32, 1000)).astype(np.float32)
    rows[np.arange(32), rng.integers(0, 1000, size=32)] += 8.0
    return [{"logits": row} for row in rows]


def classes() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Numbers of classes: samples for what names them."""
    rng = np.random.default_rng(3)
    return [{"classes": rng.integers(0, 1000, size=5)} for _ in range(16)]


def top_one(predict: Callable[[Arrays], Arrays]) -> float:
    """The share of the photographs, sent as files, whose first label is a right one."""
    right = []
    for name, file in zip(PHOTOGRAPHS, files(), strict=True):
        answer = predict({"jpeg": file["jpeg"][None]})["labels"][0, 0]
        label = answer.decode() if isinstance(answer, bytes) else str(answer)
        right.append(label in PHOTOGRAPHS[name])
    return float(np.mean(right))


def accuracy(predict: Callable[[Arrays], Arrays]) -> float:
    """The share of views (others than the samples) whose most likely class is a right one for their photograph."""
    names = labels()
    right = []
    for name, classes in PHOTOGRAPHS.items():
        logits = predict({"image": np.stack(views(photograph(name), 8, seed=1))})["logits"]
        right += [names[index] in classes for index in logits.argmax(axis=-1)]
    return float(np.mean(right))
