"""Any valid spec is read as it was written; any other text gives a spec or problems with a place, and nothing else."""

import datetime
import string

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.names import model_name, same_but_for_case
from builder.releases import ORT_OF_RELEASE
from builder.spec import Root, read_spec
from builder.spec.problems import allowed_keys
from builder.spec.yaml_source import read

SETTINGS = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TYPES = ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64"]
WORD = st.text(string.ascii_letters + "_", min_size=1, max_size=6).filter(lambda word: word != "batch")
# Not the line breaks of YAML 1.1 alone: PyYAML's own emitter writes them so that its own C parser folds them.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029"), max_size=10)
TEXT |= st.sampled_from(["yes", "null", "~", "010", "1:20", "1e5", "0x1F", "2020-01-01", "<<", "=", "- a", "a: b", "#"])
ARGUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ARGS = st.dictionaries(WORD, ARGUMENTS, max_size=2)
REFERENCE = st.sampled_from(["model.py:load", "package.module:load", "./model.py:_x1", "../{here}/model.py:load"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("spec")
    for name in ("model.py", "labels.txt", "more.txt", "weights.pt", "model.onnx", "größe 1.txt"):
        (place / name).write_text("")
    (place / "bert").mkdir()
    return place


def _some(draw, keys):
    """Some of the keys of a mapping of strategies, drawn."""
    chosen = draw(st.lists(st.sampled_from(sorted(keys)), unique=True))
    return {key: draw(keys[key]) for key in chosen}


@st.composite
def _callable(draw, **more):
    return {"python": draw(REFERENCE), **_some(draw, {"args": ARGS, **more})}


@st.composite
def _source(draw):
    kind = draw(st.sampled_from(["python", "exported", "checkpoint", "huggingface", "onnx", "callable"]))
    if kind == "python":
        return draw(_callable())
    if kind == "checkpoint":
        more = _some(draw, {"args": ARGS, "allow_pickle": st.booleans()})
        return {"checkpoint": "weights.pt", "factory": draw(REFERENCE), **more}
    if kind == "huggingface":
        return {"huggingface": "bert", **_some(draw, {"class": TEXT})}
    if kind == "callable":
        return {"onnx": {"python": draw(REFERENCE)}}
    return {kind: "./model.onnx" if kind == "onnx" else "weights.pt"}


@st.composite
def _tensor(draw, *, batched, ranges):
    dims = draw(st.lists(st.integers(1, 9).map(str) | WORD, min_size=1, max_size=3))
    texts = [f"{dim}: {ranges[dim]}" if dim in ranges and draw(st.booleans()) else dim for dim in dims]
    space = draw(st.sampled_from(["", " ", "  "]))
    return f"{draw(st.sampled_from(TYPES))}{space}[{f',{space}'.join(['batch'] * batched + texts)}]"


@st.composite
def _model(draw):
    batched = draw(st.booleans())
    ranges = draw(st.dictionaries(WORD, st.sampled_from(["1..4", "2 .. 512", "7..7"]), max_size=2))
    names = draw(st.lists(WORD | st.sampled_from(["in put", "größe", "x/y:0"]), min_size=2, max_size=5, unique=True))
    split = draw(st.integers(1, len(names) - 1))
    tensors = _tensor(batched=batched, ranges=ranges)
    inputs, outputs = ({name: draw(tensors) for name in part} for part in (names[:split], names[split:]))
    largest = draw(st.integers(1, 64)) if batched else 0
    batch = {"max": largest}
    if batched:
        preferred = st.lists(st.integers(1, largest), max_size=2)
        batch |= _some(draw, {"preferred": preferred, "max_queue_delay_microseconds": st.integers(0, 10**6)})
    labels = st.dictionaries(st.sampled_from(sorted(outputs)), st.sampled_from(["labels.txt", "größe 1.txt"]))
    source = draw(_source())
    model = {"source": source, "inputs": inputs, "outputs": outputs, "batch": batch}
    if "onnx" in source and draw(st.booleans()):
        model = {"source": source}
        labels = st.dictionaries(WORD, st.just("more.txt"), max_size=1)
        largest = 8
    optional = {
        "samples": _callable(),
        "evaluate": _callable(max_drop=st.floats(0, 10)),
        "variants": st.just(["onnx-fp32"]),
        "serve": st.just("onnx-fp32"),
        "labels": labels,
        "instances": st.fixed_dictionaries({}, optional={
            "count": st.integers(1, 9), "kind": st.sampled_from(["KIND_GPU", "KIND_AUTO"]),
            "gpus": st.lists(st.integers(0, 3)),
        }),
        "warmup": st.fixed_dictionaries({"batch_sizes": st.lists(st.integers(1, largest or 1), max_size=3)}),
        "response_cache": st.booleans(),
        "export": st.fixed_dictionaries({}, optional={
            "exporter": st.sampled_from(["auto", "dynamo", "torchscript"]), "opset": st.integers(16, 20),
        }),
        "depends": st.lists(st.sampled_from(["*.txt", "bert/../model.py", "$HOME", "$NOT_1", "**/*.py"]), max_size=3),
        "config": st.fixed_dictionaries({}, optional={
            "metric_tags": st.dictionaries(TEXT, TEXT, max_size=2),
            "version_policy": st.just({"latest": {"num_versions": 2}}),
            "parameters": st.dictionaries(TEXT, st.fixed_dictionaries({"string_value": TEXT}), max_size=2),
        }),
    }  # fmt: skip
    return model | _some(draw, optional)


@st.composite
def _spec(draw):
    name = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,12}", fullmatch=True).filter(
        lambda text: model_name(text) is None
    )
    models = draw(st.dictionaries(name, _model(), min_size=1, max_size=3))
    assume(not same_but_for_case(models))
    top = {"repository": st.sampled_from(["out", "../out", "/tmp/out", "größe 1"])}
    return _some(draw, top | {"server": st.sampled_from([*ORT_OF_RELEASE])}) | {"models": models}


