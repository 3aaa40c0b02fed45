"""The table of Triton's releases, and whether a server loads an engine."""

import dataclasses
import json
from pathlib import Path

import pytest

from builder import releases
from builder.errors import EngineError
from builder.releases import (
    ORT_OF_RELEASE,
    PINNED_RELEASE,
    RELEASES,
    check_engine_fits,
    image_of,
    newest_opset,
    opset_of_server,
)

ROOT = Path(__file__).parent.parent.parent


def test_two_years_without_a_gap():
    months = [f"{24 + (9 + index) // 12}.{(9 + index) % 12 + 1:02}" for index in range(24)]
    assert list(RELEASES) == months and months[0] == "24.10" and months[-1] == "26.09" == PINNED_RELEASE


def test_versions_rise_and_every_column_has_its_source():
    def rising(column):
        values = [tuple(map(int, getattr(release, column).split("."))) for release in RELEASES.values()]
        return values == sorted(values)

    assert all(rising(column) for column in ("server", "onnxruntime", "cuda", "driver"))
    sources = json.loads((ROOT / "builder/releases.json").read_text())["sources"]
    assert set(sources) == {field.name for field in dataclasses.fields(releases.Release)} - {"name"}


def test_the_pinned_image_is_the_one_that_is_served():
    assert f"TRITON_IMAGE={image_of(None)}\n" in (ROOT / ".env").read_text()


def test_opsets():
    assert newest_opset("24.10", "dynamo") == 21 and newest_opset(None, "dynamo") == 23
    assert newest_opset("24.10", "torchscript") == 20 and opset_of_server("25.09", "auto") == 23
    assert ORT_OF_RELEASE["26.09"] == "1.27.0"


@pytest.fixture
def known(monkeypatch):
    """Two releases whose TensorRT is known."""
    table = {
        "25.09": dataclasses.replace(RELEASES["25.09"], tensorrt="10.13.3.9"),
        "25.12": dataclasses.replace(RELEASES["25.12"], tensorrt="10.14.1"),
        "26.09": dataclasses.replace(RELEASES["26.09"], tensorrt="11.4.1"),
    }
    for name, row in table.items():
        monkeypatch.setitem(RELEASES, name, row)


def refused(*args, **kwargs):
    with pytest.raises(EngineError) as caught:
        check_engine_fits(*args, **kwargs)
    return str(caught.value)


def test_an_engine_of_the_same_tensorrt_is_loaded(known):
    assert check_engine_fits("25.09", "tensorrt", "10.13.3.9") == ()
    assert check_engine_fits("25.12", "tensorrt", "10.14.1.48") == ()


@pytest.mark.parametrize("version", ["10.13.3.8", "10.13.2.6", "10.14.1.48", "8.6.1"])
def test_an_engine_of_another_tensorrt_is_refused(version, known):
    text = refused("25.09", "tensorrt", version)
    assert f"release 25.09 cannot load an engine of TensorRT {version}" in text
    assert "build with TensorRT 10.13.3.9" in text and "--in-container" in text


def test_the_image_that_would_load_it_is_named(known):
    assert "or serve it with nvcr.io/nvidia/tritonserver:25.12-py3" in refused("25.09", "tensorrt", "10.14.1.48")


@pytest.mark.parametrize("release, version", [("25.12", "10.13.3.9"), ("26.09", "11.0.0"), ("26.09", "10.13.3.9")])
def test_a_version_compatible_engine_runs_on_a_newer_one(release, version, known):
    (note,) = check_engine_fits(release, "tensorrt", version, version_compatible=True)
    assert "version-compatible=true" in note
    assert "cannot load" in refused(release, "tensorrt", version)


@pytest.mark.parametrize("release, version", [("25.09", "10.14.1.48"), ("26.09", "8.6.1"), ("25.12", "11.0.0")])
def test_a_version_compatible_engine_does_not_run_on_an_older_one(release, version, known):
    assert "version compatible" in refused(release, "tensorrt", version, version_compatible=True)


def test_where_the_table_does_not_know_it_says_so_and_how_to_ask():
    unknown = next(release.name for release in RELEASES.values() if release.tensorrt is None)
    (note,) = check_engine_fits(unknown, "tensorrt", "10.13.3.9")
    assert "in no public table" in note and f"docker run --rm {image_of(unknown)}" in note


def test_triton_has_no_backend_for_tensorrt_rtx():
    assert "it has no backend for it" in refused("26.09", "tensorrt-rtx", "1.7.1.116")


def test_a_release_that_there_is_not():
    assert "unknown release of Triton: 26.13" in refused("26.13", "tensorrt", "10.13.3.9")


def test_what_the_user_knows_of_the_server_counts():
    assert check_engine_fits("26.09", "tensorrt", "10.13.3.9", tensorrt="10.13.3.9") == ()
    with pytest.raises(EngineError) as caught:
        check_engine_fits("26.09", "tensorrt", "10.14.1.48", tensorrt="10.13.3.9", where="models.m.engine")
    message = str(caught.value)
    assert "cannot load an engine of TensorRT 10.14.1.48" in message and "build with TensorRT 10.13.3.9" in message
    (note,) = check_engine_fits("26.09", "tensorrt", "10.14.1.48", tensorrt="10.14.1.40", version_compatible=True)
    assert "version-compatible=true" in note
