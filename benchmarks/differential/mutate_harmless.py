"""Changes that change nothing: what `check-repo` must not mind."""

from __future__ import annotations

import random
from typing import Any

from benchmarks.differential.case import Case
from benchmarks.differential.mutate_config import from_text, in_config
from benchmarks.differential.style import styled


def rewritten(case: Case, rng: random.Random) -> Case | None:
    """The same configuration as somebody else would write it."""
    return case.with_text(styled(case.config(), rng)) if case.text() else None


def spaced(case: Case, rng: random.Random) -> Case | None:
    """Other white space, line ends, comments."""
    text = case.text()
    if not text:
        return None
    news = (
        text.replace("\n", "\r\n"),
        "\n\n# made by hand\n" + text,
        text.rstrip("\n"),
        text.replace("\n", "\n\n"),
        text.replace("\n", "   \n"),
        text.replace("  ", "\t"),
        text + "# }",
        text.replace("{ ", "{"),
        text.replace("\n", " # \u00e9\u4e2d\n"),
    )
    return case.with_text(rng.choice(news))


def respelt(case: Case, rng: random.Random) -> Case | None:
    """Equal in text format: numbers of enums, hexadecimal, angle brackets, semicolons, strings in two pieces."""
    text = case.text()
    news = [
        text.replace("TYPE_FP32", "11"),
        text.replace("KIND_CPU", "2"),
        text.replace("max_batch_size: 8", "max_batch_size: 0x8"),
        text.replace("max_batch_size: 8", "max_batch_size: 010"),
        text.replace("enable: true", "enable: 1"),
        text.replace("enable: true", "enable: t"),
        text.replace("enable: true", "enable: True"),
        text.replace("decoupled: true", "decoupled: True"),
        text.replace('"onnxruntime"', '"onnx" "runtime"'),
        text.replace('"python"', "'pyt' 'hon'"),
        text.replace("max_batch_size", ";max_batch_size") if ";" not in text else text,
        text.replace("{ ", "< ").replace(" }", " >"),
        text.replace('"python"', '"\\160ython"'),
    ]
    news = [new for new in news if new != text]
    return case.with_text(rng.choice(news)) if news else None


def field_added(config: Any, rng: random.Random) -> object:
    """An optional field with a value that is allowed."""
    ensemble = config.HasField("ensemble_scheduling")
    options = [
        'parameters { key: "note" value { string_value: "x" } }',
        'metric_tags { key: "team" value: "a" }',
        "version_policy { latest { num_versions: 1 } }",
        "version_policy { all { } }",
    ]
    if not ensemble:
        options += [
            "optimization { priority: PRIORITY_MIN }",
            "optimization { eager_batching: true }",
            "optimization { input_pinned_memory { enable: true } output_pinned_memory { enable: false } }",
            "optimization { graph { level: 1 } }",
            'cc_model_filenames { key: "8.6" value: "model_a.onnx" }',
        ]
        if not config.HasField("sequence_batching") and config.max_batch_size > 1:
            options += [
                "dynamic_batching { }",
                "dynamic_batching { preserve_ordering: true }",
                "dynamic_batching { max_queue_delay_microseconds: 50 }",
                "dynamic_batching { default_queue_policy { max_queue_size: 10 } }",
            ]
    config.ClearField("version_policy") if rng.random() < 0.3 else None
    option = rng.choice(options)
    if "version_policy" in option:
        config.ClearField("version_policy")
    from_text(config, option)
    return True


def instances(config: Any, rng: random.Random) -> object:
    """Instances of another number, kind or name, all of them allowed."""
    if config.HasField("ensemble_scheduling") or config.HasField("sequence_batching"):
        return False
    groups = (
        "count: 2",
        "kind: KIND_CPU",
        "kind: KIND_AUTO count: 1",
        'name: "a" count: 1',
        "count: 1 rate_limiter { priority: 2 }",
    )
    del config.instance_group[:]
    from_text(config, f"instance_group {{ {rng.choice(groups)} }}")
    return True


def name_removed(config: Any, rng: random.Random) -> None:
    """No name, or the folder's."""
    config.name = ""


def reordered(config: Any, rng: random.Random) -> object:
    """Inputs, outputs and steps in another order."""
    for field in (
        config.input,
        config.output,
        config.ensemble_scheduling.step if config.HasField("ensemble_scheduling") else [],
    ):
        items = list(field)
        if len(items) > 1:
            copies = [type(item)() for item in items]
            for copy, item in zip(copies, reversed(items), strict=True):
                copy.CopyFrom(item)
            del field[:]
            field.extend(copies)
    return True


def batch_lowered(config: Any, rng: random.Random) -> object:
    """A smaller largest batch, where nothing hangs on it."""
    if config.max_batch_size < 2 or config.HasField("sequence_batching") or config.HasField("ensemble_scheduling"):
        return False
    if config.dynamic_batching.preferred_batch_size or config.model_warmup:
        return False
    config.max_batch_size = rng.choice((1, config.max_batch_size - 1, config.max_batch_size * 2))
    return True


def files_added(case: Case, rng: random.Random) -> Case | None:
    """Files that Triton does not read."""
    model = case.target
    files = (
        (f"{model}/README.md", b"# a model\n"),
        (f"{model}/1/notes.txt", b"x"),
        (f"{model}/1/weights.onnx.data", b"\0" * 9),
        (f"{model}/docs/", b""),
        (f"{model}/configs/fast.pbtxt", case.files.get(f"{model}/config.pbtxt", b"max_batch_size: 4\n")),
        (f"{model}/.hidden", b""),
        (f"{model}/1/helper.py", b"x = 1\n"),
        (f"{model}/__pycache__/x.pyc", b"\0"),
    )
    return case.with_file(*rng.choice(files))


def python_extended(case: Case, rng: random.Random) -> Case | None:
    """Python that is still right: comments, helpers, a base class, a condition around the class."""
    path = f"{case.target}/1/model.py"
    source = case.files.get(path, b"").decode()
    if not source:
        return None
    news = (
        "#!/usr/bin/env python3\n" + source,
        source + "\n\ndef helper():\n    return 1\n",
        source.replace("class TritonPythonModel:", "class Base:\n    pass\n\n\nclass TritonPythonModel(Base):"),
        "from __future__ import annotations\n" + source,
        source.replace("class TritonPythonModel:", "class Renamed:") + "\n\nTritonPythonModel = Renamed\n",
        source + "\nif True:\n    X = 1\n",
        source.replace("    def execute", "    async def later(self):\n        return 1\n\n    def execute"),
        '"""What it does."""\n' + source,
    )
    return case.with_file(path, rng.choice(news))


HARMLESS = {
    "harmless: rewritten": rewritten,
    "harmless: white space and comments": spaced,
    "harmless: other spelling": respelt,
    "harmless: optional field": in_config(field_added),
    "harmless: instances": in_config(instances),
    "harmless: no name": in_config(name_removed),
    "harmless: another order": in_config(reordered),
    "harmless: another batch": in_config(batch_lowered),
    "harmless: more files": files_added,
    "harmless: Python extended": python_extended,
}