class _Plain(yaml.SafeDumper):
    """Without the anchors and aliases that PyYAML writes where one object is there twice."""

    def ignore_aliases(self, data):
        return True


def _in(folder, spec):
    """References may lead out of the spec's folder and back."""
    return yaml.safe_load(yaml.dump(spec, Dumper=_Plain).replace("{here}", folder.name))


def _written(folder, spec, **style):
    path = folder / "models.yaml"
    path.write_text(yaml.dump(spec, Dumper=_Plain, sort_keys=False, **style), encoding="utf-8", newline="")
    return path


def _as_written(model):
    """What the spec says of a model, as it was in the file."""
    data = model.model_dump(mode="python", by_alias=True, exclude_unset=True)
    if isinstance(data["source"].get("onnx"), str) and data["source"]["onnx"].rpartition(":")[1]:
        data["source"]["onnx"] = {"python": data["source"]["onnx"]}
    if "instances" in data:  # one group, or a list of them
        (data["instances"],) = data["instances"]
    return _lists(data)


def _lists(value):
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@given(
    spec=_spec(), flow=st.sampled_from([None, True, False]), unicode=st.booleans(), width=st.sampled_from([20, 10_000])
)
@SETTINGS
def test_a_valid_spec_is_read_as_it_was_written(folder, spec, flow, unicode, width):
    spec = _in(folder, spec)
    path = _written(folder, spec, default_flow_style=flow, allow_unicode=unicode, width=width)
    read_back, document = read_spec(path)
    assert document.data == spec
    assert {name: _as_written(model) for name, model in read_back.models.items()} == spec["models"]
    assert list(read_back.models) == list(spec["models"])
    assert read_back.server == spec.get("server")
    for name in spec["models"]:
        line = document.lines["models", name]
        assert 1 <= line <= len(path.read_text().splitlines())


def _read_or_refused(path):
    """The problems of a file; none where it is a spec."""
    try:
        spec, _ = read_spec(path)
    except SpecError as exc:
        assert exc.exit_code == 2
        assert exc.problems
        for problem in exc.problems:
            assert problem.what
            assert problem.where.startswith(str(path)) or problem.what.startswith("and ")
        assert len(str(exc)) < 300_000
        return exc.problems
    assert spec.models
    return ()


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.lists(TEXT, max_size=2)
JUNK |= st.dictionaries(TEXT | st.sampled_from(["python", "max", "batch", "onnx"]), TEXT, max_size=2)
KEYS = sorted({key for path in ((), ("models", "m"), ("models", "m", "source")) for key in allowed_keys(Root, path)})


@given(data=st.data())
@SETTINGS
def test_a_spec_with_a_key_deleted_renamed_or_retyped(folder, data):
    spec = _in(folder, data.draw(_spec()))
    place, parents = spec, []
    for _ in range(data.draw(st.integers(0, 6))):
        inner = [key for key, value in place.items() if isinstance(value, dict) and value]
        if not inner:
            break
        parents.append(data.draw(st.sampled_from(inner)))
        place = place[parents[-1]]
    key = data.draw(st.sampled_from(list(place)))
    how = data.draw(st.sampled_from(["delete", "rename", "misspell", "retype", "add"]))
    if how == "delete":
        del place[key]
    elif how == "rename":
        place[data.draw(TEXT | st.sampled_from(KEYS))] = place.pop(key)
    elif how == "misspell":
        at = data.draw(st.integers(0, len(key)))
        place[key[:at] + data.draw(TEXT) + key[at + 1 :]] = place.pop(key)
    elif how == "retype":
        place[key] = data.draw(JUNK)
    else:
        place[data.draw(TEXT | st.sampled_from(KEYS))] = data.draw(JUNK)
    _read_or_refused(_written(folder, spec))


@given(data=st.data())
@SETTINGS
def test_a_spec_with_garbage_in_its_text(folder, data):
    text = yaml.dump(_in(folder, data.draw(_spec())), Dumper=_Plain, sort_keys=False)
    path = folder / "models.yaml"
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 20)))
        garbage = data.draw(TEXT | st.text(":-[]{}&*!|>%@`'\"#,?\t\n ~=<", max_size=8))
        text = text[:begin] + garbage + text[end:]
    path.write_text(text, encoding="utf-8", newline="")
    _read_or_refused(path)


@given(content=st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
@SETTINGS
def test_any_bytes_at_all(folder, content):
    path = folder / "models.yaml"
    path.write_bytes(content)
    assert _read_or_refused(path) != ()


YAMLISH = st.text(":-[]{}'\"#,? \n\tabx01.~_", max_size=40) | ARGUMENTS.map(lambda tree: yaml.dump(tree, Dumper=_Plain))


@given(text=YAMLISH)
@SETTINGS
def test_what_is_read_without_a_problem_is_what_pyyaml_reads(folder, text):
    path = folder / "any.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        document = read(path)
    except SpecError:
        return
    if document.problems:
        return
    theirs = yaml.load(text, Loader=yaml.CSafeLoader)
    assume(_is_plain(theirs))
    assert document.data == theirs


def _is_plain(value):
    """Without dates, which stay text here, and with keys that are text, as all are made here."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return not isinstance(value, (datetime.date, bytes)) and value == value
