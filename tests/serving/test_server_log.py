from __future__ import annotations

from serving import server_log

# From real runs of Triton 2.51 on repositories with one mistake each.
LOG = r"""W1121 04:44:37.832365 17957 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory"
E1121 04:44:37.833535 17957 model_repository_manager.cc:1460] "Poll failed for model directory 'badname': unexpected directory name 'badname' for model 'other', directory name must equal model name"
[libprotobuf ERROR /tmp/tritonbuild/text_format.cc:337] Error parsing text-format inference.ModelConfig: 1:35: Expected integer, got: oops
E1121 04:44:37.833606 17957 model_repository_manager.cc:1460] "Poll failed for model directory 'broken': failed to read text proto from bad/broken/config.pbtxt"
I1121 04:44:37.834300 17957 model_lifecycle.cc:472] "loading: noback:1"
I1121 04:44:37.834356 17957 model_lifecycle.cc:472] "loading: raises:1"
I1121 04:44:37.834356 17957 model_lifecycle.cc:472] "loading: long:1"
E1121 04:44:37.834390 17957 model_repository_manager.cc:724] "failed to load model 'novers': at least one version must be available under the version policy of model 'novers'"
E1121 04:44:37.838156 17957 model_lifecycle.cc:642] "failed to load 'noback' version 1: Invalid argument: unable to find backend library for backend 'nosuch', try specifying runtime on the model configuration."
I1121 04:44:37.838174 17957 model_lifecycle.cc:777] "failed to load 'noback'"
I1121 04:44:39.614740 17957 model_lifecycle.cc:839] "successfully loaded 'good'"
E1121 04:44:39.757092 17957 model_lifecycle.cc:642] "failed to load 'raises' version 1: Internal: ValueError: no file:\nsecond line\n\nAt:\n  model.py(3): initialize\n"
E1121 04:44:59.957775 18267 model_repository_manager.cc:1415] "failed to poll model 'nosuch': model not found in any model repository."
I1121 04:44:39.757355 17957 server.cc:674] 
"""  # noqa: E501, W291
TABLE = """+--------+---------+--------+
| Model  | Version | Status |
+--------+---------+--------+
"""


def test_every_failure_with_the_server_s_reason() -> None:
    failures = server_log.load_failures(LOG)
    assert set(failures) == {"badname", "broken", "novers", "noback", "raises", "nosuch"}
    assert failures["noback"].startswith("Invalid argument: unable to find backend library for backend 'nosuch'")
    assert failures["raises"].splitlines()[:2] == ["Internal: ValueError: no file:", "second line"]
    assert failures["nosuch"] == "model not found in any model repository."


def test_a_parse_error_comes_with_its_place() -> None:
    assert server_log.load_failures(LOG)["broken"].endswith("(line:column 1:35: Expected integer, got: oops)")
    assert "Expected integer" not in server_log.load_failures(LOG)["badname"]


def test_a_later_success_takes_a_failure_back() -> None:
    log = LOG + """I1121 04:45:00.000000 1 model_lifecycle.cc:839] "successfully loaded 'raises'"\n"""
    assert "raises" not in server_log.load_failures(log)


def test_the_other_log_format() -> None:
    line = """2026-11-21T04:49:33Z E 21691 model_lifecycle.cc:642] "failed to load 'm' version 1: Internal: why"\n"""
    assert server_log.load_failures(line) == {"m": "Internal: why"}
    assert server_log.is_alarming(line)


def test_what_is_still_loading() -> None:
    assert server_log.loading(LOG) == ["long"]


def test_all_are_judged_when_the_table_is_written() -> None:
    assert not server_log.has_judged_all(LOG)
    assert server_log.has_judged_all(LOG + TABLE)


def test_a_taken_port() -> None:
    line = """E1121 1 main.cc:293] "failed to start Metrics service: Socket '127.0.0.1:8002' already in use " """
    assert server_log.port_taken(line) == "127.0.0.1:8002"
    assert server_log.port_taken(LOG) == ""


def test_why_the_server_refused() -> None:
    assert server_log.refusal("x\nerror: creating server: Internal - failed to stat file nodir\n") == (
        "Internal - failed to stat file nodir"
    )
    assert server_log.refusal("tritonserver: unrecognized option '--bogus'\nUsage: tritonserver [options]\n  --id") == (
        "tritonserver: unrecognized option '--bogus'"
    )
    assert server_log.refusal(LOG) == ""


def test_the_tail_leaves_tables_and_gpu_complaints_out() -> None:
    lines = server_log.tail(LOG + TABLE, 3).splitlines()
    places = ["model_lifecycle.cc:839]", "model_lifecycle.cc:642]", "model_repository_manager.cc:1415]"]
    assert [line.split()[3] for line in lines] == places
    assert "pinned" not in server_log.tail(LOG, 100)


def test_alarming_lines() -> None:
    assert [server_log.is_alarming(line) for line in LOG.splitlines()[:2]] == [False, True]
