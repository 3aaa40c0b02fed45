"""A python model's ``model.py``, read as text: its syntax, its class, and the methods that the server calls.

Nothing of it is imported or run. What cannot be told from the text (a class that comes from elsewhere) is left alone.
"""

from __future__ import annotations

import ast
import functools
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.check.artifacts.reading import artifacts, in_words, look, parameters_of, size_of
from builder.check.model import ModelOnDisk
from builder.rules.rule import Hit, Rule

SYNTAX = Rule(
    "python-syntax",
    "error",
    "model.py is not Python",
    "The server imports it when it loads the model, and reports the SyntaxError.",
    "Mend the line.",
    bad="def execute(self, requests)\n    return []",
    good="def execute(self, requests):\n    return []",
)
NO_CLASS = Rule(
    "python-class-missing",
    "error",
    "model.py defines no class `TritonPythonModel`",
    "\"module ... has no attribute 'TritonPythonModel'\".",
    "Name the class TritonPythonModel.",
    bad="class Model: ...",
    good="class TritonPythonModel: ...",
)
CLASS_ELSEWHERE = Rule(
    "python-class-elsewhere",
    "info",
    "`TritonPythonModel` comes from elsewhere, so that its methods were not looked at",
    "It is imported, assigned, or defined under a condition. The server takes whatever the name means when it is "
    "imported.",
    "Load it once in a server: serve-repo DIR.",
    bad="from shared import TritonPythonModel",
    good="class TritonPythonModel: ...",
)
NO_EXECUTE = Rule(
    "python-execute",
    "warning",
    "`TritonPythonModel` has no usable `execute`",
    'The server loads such a model and answers every request with an error: "does not implement `execute` method".',
    "Define `def execute(self, requests)` that returns a list of pb_utils.InferenceResponse.",
    bad="class TritonPythonModel:\n    def run(self, requests): ...",
    good="class TritonPythonModel:\n    def execute(self, requests): ...",
)
ARGUMENTS = Rule(
    "python-arguments",
    "error",
    "a method of `TritonPythonModel` does not take what the server calls it with",
    "At load the server calls `TritonPythonModel()`, `initialize(self, args)` and, of the class, "
    "`auto_complete_config(config)`: a TypeError there refuses the model.",
    "Take these arguments and no others without a default; make auto_complete_config a staticmethod.",
    bad="def initialize(self): ...",
    good="def initialize(self, args): ...",
)
COMPLETION = Rule(
    "python-auto-complete",
    "error",
    "`auto_complete_config` returns nothing",
    '"auto_complete_config function in model ... must return a valid pb.ModelConfig object". The server calls it '
    "whether or not the configuration is complete.",
    "Return the object that it was given.",
    bad="def auto_complete_config(config):\n    config.set_max_batch_size(8)",
    good="def auto_complete_config(config):\n    config.set_max_batch_size(8)\n    return config",
)
RAISES = Rule(
    "python-raises",
    "error",
    "loading model.py raises, whatever happens",
    "A `raise` at the top of the module, or first of all in `initialize`, fails every load.",
    "Remove it.",
    bad="def initialize(self, args):\n    raise NotImplementedError",
    good="def initialize(self, args):\n    pass",
)
RELATIVE = Rule(
    "python-import-missing",
    "error",
    "model.py imports a module of its own folder that is not there",
    "`from .helpers import x` means helpers.py in the version folder and nothing else: ModuleNotFoundError.",
    "Put the module beside model.py.",
    bad="from .helpers import clean, without 1/helpers.py",
    good="1/helpers.py",
)
FOREIGN = Rule(
    "python-import-unknown",
    "info",
    "model.py needs packages that neither Python nor its folder has",
    "They have to be installed in the server's Python, or come with EXECUTION_ENV_PATH: NVIDIA's image has numpy and "
    "little else.",
    "Install them in the image, or pack an environment and name it in EXECUTION_ENV_PATH.",
    bad="import transformers",
    good='parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }',
)
ENVIRONMENT = Rule(
    "python-environment",
    "error",
    "the environment that EXECUTION_ENV_PATH names is not there",
    "\"Failed to get the canonical path for ...\". $$TRITON_MODEL_DIRECTORY is the model's folder, not the version's.",
    "Put the packed environment there, or mend the path.",
    bad='parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } } '
    "without env.tar.gz",
    good="env.tar.gz in the model's folder",
)

_CLASS = "TritonPythonModel"
_SERVER_MODULES = {"triton_python_backend_utils", "c_python_backend_utils", "numpy"}
_LARGEST_BYTES = 2_000_000
_VARIABLE = "$$TRITON_MODEL_DIRECTORY"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A parsed ``model.py``; ``error`` is what the parser said where it is no Python."""

    name: str
    path: Path
    tree: ast.Module | None
    error: str = ""
    line: int | None = None


def sources(model: ModelOnDisk) -> Iterator[Source]:
    """Each served version's ``model.py``."""
    if model.backend != "python":
        return
    for _, path in artifacts(model):
        if look(path) == "file" and path.suffix == ".py" and size_of(path) <= _LARGEST_BYTES:
            facts = path.stat()
            tree, error, line = _parsed(str(path), facts.st_mtime_ns, facts.st_size)
            yield Source(model.relative(path), path, tree, error, line)


