"""``model.py`` judged by its text: what the server would refuse, what it would not, and nothing of it is run."""

import random

import pytest

from tests.builder.check.artifact_models import found, on_disk

GOOD = """
import json
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        self.config = json.loads(args["model_config"])

    def execute(self, requests):
        return []
"""
CLASS = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def hits_of(tmp_path, text, files=None, config=""):
    files = {"1/model.py": text, **(files or {})}
    return found(on_disk(tmp_path / "m", config, files, backend="python"))


@pytest.mark.parametrize(
    "rule, text, message",
    [
        ("python-syntax", "def execute(self)\n    pass", "1/model.py is not Python: expected ':'"),
        ("python-syntax", b"\xff\xfe class", "1/model.py is not Python: "),
        ("python-syntax", "x = 1\0", "1/model.py is not Python: "),
        ("python-class-missing", "class Model: pass", "1/model.py has no class TritonPythonModel"),
        ("python-class-missing", "", "1/model.py has no class TritonPythonModel"),
        ("python-class-elsewhere", "from .shared import TritonPythonModel", "gets TritonPythonModel from elsewhere"),
        ("python-class-elsewhere", "if True:\n    class TritonPythonModel: pass", "its methods were not looked at"),
        ("python-class-elsewhere", "class A: pass\nTritonPythonModel = A", "its methods were not looked at"),
        ("python-execute", "class TritonPythonModel:\n    def run(self, requests): pass", "has no method execute"),
        (
            "python-execute",
            CLASS.replace("self, ", ""),
            "execute of 1/model.py takes 1 arguments, and the server gives 2",
        ),
        (
            "python-arguments",
            GOOD.replace("initialize(self, args)", "initialize(self)"),
            "initialize of 1/model.py takes 1 arguments, and the server gives 2 (self is one of them)",
        ),
        (
            "python-arguments",
            GOOD.replace("    @staticmethod\n", "").replace("(config)", "(self, config)"),
            "auto_complete_config of 1/model.py takes 2 arguments, and the server gives 1",
        ),
        ("python-arguments", CLASS + "    def __init__(self, size): pass", "__init__ of 1/model.py takes 2 arguments"),
        ("python-arguments", CLASS + "    def initialize(self, args, *, size): pass", "demands size, which the server"),
        ("python-auto-complete", GOOD.replace("return config", "config.x()"), "returns no configuration"),
        ("python-auto-complete", GOOD.replace("return config", "return"), "returns no configuration"),
        ("python-auto-complete", GOOD.replace("def auto", "async def auto"), "returns no configuration"),
        ("python-raises", "raise RuntimeError\n" + CLASS, "1/model.py raises when it is imported"),
        (
            "python-raises",
            CLASS + '    def initialize(self, args):\n        "doc"\n        raise Oops',
            "raises at once",
        ),
        ("python-import-missing", "from .helpers import x\n" + CLASS, "imports .helpers, and there is no such module"),
        ("python-import-missing", "from . import helpers\n" + CLASS, "imports .helpers, and there is no such module"),
        (
            "python-import-unknown",
            "import transformers, torch.nn\n" + CLASS,
            "1/model.py imports torch, transformers: ",
        ),
    ],
)
def test_a_rule_fires_with_the_file_in_its_message(rule, text, message, tmp_path):
    hits = hits_of(tmp_path, text, {"1/shared.py": ""})
    assert list(hits) == [rule] and message in hits[rule][0].message and hits[rule][0].file == "1/model.py"


def test_the_line_is_named(tmp_path):
    assert hits_of(tmp_path, "\n\ndef x(:\n  pass")["python-syntax"][0].line == 3
    assert hits_of(tmp_path, GOOD.replace("(self, args)", "(self)"))["python-arguments"][0].line == 10


@pytest.mark.parametrize(
    "text, files",
    [
        (GOOD, {}),
        (CLASS, {}),
        (GOOD.replace("    @staticmethod\n", ""), {}),  # called of the class, a plain function does
        (GOOD.replace("@staticmethod", "@classmethod").replace("(config)", "(cls, config)"), {}),
        (GOOD.replace("(self, args)", "(self, args, more=None)"), {}),
        (GOOD.replace("(self, args)", "(*everything)"), {}),
        (GOOD.replace("def execute", "async def execute"), {}),
        (GOOD.replace("        return config", "        raise ValueError if config else None\n        return config")
         .replace("raise ValueError if config else None", "if config is None: raise ValueError"), {}),
        ("from .helpers import x\nimport tools\nfrom . import other\n" + CLASS,
         {"1/helpers.py": "", "1/tools/__init__.py": "", "1/other/x.py": ""}),
        ("import shared\n" + CLASS, {"shared.py": ""}),
        ("try:\n    import transformers\nexcept ImportError:\n    pass\n" + CLASS, {}),
        ("class TritonPythonModel:\n    def initialize(self, args):\n        self.execute = print", {}),
        (CLASS.replace("def execute", "@traced\n    def execute").replace("self, ", ""), {}),
        ("import numpy as np\n" + CLASS, {}),
    ],
)  # fmt: skip
def test_what_the_server_takes_is_clean(text, files, tmp_path):
    assert hits_of(tmp_path, text, files) == {}


def test_a_base_class_may_bring_what_is_missing(tmp_path):
    text = "from base import Base\nclass TritonPythonModel(Base):\n    pass"
    assert hits_of(tmp_path, text, {"1/base.py": ""}) == {}


ENVIRONMENT = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }'


def test_a_packed_environment_has_to_be_there(tmp_path):
    hits = hits_of(tmp_path, GOOD, config=ENVIRONMENT)
    assert list(hits) == ["python-environment"]
    assert hits["python-environment"][0].message == (
        "EXECUTION_ENV_PATH names $$TRITON_MODEL_DIRECTORY/env.tar.gz: no such file"
    )
    assert hits_of(tmp_path, "import torch\n" + GOOD, {"env.tar.gz": "x"}, ENVIRONMENT) == {}


def test_nothing_is_run_or_imported(tmp_path):
    proof = tmp_path / "proof"
    text = f"open({str(proof)!r}, 'w').write('run')\nfrom .helpers import x\n" + GOOD
    hits_of(
        tmp_path, text, {"1/helpers.py": f"open({str(proof)!r}, 'w')", "1/__init__.py": f"open({str(proof)!r}, 'w')"}
    )
    assert not proof.exists()


def test_rubbish_is_never_an_exception(tmp_path):
    chance = random.Random(3)
    model = on_disk(tmp_path / "m", "", {"1/model.py": GOOD}, backend="python")
    for length in range(0, len(GOOD), 3):
        (tmp_path / "m/1/model.py").write_text(GOOD[:length])
        found(model)
        (tmp_path / "m/1/model.py").write_bytes(chance.randbytes(length))
        found(model)
    for deep in ("(" * 50_000, "-" * 100_000 + "1", "x." * 20_000 + "x", "[" * 300 + "]" * 300):
        (tmp_path / "m/1/model.py").write_text(deep)
        found(model)
