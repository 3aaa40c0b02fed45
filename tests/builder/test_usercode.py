import sys

import pytest

from builder.errors import SourceError
from builder.usercode import call, resolve, user_code


@pytest.fixture
def folders(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "model.py").write_text("from data import NAME\ndef load(): return NAME\n")
    return tmp_path / "one", tmp_path / "two"


def test_siblings_of_the_same_name_in_two_folders_do_not_mix(folders):
    for folder in (*folders, *folders):
        with user_code(folder):
            assert call("model.py:load", {}, folder, what="source") == folder.name


def test_nothing_is_left_behind(folders):
    path, modules = list(sys.path), set(sys.modules)
    with user_code(folders[0]):
        resolve("model.py:load", folders[0])
    assert sys.path == path
    assert {name for name in set(sys.modules) - modules if "data" in name or "model" in name} == set()


def test_the_error_names_what_is_defined(folders):
    with user_code(folders[0]), pytest.raises(SourceError, match="it defines load"):
        resolve("model.py:lode", folders[0])