@functools.lru_cache(maxsize=64)
def _parsed(path: str, _mtime_ns: int, _size: int) -> tuple[ast.Module | None, str, int | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(Path(path).read_bytes()), "", None
    except SyntaxError as error:
        return None, error.msg, error.lineno
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        return None, str(error) or type(error).__name__, None


def syntax(model: ModelOnDisk) -> Iterator[Hit]:
    """What the parser refuses."""
    for source in sources(model):
        if source.tree is None:
            told = f"as Python {sys.version_info.major}.{sys.version_info.minor} reads it"
            yield Hit(
                f"{source.name} is not Python: {source.error} ({told})", "mend it", file=source.name, line=source.line
            )


def class_missing(model: ModelOnDisk) -> Iterator[Hit]:
    """No class of that name, wherever it may come from."""
    for source, cls, bound in _classes(model):
        if cls is None and not bound:
            classes = [node.name for node in source.tree.body if isinstance(node, ast.ClassDef)] if source.tree else []
            fix = f"rename {classes[0]} to {_CLASS}" if len(classes) == 1 else f"define class {_CLASS}"
            yield Hit(f"{source.name} has no class {_CLASS}", fix, file=source.name)


def class_elsewhere(model: ModelOnDisk) -> Iterator[Hit]:
    """A class whose methods are not in the text."""
    for source, cls, bound in _classes(model):
        if cls is None and bound:
            yield Hit(f"{source.name} gets {_CLASS} from elsewhere: its methods were not looked at", file=source.name)


def execute(model: ModelOnDisk) -> Iterator[Hit]:
    """``execute`` is missing, or takes something else."""
    for source, cls, _ in _classes(model):
        if cls is None or _inherits(cls):
            continue
        found = _methods(cls).get("execute")
        if found is None:
            if not _sets(cls, "execute"):
                message = f"{_CLASS} of {source.name} has no method execute"
                yield Hit(message, "define `def execute(self, requests)`", file=source.name, line=cls.lineno)
        elif trouble := _trouble(found, 1):
            message = f"execute of {source.name} {trouble}"
            yield Hit(message, "write `def execute(self, requests)`", file=source.name, line=found.lineno)


def arguments(model: ModelOnDisk) -> Iterator[Hit]:
    """Methods that the server cannot call, or that return what it does not take."""
    for source, cls, _ in _classes(model):
        methods = _methods(cls) if cls is not None else {}
        for name, count, form in (
            ("__init__", 0, "def __init__(self)"),
            ("initialize", 1, "def initialize(self, args)"),
            ("auto_complete_config", 1, "@staticmethod def auto_complete_config(auto_complete_model_config)"),
        ):
            found = methods.get(name)
            if found is None:
                continue
            if trouble := _trouble(found, count, of_class=name == "auto_complete_config"):
                message = f"{name} of {source.name} {trouble}"
                yield Hit(message, f"write `{form}`", file=source.name, line=found.lineno)


def completion(model: ModelOnDisk) -> Iterator[Hit]:
    """``auto_complete_config`` that returns no configuration."""
    for source, cls, _ in _classes(model):
        found = _methods(cls).get("auto_complete_config") if cls is not None else None
        if found is None or _decorators(found) - {"staticmethod", "classmethod"}:
            continue
        returns = [node for node in _own_nodes(found) if isinstance(node, ast.Return)]
        nothing = all(node.value is None or _is_none(node.value) for node in returns)
        if isinstance(found, ast.AsyncFunctionDef) or (nothing and not _always_raises(found)):
            message = f"auto_complete_config of {source.name} returns no configuration"
            yield Hit(message, "return the object that it was given", file=source.name, line=found.lineno)


def raises(model: ModelOnDisk) -> Iterator[Hit]:
    """A ``raise`` that nothing can avoid."""
    for source, cls, _ in _classes(model):
        assert source.tree is not None
        for node in source.tree.body:
            if isinstance(node, ast.Raise):
                yield Hit(f"{source.name} raises when it is imported", "remove it", file=source.name, line=node.lineno)
        for name in ("__init__", "initialize", "auto_complete_config"):
            found = _methods(cls).get(name) if cls is not None else None
            if found is not None and isinstance(found, ast.FunctionDef) and _always_raises(found):
                yield Hit(f"{name} of {source.name} raises at once", "remove it", file=source.name, line=found.lineno)


def relative_imports(model: ModelOnDisk) -> Iterator[Hit]:
    """Modules of the folder that are not there."""
    for source in sources(model):
        for node in source.tree.body if source.tree else ():
            if not isinstance(node, ast.ImportFrom) or node.level == 0:
                continue
            folder = source.path.parent
            for _ in range(node.level - 1):
                folder = folder.parent
            names = [node.module] if node.module else [alias.name for alias in node.names]
            package = look(folder / "__init__.py") == "file"
            for name in names:
                place = folder.joinpath(*name.split("."))
                if name == "*" or (not node.module and package) or _is_module(place):
                    continue
                message = f"{source.name} imports {'.' * node.level}{name}, and there is no such module"
                yield Hit(message, f"put {name.split('.')[0]}.py beside it", file=source.name, line=node.lineno)


def foreign_imports(model: ModelOnDisk) -> Iterator[Hit]:
    """Packages that somebody has to install."""
    if model.config is None or "EXECUTION_ENV_PATH" in model.config.parameters:
        return
    for source in sources(model):
        needed: dict[str, int] = {}
        for node in source.tree.body if source.tree else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                here = any(_is_module(folder / name) for folder in (source.path.parent, model.folder))
                if name not in sys.stdlib_module_names and name not in _SERVER_MODULES and not here:
                    needed.setdefault(name, node.lineno)
        if needed:
            message = f"{source.name} imports {', '.join(sorted(needed))}: the server's Python has to have it"
            fix = "install it in the image, or pack an environment (EXECUTION_ENV_PATH)"
            yield Hit(message, fix, file=source.name, line=min(needed.values()))


def environment(model: ModelOnDisk) -> Iterator[Hit]:
    """Environments that are not there."""
    if model.config is None or model.backend != "python":
        return
    text = parameters_of(model.config).get("EXECUTION_ENV_PATH", "")
    where = ("parameters", "EXECUTION_ENV_PATH")
    if text.startswith(_VARIABLE):
        path = Path(f"{model.folder}{text.removeprefix(_VARIABLE)}")
        if (found := look(path)) not in ("file", "folder"):
            yield Hit(f"EXECUTION_ENV_PATH names {text}: {in_words(path, found)}", "put it there", where)


# --- reading the tree -------------------------------------------------------------------------------------------------


def _classes(model: ModelOnDisk) -> Iterator[tuple[Source, ast.ClassDef | None, bool]]:
    """Each readable source, the class where it is defined outright, and whether the name is bound at all."""
    for source in sources(model):
        if source.tree is None:
            continue
        direct = [node for node in source.tree.body if isinstance(node, ast.ClassDef) and node.name == _CLASS]
        others = any(_binds(node) for node in _module_nodes(source.tree) if node not in direct)
        yield source, (direct[-1] if direct and not others else None), bool(direct) or others


def _module_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Everything that runs when the module is imported: not what is inside of functions and classes."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _binds(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return node.name == _CLASS
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return node.name in (_CLASS, "__getattr__")
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name) in (_CLASS, "*") for alias in node.names)
    if isinstance(node, ast.Name):
        stored = isinstance(node.ctx, ast.Store) and node.id == _CLASS
        return stored or node.id in ("globals", "exec", "eval", "setattr", "vars")
    return False


