"""The pieces that a search is made of, on numbers given by hand."""

import pytest

from builder.precision.families import families
from builder.precision.frontier import Candidate, fastest, frontier, table
from builder.precision.recipe import OPTIONS, Recipe
from builder.precision.search import _expected, _fewest
from builder.precision.sensitivity import Cost, Part, costs


class _Passing:
    def __init__(self, ok):
        self.ok = ok


@pytest.mark.parametrize("most", [1, 2, 3, 7, 20])
def test_the_fewest_that_pass_are_found_from_every_guess(most):
    for least in range(1, most + 1):
        for guess in range(most + 2):
            asked = []

            def leaving(count, asked=asked, least=least):
                asked.append(count)
                return _Passing(count >= least)

            assert _fewest(leaving, most, guess) == least
            assert len(asked) == len(set(asked))
            assert len(asked) <= 2 * most.bit_length() + 1


def test_where_not_even_the_most_passes_there_is_none():
    assert _fewest(lambda count: _Passing(False), 9, 3) is None
    assert _fewest(lambda count: _Passing(True), 0, 3) is None


def _costs(*losses):
    return [Cost(Part(f"n{index}", "MatMul", 100.0), loss) for index, loss in enumerate(losses)]


def test_how_many_stay_in_float_is_guessed_from_the_sum():
    # 5 + 2 + 0.5 + 0.3: without the first 2.8 is left, without two 0.8.
    assert _expected(_costs(5, 2, 0.5, 0.3), 7.8, 3) == 2
    # All of it loses twice as much as its parts: without two 1.6 is left, without three 0.6.
    assert _expected(_costs(5, 2, 0.5, 0.3), 15.6, 3) == 3
    assert _expected(_costs(5, 5, 5, 5), 20, 3) == 3


def _parts(count, kind="MatMul 8x8"):
    return [Part(f"{kind} {index}", kind, 100.0) for index in range(count)]


def test_few_parts_are_measured_one_by_one():
    asked = []

    def loss(changed):
        asked.append([part.name for part in changed])
        return float(len(asked))

    found = costs(_parts(3), loss, most=3)
    assert [cost.loss for cost in found] == [1.0, 2.0, 3.0]
    assert all(len(names) == 1 for names in asked)


@pytest.mark.parametrize("dear", [0, 13, 63, 64, 99])
def test_one_dear_part_of_many_is_found_by_halving(dear):
    every = [*_parts(64), *_parts(36, "Conv 3x3")]
    asked = []

    def loss(changed):
        asked.append(changed)
        return sum(50.0 if part is every[dear] else 0.01 for part in changed)

    found = costs(every, loss, most=16)
    assert max(found, key=lambda cost: cost.loss).part is every[dear]
    assert [cost.part for cost in found] == every
    assert len(asked) <= 16
    assert sum(cost.loss for cost in found) == pytest.approx(50.99)


def test_more_kinds_than_measurements():
    every = [Part(f"n{index}", f"kind {index}", 1.0) for index in range(40)]
    asked = []

    def loss(changed):
        asked.append(changed)
        return float(len(changed))

    assert len(costs(every, loss, most=8)) == 40
    assert len(asked) <= 9


def test_losses_that_are_no_number_of_use_are_bounded():
    assert [cost.loss for cost in costs(_parts(1), lambda changed: float("inf"), most=4)] == [1e6]
    assert [cost.loss for cost in costs(_parts(1), lambda changed: -0.2, most=4)] == [0.0]


def _candidate(name, margin, size, ratio=None, noise=0.02, ok=True):
    recipe = Recipe("int8", "dynamic", (name,))
    return Candidate(recipe, {"cosine": margin}, ok, margin, size, None if ratio is None else 100.0, ratio, noise)


def test_the_frontier_is_what_nothing_beats():
    accurate, small, fast = _candidate("a", 0.9, 30, 1.2), _candidate("s", 0.5, 20, 1.1), _candidate("f", 0.5, 30, 1.9)
    beaten = _candidate("b", 0.5, 30, 1.2)
    assert frontier([beaten, fast, small, accurate]) == (accurate, small, fast)


def test_where_some_were_timed_the_others_are_not_on_it():
    timed = _candidate("t", 0.1, 30, 1.2)
    assert frontier([timed, _candidate("u", 0.9, 10)]) == (timed,)
    assert len(frontier([_candidate("u", 0.9, 10)])) == 1


def test_a_difference_inside_the_noise_goes_to_the_more_accurate():
    fast, accurate = _candidate("f", 0.1, 30, 1.50), _candidate("a", 0.4, 30, 1.48)
    assert fastest([fast, accurate]) is accurate
    assert fastest([fast, _candidate("a", 0.4, 30, 1.4)]) is fast
    assert fastest([fast, _candidate("a", 0.4, 30, 1.4, noise=0.1)]).margin == 0.4


def test_without_times_the_fewest_nodes_in_float():
    many = Candidate(Recipe("int8", "static", ("a", "b")), {}, True, 0.9, 30)
    few = Candidate(Recipe("int8", "static", ("a",)), {}, True, 0.1, 30)
    assert fastest([many, few]) is few


def test_the_table_has_a_line_for_each():
    lines = table([_candidate("a", 0.9, 30_000_000, 1.2), _candidate("b", 0.5, 20_000_000, ok=False)]).splitlines()
    assert lines[0].split() == ["recipe", "in", "float", "MB", "speed", "cosine", "within"]
    assert lines[1].split() == ["dynamic", "1", "30.0", "1.20x", "0.9000", "yes"]
    assert lines[2].split() == ["dynamic", "1", "20.0", "-", "0.5000", "no"]


PRODUCTS = [Part("m", "MatMul 8x8", 100.0)]
CONVOLUTIONS = [Part("c", "Conv 8x8x3x3", 100.0)]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "int8-weights", "int4-weights"])
@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt", "tensorrt-rtx", "openvino"])
def test_every_family_is_a_recipe_that_can_be_read_back(precision, target):
    found = families(precision, target, PRODUCTS, ["kept"], {})
    assert found
    for family in found:
        assert family.base.keep == ("kept",)
        assert Recipe.from_dict(family.base.as_dict(), "here") == family.base
        assert {name for name, _ in family.axes} <= OPTIONS[family.base.method]


def test_engines_take_signed_symmetric_integers_only():
    for target in ("cuda", "tensorrt", "tensorrt-rtx"):
        for family in families("int8", target, PRODUCTS, [], {}):
            assert family.base.method == "static"
            assert (family.base.options["activation"], family.base.options["symmetric"]) == ("s8", True)
            assert {name for name, _ in family.axes} <= {"calibrator", "smooth"}


def test_dynamic_ranges_are_for_products():
    assert families("int8", "cpu", PRODUCTS, [], {})[0].base.method == "dynamic"
    assert {family.base.method for family in families("int8", "cpu", CONVOLUTIONS, [], {})} == {"static"}


def test_large_blocks_come_before_small_ones():
    sizes = [family.base.options["block_size"] for family in families("int4-weights", "cpu", [], [], {})]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) > 1


def test_what_is_given_is_not_varied_and_auto_is_not_given():
    given = families("int8", "tensorrt", PRODUCTS, [], {"calibrator": "entropy", "io": "fp16"})[0]
    assert given.base.options["calibrator"] == "entropy"
    assert "io" not in given.base.options
    assert "calibrator" not in dict(given.axes)
    assert "calibrator" in dict(families("int8", "tensorrt", PRODUCTS, [], {"calibrator": "auto"})[0].axes)
