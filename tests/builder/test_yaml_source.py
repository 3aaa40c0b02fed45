import pytest

from builder.errors import SpecError
from builder.spec.yaml_source import read


def _read(tmp_path, text):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    return read(path)


def test_every_key_knows_its_line(tmp_path):
    document = _read(tmp_path, "a:\n  b: 1\n  c: [x, {d: 2}]\n")
    assert document.data == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert document.where(("a", "b")).endswith("models.yaml:2, a.b")
    assert document.where(("a", "c", 1, "d")).endswith("models.yaml:3, a.c[1].d")
    assert document.where(("a", "not there")).endswith("models.yaml:1, a['not there']")


def test_scalars_have_the_types_of_yaml(tmp_path):
    assert _read(tmp_path, "a: 1\nb: 1.5\nc: true\nd: null\ne: '1'\n").data == {
        "a": 1, "b": 1.5, "c": True, "d": None, "e": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x\n", r"alias \*x"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: " + "[" * 100 + "]" * 100, "nested too deeply"),
    ],
)
def test_what_cannot_be_a_spec_is_refused(tmp_path, text, message):
    with pytest.raises(SpecError, match=message):
        _read(tmp_path, text)


def test_a_billion_laughs_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(SpecError, match="alias"):
        _read(tmp_path, "\n".join(lines))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpecError, match="no such file") as caught:
        read(tmp_path / "models.yaml")
    assert str(tmp_path / "models.yaml") in str(caught.value)


def test_a_folder_is_not_a_spec(tmp_path):
    with pytest.raises(SpecError, match="this is a folder"):
        read(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "models.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(SpecError, match="no UTF-8 text"):
        read(tmp_path / "models.yaml")


def test_a_huge_spec_is_refused_unread(tmp_path):
    path = tmp_path / "models.yaml"
    with path.open("wb") as stream:
        stream.truncate(100 * 1024 * 1024)
    with pytest.raises(SpecError, match="too large"):
        read(path)