def _methods(cls: ast.ClassDef) -> dict[str, Function]:
    found: dict[str, Function] = {}
    for node in cls.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name] = node
    return found


def _inherits(cls: ast.ClassDef) -> bool:
    return any(not (isinstance(base, ast.Name) and base.id == "object") for base in cls.bases) or bool(
        cls.keywords or cls.decorator_list
    )


def _sets(cls: ast.ClassDef, name: str) -> bool:
    """Whether the name is given otherwise than by a plain method: assigned to the class, or to ``self``."""
    for node in ast.walk(cls):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in (name, "__getattr__"):
            return True
    return False


def _decorators(function: Function) -> set[str]:
    return {ast.unparse(decorator) for decorator in function.decorator_list}


def _trouble(function: Function, count: int, *, of_class: bool = False) -> str:
    """Why it cannot be called with so many arguments; of the class itself where ``of_class``."""
    decorators = _decorators(function)
    if decorators - {"staticmethod", "classmethod"}:
        return ""  # what it takes is decided elsewhere
    bound = "staticmethod" not in decorators and (not of_class or "classmethod" in decorators)
    given = count + int(bound)
    spec = function.args
    most = len(spec.posonlyargs) + len(spec.args)
    least = most - len(spec.defaults)
    keyword = [arg.arg for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if default is None]
    if keyword:
        return f"demands {', '.join(keyword)}, which the server does not give"
    if given < least or (given > most and spec.vararg is None):
        taken = str(least) if least == most else f"{least} to {most}"
        return f"takes {taken} arguments, and the server gives {given}" + (" (self is one of them)" if bound else "")
    return ""


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _always_raises(function: Function) -> bool:
    body = [node for node in function.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    return bool(body) and isinstance(body[0], ast.Raise)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_module(place: Path) -> bool:
    if look(place) == "folder" or look(place.with_name(place.name + ".py")) == "file":
        return True
    try:
        return any(
            entry.name.startswith(f"{place.name}.") and entry.suffix == ".so" for entry in place.parent.iterdir()
        )
    except OSError:
        return False


PYTHON_RULES = (
    (SYNTAX, syntax),
    (NO_CLASS, class_missing),
    (CLASS_ELSEWHERE, class_elsewhere),
    (NO_EXECUTE, execute),
    (ARGUMENTS, arguments),
    (COMPLETION, completion),
    (RAISES, raises),
    (RELATIVE, relative_imports),
    (FOREIGN, foreign_imports),
    (ENVIRONMENT, environment),
)
