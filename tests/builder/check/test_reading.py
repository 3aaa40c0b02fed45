"""What the server would see of a folder: its models, versions, configurations; everything that is no model."""

import os

import pytest

pytest.importorskip("tritonclient", reason="tritonclient carries the ModelConfig message")

from builder.check import check_repositories
from builder.check.parsing import parse
from builder.check.pbtxt import line_of, tree_of
from builder.check.reading import version_of
from builder.rules import Hit, Rule

CONFIG = """backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
dynamic_batching { }
"""
CODE = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def model(repository, name="m", config=CONFIG, versions=("1",)):
    folder = repository / name
    folder.mkdir(parents=True)
    for version in versions:
        (folder / version).mkdir()
        (folder / version / "model.py").write_text(CODE)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return folder


def rules(*repositories, **kwargs):
    judged = check_repositories(list(repositories), **kwargs)
    return [(one.model, one.rule) for one in judged.found if one.severity != "info"]


def test_a_good_model_has_no_finding(tmp_path):
    model(tmp_path)
    assert rules(tmp_path) == []


def test_a_model_without_a_configuration_is_judged_by_its_files(tmp_path):
    (model(tmp_path, "auto", None) / "1" / "model.py").write_text(
        "class TritonPythonModel:\n    def auto_complete_config(self, config):\n        return config\n"
    )
    model(tmp_path, "text", None)
    (tmp_path / "text" / "1" / "model.py").rename(tmp_path / "text" / "1" / "notes.txt")
    assert ("text", "backend-missing") in rules(tmp_path)
    assert ("auto", "backend-missing") not in rules(tmp_path)


@pytest.mark.parametrize(
    ("name", "number"),
    [("1", 1), ("0", 0), ("01", None), ("12-old", 12), ("v1", None), ("warmup", None), ("configs", None), ("-1", -1)],
)
def test_folders_are_versions_as_the_server_counts_them(name, number):
    assert version_of(name) == number


def test_a_model_without_a_version_is_refused(tmp_path):
    model(tmp_path, versions=("01",))
    judged = check_repositories([tmp_path]).found
    assert [(one.rule, one.file, one.line) for one in judged] == [("version-none", str(tmp_path / "m"), None)]
    assert "there are only 01" in judged[0].message


def test_folders_that_are_passed_over_are_a_warning(tmp_path):
    model(tmp_path, versions=("1", "old"))
    assert rules(tmp_path) == [("m", "version-folder-ignored")]


def test_a_version_named_by_more_than_its_number_is_not_found(tmp_path):
    model(tmp_path, versions=("1-old",))
    assert ("m", "version-folder-name") in rules(tmp_path)


def test_versions_that_the_policy_names(tmp_path):
    model(tmp_path, "some", CONFIG + "version_policy { specific { versions: [1, 7] } }\n")
    model(tmp_path, "none", CONFIG + "version_policy { specific { versions: [7] } }\n")
    assert rules(tmp_path) == [("none", "version-none"), ("some", "version-missing")]


def test_every_folder_is_taken_for_a_model(tmp_path):
    model(tmp_path)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "README.md").write_text("not a folder, so the server does not look")
    assert rules(tmp_path) == [(".ipynb_checkpoints", "folder-not-a-model")]
    assert rules(tmp_path, config_only=True) == []


def test_a_model_named_as_the_repository_is_said_to_be_one(tmp_path):
    folder = model(tmp_path)
    assert rules(folder) == [("", "repository-is-a-model")]


def test_one_name_in_two_repositories(tmp_path):
    for side in "ab":
        model(tmp_path / side)
    judged = check_repositories([tmp_path / "a", tmp_path / "b"]).found
    assert [(one.rule, one.file) for one in judged] == [("model-twice", str(tmp_path / side / "m")) for side in "ab"]
    assert str(tmp_path / "b" / "m") in judged[0].message


def test_links_that_lead_nowhere_or_in_circles(tmp_path):
    folder = model(tmp_path)
    (folder / "labels.txt").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert rules(tmp_path) == [("", "link-broken"), ("m", "link-broken")]


