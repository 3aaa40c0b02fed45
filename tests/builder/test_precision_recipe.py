"""Recipes as files: what is written can be read, and what is odd is refused with a reason."""

import pytest
import yaml

from builder.errors import RecipeError
from builder.precision.recipe import METHODS, OPTIONS, VALUES, Recipe, read_recipe

RECIPE = Recipe("int8", "static", ("b", "a"), {"smooth": 0.8, "calibrator": "minmax", "reduce_range": True})


def test_a_recipe_comes_back_from_its_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.text("found by a search\non this machine"))
    again = read_recipe(file)
    assert again == Recipe("int8", "static", ("a", "b"), RECIPE.options)
    assert again.digest == RECIPE.digest
    assert file.read_text().startswith("# found by a search\n# on this machine\nprecision: int8\n")


def test_the_text_does_not_depend_on_the_order_of_options():
    turned = Recipe("int8", "static", ("a", "b"), dict(reversed(list(RECIPE.options.items()))))
    assert turned.text() == RECIPE.text()
    assert turned.digest == RECIPE.digest
    assert Recipe("int8", "static", ("a",), RECIPE.options).digest != RECIPE.digest


@pytest.mark.parametrize(
    ("change", "what", "expected", "got"),
    [
        ({"method": "magic"}, "unknown method 'magic'", "cast, static, dynamic, weights", "magic"),
        ({"precision": "fp16"}, "'static' does not make 'fp16'", "int8", "fp16"),
        ({"extra": 1}, "unknown key 'extra'", "precision, method, options, keep", "extra"),
        ({"options": {"alpha": 1}}, "unknown option 'alpha'", "smooth", "alpha"),
        ({"options": ["smooth"]}, "`options` is no mapping", "{option: value, ...}", "['smooth']"),
        ({"method": ["static"]}, "unknown method ['static']", "cast, static, dynamic, weights", "['static']"),
        ({"options": {"smooth": 1.5}}, "option 'smooth' has an unusable value", "null, or a number from 0 to 1", "1.5"),
        ({"options": {"activation": "u9"}}, "option 'activation' has an unusable value", "u8, s8", "'u9'"),
        ({"options": {"reduce_range": "yes"}}, "option 'reduce_range' has an unusable value", "true or false", "'yes'"),
        ({"options": {"percentile": True}}, "option 'percentile' has an unusable value", "from 50 to 100", "True"),
        ({"options": {"op_types": "Conv"}}, "option 'op_types' has an unusable value", "a list", "'Conv'"),
        ({"keep": "a"}, "`keep` is no list of node names", "[node, ...]", "'a'"),
        ({"keep": [1]}, "`keep` is no list of node names", "[node, ...]", "[1]"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, change, what, expected, got):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**RECIPE.as_dict(), **change}))
    with pytest.raises(RecipeError) as caught:
        read_recipe(file)
    error = caught.value
    assert what in str(error)
    assert str(file) in error.where
    assert expected in error.expected
    assert got in error.got
    assert "search again" in error.fix


@pytest.mark.parametrize("text", ["- a\n- b\n", "precision: [int8\n", "", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"no mapping|cannot be read"):
        read_recipe(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        read_recipe(tmp_path / "none.yaml")


def test_every_method_has_its_options_and_every_option_its_values():
    assert set(METHODS) == set(OPTIONS)
    assert set().union(*OPTIONS.values()) == set(VALUES)
