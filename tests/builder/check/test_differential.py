"""`check-repo` against the real server, in little: the whole list is judged by `make differential`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks.differential import compare
from benchmarks.differential.case import LINK, Case
from benchmarks.differential.generate import MUTATIONS, cases
from benchmarks.differential.offline import Opinion, opinion, opinions
from benchmarks.differential.real import Memory, Verdict, verdicts
from benchmarks.differential.recorded import recorded
from benchmarks.differential.seeds import seeds
from benchmarks.differential.style import styled

COUNT = 2000
# Loaded by a real server here: one of each sort, most of them refused before a process is started for them.
LOADED = (
    "unchanged",
    "field misspelt",
    "bracket lost",
    "max_batch_size changed",
    "preferred batch sizes",
    "version folder removed",
    "ensemble map key",
    "ensemble tensor",
    "ensemble cycle",
    "step's batch",
    "harmless: rewritten",
)


@pytest.fixture(scope="module")
def every() -> list[Case]:
    return cases(COUNT)


def test_the_list_is_long_diverse_and_always_the_same(every):
    assert len(every) == COUNT == len({case.key for case in every})
    kinds = {case.kind for case in every}
    assert kinds == {*MUTATIONS, "unchanged"} and len(kinds) > 40
    assert [case.key for case in cases(150)] == [case.key for case in every[:150]]
    assert [case.key for case in cases(150, seed=1)] != [case.key for case in every[:150]]


@pytest.mark.parametrize("seed", seeds(), ids=lambda case: case.seed)
def test_a_style_changes_the_text_alone(seed):
    if not seed.text():
        assert seed.seed == "bare"
        return
    texts = {styled(seed.config(), random.Random(number)) for number in range(8)}
    assert len(texts) > 1
    for text in texts:
        assert text_format.Parse(text, model_config_pb2.ModelConfig()) == seed.config()


def test_a_case_is_written_under_names_of_its_own(tmp_path):
    files = {
        "step_id/config.pbtxt": b'name: "step_id"',
        "all_id/config.pbtxt": b'platform: "ensemble" ensemble_scheduling { step { model_name: "step_id" } }',
        "all_id/1/": b"",
        "notes/a.txt": LINK + b"b.txt",
    }
    case = Case("x", files, "all_id")
    names = case.names()
    assert set(case.write(tmp_path)) == set(names.values())
    assert names["notes"] == "notes" and names["step_id"].startswith("step_") and names["step_id"] != "step_id"
    assert names["step_id"] in (tmp_path / names["all_id"] / "config.pbtxt").read_text()
    assert (tmp_path / names["all_id"] / "1").is_dir()
    assert (tmp_path / "notes/a.txt").readlink() == Path("b.txt")
    other = case.with_text("max_batch_size: 1 # ensemble")
    assert other.names()["step_id"] == names["step_id"]  # an equal model keeps its name, so that it can stay loaded
    assert other.names()["all_id"] != names["all_id"]


def test_verdicts_are_counted():
    def pair(loads: bool, agreed: bool, reason: str = "", apart: str = "", kind: str = "k") -> compare.Pair:
        errors = () if loads is agreed else (("some-rule", "a | b"),)
        return compare.Pair(Case("s", {}, kind=kind, apart=apart), Verdict(loads, reason=reason), Opinion(errors))

    right, refused = pair(True, True), pair(False, True, "no")
    missed, false = pair(False, False, "in vain"), pair(True, False)
    other = pair(False, False, "implicit state is not available behind the embedded server's backend")
    pairs = [
        right,
        refused,
        refused,
        missed,
        false,
        other,
        pair(False, False, "x", apart="only running the code tells"),
    ]
    count = compare.counted(compare.compared(pairs))
    assert count == compare.Count(5, 3, 2, 1)
    assert (count.recall, count.false_errors, count.holds) == (2 / 3, 0.5, False)
    assert compare.differing(pairs) == [missed, false] == compare.unexplained(pairs)
    text = "\n".join(compare.table(pairs))
    assert "**recall 0.6667**" in text and "**false errors 0.5000**" in text
    assert "| k | s | in vain | no error | **none** |" in text
    assert "| k | s | loads | some-rule: a / b | **none** |" in text
    assert "our ONNX Runtime backend lacks it, NVIDIA's has it | 1 | 1 | 0 |" in text
    assert compare.counted([right]) == compare.Count(1, 0, 0, 0) and compare.counted([right]).holds


def test_what_the_server_said_of_all_of_them_is_foreseen(every):
    """Every fifth case against the verdict that the last `make differential` wrote down."""
    known = recorded()
    some = [case for case in every if case.key in known]
    assert len(some) == COUNT, "the list changed: run make differential"
    some = some[::5]
    pairs = compare.paired(some, known, opinions(some))
    assert not [pair.offline.broken for pair in pairs if pair.offline.broken]
    count = compare.counted(compare.compared(pairs))
    assert count.refused > 150 and count.cases - count.refused > 80
    found = "\n".join(f"{p.case.kind}, {p.case.seed}: {p.server} {p.offline}" for p in compare.unexplained(pairs))
    assert count.holds and not found, found


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.xdist_group("differential")
def test_a_real_server_says_the_same(every, tmp_path):
    known = recorded()
    cheap = ("shaped", "stream", "dense", "levels")
    of_kind = {kind: [case for case in every if case.kind == kind] for kind in LOADED}
    chosen = [min(found, key=lambda case: case.seed not in cheap) for found in of_kind.values()]
    memory = Memory(tmp_path / "verdicts.jsonl")
    said = verdicts(chosen, memory, servers=1)
    assert {case.key: said[case.key].loads for case in chosen} == {case.key: known[case.key].loads for case in chosen}
    pairs = compare.paired(chosen, said, {case.key: opinion(case) for case in chosen})
    assert not compare.differing(pairs)
    assert 2 < compare.counted(pairs).refused < len(chosen) - 1
    assert Memory(tmp_path / "verdicts.jsonl").known == memory.known