def test_a_folder_that_holds_itself_is_read_once(tmp_path):
    folder = model(tmp_path)
    (folder / "1" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(folder)
    assert ("again", "name-differs") not in rules(tmp_path)
    assert all(rule != "internal" for _, rule in rules(tmp_path))


@pytest.mark.parametrize("kind", ["folder", "pipe", "huge"])
def test_a_configuration_that_cannot_be_read(tmp_path, kind):
    folder = model(tmp_path, config=None)
    path = folder / "config.pbtxt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(10 << 30)
    assert ("m", "config-unreadable") in rules(tmp_path)


def test_configurations_per_host_are_judged_too(tmp_path):
    folder = model(tmp_path)
    (folder / "configs").mkdir()
    (folder / "configs" / "gpu.pbtxt").write_text(CONFIG + "max_batch: 3\n")
    judged = check_repositories([tmp_path]).found
    assert [(one.rule, one.file, one.line) for one in judged] == [
        ("config-unknown-field", str(folder / "configs" / "gpu.pbtxt"), 6)
    ]


def test_python_code_that_completes_the_configuration_may_leave_types_out(tmp_path):
    folder = model(tmp_path, config=CONFIG.replace("data_type: TYPE_FP32 ", "", 1))
    assert rules(tmp_path) == [("m", "tensor-data-type-missing")]
    (folder / "1" / "model.py").write_text(CODE + "    def auto_complete_config(config):\n        return config\n")
    assert rules(tmp_path) == []
    assert rules(tmp_path, config_only=True) == [("m", "tensor-left-to-code")]


def test_nothing_of_a_repository_is_run(tmp_path):
    folder = model(tmp_path)
    mark = tmp_path.parent / f"{tmp_path.name}-ran"
    (folder / "1" / "model.py").write_text(f"open({str(mark)!r}, 'w').write('x')\n{CODE}")
    check_repositories([tmp_path])
    assert not mark.exists()


def lines(text, *path):
    return line_of(tree_of(text), path)


def test_a_path_of_fields_leads_to_its_line():
    text = """# comment with { and "
name: "a"
input [
  {
    name: "x"
    dims: [ 1,
            2 ]
  },
  { name: "z" }
]
output { name: "y" }
output {
  name: "w"
}
model_warmup < inputs { key: "x" value: {
  data_type: TYPE_FP32 } }
  inputs { key: "z"
    value { dims: 3 } } >
parameters { key: "a" value { string_value: 'it is "quoted"' } }
dynamic_batching { priority_queue_policy [ { key: 1 value { } },
  { key: 2, value: { max_queue_size: 3 } } ] }
"""
    assert lines(text, "name") == 2
    assert lines(text, "input") == 4
    assert lines(text, "input", 0, "dims", 1) == 7
    assert lines(text, "input", 1, "name") == 9
    assert lines(text, "output", 1, "name") == 13
    assert lines(text, "model_warmup", 0, "inputs", "z", "dims") == 18
    assert lines(text, "model_warmup", 0, "inputs", "x", "data_type") == 16
    assert lines(text, "parameters", "a") == 19
    assert lines(text, "dynamic_batching", "priority_queue_policy", 2, "max_queue_size") == 21


def test_a_field_that_is_not_written_leads_to_what_is_around_it():
    assert lines('name: "a"\ninput [\n { name: "x" } ]', "input", 0, "dims") == 3
    assert lines('name: "a"\n', "input", 0) is None


@pytest.mark.parametrize(
    ("text", "rule", "line", "message", "fix"),
    [
        ('name: "a"\nmax_batchsize: 8', "config-unknown-field", 2, "`max_batchsize`", "`max_batch_size`"),
        ("preferred_batch_size: 8", "config-unknown-field", 1, "`preferred_batch_size`", "`dynamic_batching { ... }`"),
        ('input [\n { name: "x"\n  datatype: TYPE_FP32 } ]', "config-unknown-field", 3, "ModelInput", "`data_type`"),
        ("input { data_type: FP32 }", "config-value", 1, "`FP32`", "`TYPE_FP32`"),
        ("input { data_type: TYPE_INT46 }", "config-value", 1, "`TYPE_INT46`", "`TYPE_INT64`"),
        ("max_batch_size: eight", "config-value", 1, "whole number", "2147483647"),
        ('max_batch_size: "8"', "config-value", 1, "whole number", "max_batch_size: 8"),
        ("max_batch_size: 3000000000", "config-value", 1, "3000000000", "2147483647"),
        ("name: a", "config-value", 1, "no quotes", 'name: "a"'),
        ("input { optional: yes }", "config-value", 1, "true or false", "optional: true"),
        ("dynamic_batching: true", "config-value", 1, "is a message", "{ ... }"),
        ("max_batch_size: 1\nmax_batch_size: 2", "config-value", 2, "a second time", "once"),
        ("dynamic_batching { }\nsequence_batching { }", "config-value", 2, "exclude each other", "one of both"),
        ('name: "a', "config-syntax", 1, "cannot be read", "quote"),
        ('input [ { name: "x" }\n', "config-syntax", 2, "cannot be read", "bracket"),
        ("\x00\x01", "config-syntax", 1, "cannot be read", "bracket"),
    ],
)
def test_what_is_wrong_with_a_text_is_said_with_its_line_and_the_right_word(text, rule, line, message, fix):
    parsed, problems = parse(text)
    assert parsed is None
    ((found, hit),) = problems
    assert (found.id, hit.line) == (rule, line)
    assert message in hit.message
    assert fix in hit.fix


def test_several_mistakes_of_one_file_are_all_said():
    _, problems = parse('max_batchsize: 8\ninput [ { nam: "x", dims: [ four ] } ]\nplatfrom: "ensemble"\n')
    assert sorted(hit.line for _, hit in problems) == [1, 2, 2, 3]


def test_a_byte_order_mark_and_bytes_in_comments_do_no_harm(tmp_path):
    folder = model(tmp_path)
    (folder / "config.pbtxt").write_bytes(b"\xef\xbb\xbf# caf\xe9\n" + CONFIG.encode())
    assert rules(tmp_path) == []
    (folder / "config.pbtxt").write_bytes(CONFIG.encode() + b'parameters { key: "\xe9" value { } }')
    assert rules(tmp_path) == [("m", "config-syntax")]


def test_a_rule_that_fails_is_a_finding_and_the_others_are_asked(tmp_path, monkeypatch):
    from builder.check import judging

    def look(subject):
        yield Hit("seen before it failed", path=("name",))
        raise RuntimeError("a mistake of ours")

    rule = Rule("broken-rule", "error", "t", "r", "f")
    monkeypatch.setattr(judging, "CONFIG_RULES", ((rule, look), *judging.CONFIG_RULES))
    model(tmp_path, config=CONFIG.replace("[ 4 ]", "[ 0 ]", 1))
    found = {one.rule: one for one in check_repositories([tmp_path]).found}
    assert {"broken-rule", "internal", "tensor-dim-invalid"} <= set(found)
    assert found["internal"].severity == "warning"
    assert "`broken-rule` failed: RuntimeError: a mistake of ours" in found["internal"].message
