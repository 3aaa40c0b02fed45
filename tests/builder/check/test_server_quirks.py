"""What the differential test taught: places where the server is stricter, or laxer, than it looks."""

import pytest

from benchmarks.differential.case import Case
from benchmarks.differential.offline import opinion
from benchmarks.differential.seeds_python import MODEL
from builder.check.output import explanation
from builder.check.parsing import parse
from builder.rules.disagreements import DISAGREEMENTS, Disagreement, explained

CONFIG = """backend: "python"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""


def rules_of(config, **files):
    held = {"m_id/config.pbtxt": config.encode(), "m_id/1/model.py": MODEL.encode()}
    held |= {f"m_id/{path}": content for path, content in files.items()}
    return {rule for rule, _ in opinion(Case("quirk", held, "m_id")).errors}


def test_it_begins_clean():
    assert rules_of(CONFIG) == set()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("max_batch_size: 4", "max_batch_size: +4", "config-value"),
        ("max_batch_size: 4", "# +4\nmax_batch_size: 4", None),
        ('"x"', '"+x"', None),
        ("max_batch_size", "model_repository_agents { agents { } }\nmax_batch_size", "agent-without-name"),
        ("max_batch_size", "model_repository_agents { }\nmax_batch_size", "agent-without-name"),
        ("max_batch_size", 'default_model_filename: "model.onnx"\nmax_batch_size', "artifact-missing"),
        ('backend: "python"', 'platform: "ensemble"\ndefault_model_filename: "model.onnx"', "platform-backend-pair"),
        (
            'backend: "python"',
            'platform: "onnxruntime_onnx"\ndefault_model_filename: "model.plan"',
            "platform-backend-pair",
        ),
        ('name: "x"', 'name: "x" data_type: TYPE_FP32 dims: 2 }, { name: "x"', None),
        ("max_batch_size", "sequence_batching { }\ninstance_group { passive: true }\nmax_batch_size", None),
    ],
)
def test_a_configuration(old, new, rule):
    assert old in CONFIG
    found = rules_of(CONFIG.replace(old, new, 1))
    assert (rule in found) if rule else found == set()


@pytest.mark.parametrize(
    ("folder", "rule"),
    [("99999999999999999999", "version-folder-huge"), ("-1", "version-folder-name"), ("9223372036854775807", None)],
)
def test_a_version(folder, rule):
    found = rules_of(CONFIG + "version_policy { all { } }", **{f"{folder}/model.py": MODEL.encode()})
    assert found == ({rule} if rule else set())


def test_a_plus_is_said_with_its_line_and_the_right_number():
    message, problems = parse('name: "m"\nmax_batch_size: +8\n')
    assert message is None
    [(rule, hit)] = problems
    assert (rule.id, hit.line) == ("config-value", 2)
    assert hit.message.startswith("`max_batch_size` is a whole number, not `+8`")


def test_a_known_difference_is_on_its_rule_s_page():
    from builder.check import all_rules

    rules = {rule.id: rule for rule in all_rules()}
    assert {known.rule for known in DISAGREEMENTS} <= set(rules)
    for known in DISAGREEMENTS:
        assert known.why in explanation(rules[known.rule], lambda text, how: text)
    assert explained("name-differs") == ()
    assert "known differences" not in explanation(rules["name-differs"], lambda text, how: text)


def test_a_difference_fits_one_side_only():
    missed = Disagreement("r", "why", server="^no such")
    assert missed.fits("no such thing", set()) and not missed.fits("no such thing", {"other"})
    assert not missed.fits("else", set()) and not missed.fits("", set())
    false = Disagreement("r", "why")
    assert false.fits("", {"r"}) and not false.fits("", {"other"}) and not false.fits("refused", {"r"})
