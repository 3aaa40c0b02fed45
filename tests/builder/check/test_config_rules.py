"""Each rule about a configuration: its bad example fires it, its good one does not."""

import pytest

pytest.importorskip("tritonclient", reason="tritonclient carries the ModelConfig message")

from google.protobuf import text_format

from builder.releases import RELEASES
from builder.rules import CONFIG_RULES, Subject, completes, served_by
from builder.triton_fields import model_config_class


def parsed(text):
    return text_format.Parse(text, model_config_class()())


def fired(rule_id, text, **kwargs):
    config = parsed(text)
    served = served_by(config, kwargs.get("files"), kwargs.get("name") or "")
    kwargs.setdefault("completes", completes(served))
    (look,) = [look for rule, look in CONFIG_RULES if rule.id == rule_id]
    return list(look(Subject(config, served, **kwargs)))


NAMED = {
    "name-differs": {"name": "encoder"},
    "field-newer-than-server": {"release": RELEASES["24.10"]},
    "backend-not-in-server": {"release": RELEASES["26.09"]},
    "kind-gpu-on-cpu-server": {"gpu": False},
}


@pytest.mark.parametrize("rule", [rule for rule, _ in CONFIG_RULES], ids=lambda rule: rule.id)
def test_the_bad_example_fires_and_the_good_one_does_not(rule):
    given = NAMED.get(rule.id, {})
    assert fired(rule.id, rule.bad, **given)
    assert fired(rule.id, rule.good, **given) == []


def test_ids_are_words_with_hyphens_and_no_two_are_alike():
    ids = [rule.id for rule, _ in CONFIG_RULES]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not all(part.isalpha() for part in name.split("-"))] == []


@pytest.mark.parametrize("rule", [rule for rule, _ in CONFIG_RULES], ids=lambda rule: rule.id)
def test_every_hit_says_what_and_how_and_leads_to_a_field(rule):
    config = parsed(rule.bad)
    for hit in fired(rule.id, rule.bad, **NAMED.get(rule.id, {})):
        assert hit.message and hit.fix
        assert hit.path and hit.path[0] in config.DESCRIPTOR.fields_by_name  # else it has no line


def test_no_good_example_is_refused_by_another_rule_of_its_own_file():
    # A good example is a fragment: what it does not write, other rules may miss.
    fragment = {"backend-missing", "pytorch-needs-tensors"}
    for rule, _ in CONFIG_RULES:
        for other, look in CONFIG_RULES:
            if other.severity == "error" and other.id not in fragment:
                config = parsed(rule.good)
                served = served_by(config)
                hits = list(look(Subject(config, served, completes=completes(served))))
                where = f"{rule.id}: {other.id}: {[hit.message for hit in hits]}"
                assert not hits or "source" in other.id or "target" in other.id, where
