"""Publishing into a repository that a Triton polls: what it serves changes when ``config.pbtxt`` does, not before."""

import threading
from collections import Counter

import numpy as np
import pytest

from builder.repository.managing import keep, rollback
from builder.repository.publish import activate, publish
from serving import Client, Server

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_publish_polled")]

CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.version = float(args["model_version"])
        print("INIT", args["model_name"], args["model_version"], flush=True)

    def execute(self, requests):
        answer = np.array([self.version, 0], np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", answer)]) for _ in requests]
"""
POLL_S = 1


def _tree(name):
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": 0,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "labels.txt"}],
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    }


class Load:
    """A steady load over HTTP and gRPC, which counts every answer and every failure."""

    def __init__(self, server, name):
        self.answers = Counter()
        self.failures = []
        self._name = name
        self._stop = threading.Event()
        urls = [f"http://{server.http_url}", f"grpc://{server.grpc_url}"]
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for url in urls]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url):
        with Client(url, retries=0) as client:
            while not self._stop.wait(0.01):
                try:
                    self.answers[int(client.infer(self._name, {"x": np.zeros(1, np.float32)})["y"][0])] += 1
                except Exception as error:  # whatever it is: it is a failed request
                    self.failures.append(str(error))

    def since_now(self):
        """Forget what was answered so far."""
        self.answers.clear()


@pytest.fixture
def staged_model(staged_tree):
    """``staged_model(number, name="m")``: a version of the Python backend; ``number`` makes its content its own."""

    def make(number, name="m"):
        files = {"model.py": f"# {number}\n{CODE}", "labels.txt": f"north of {number}\neast of {number}\n"}
        return staged_tree(_tree(name), files, name=name)

    return make


def _labels(server, name):
    import tritonclient.http as http

    client = http.InferenceServerClient(server.http_url)
    tensor = http.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    wanted = [http.InferRequestedOutput("y", class_count=1)]
    answer = client.infer(name, [tensor], outputs=wanted).as_numpy("y")[0].decode()
    client.close()
    return answer.split(":")[2]


def _looks(server):
    """How often the server has found something new about the model; it says nothing while it finds nothing."""
    return server.log().count('"loading: m:')


def test_versions_arrive_are_served_and_are_rolled_back_without_a_failed_request(
    tmp_path, staged_model, triton_runtime, until
):
    repository = tmp_path / "repository"
    publish(staged_model(1), repository)
    with (
        Server(
            repository,
            runtime=triton_runtime,
            model_control_mode="poll",
            poll_interval_s=POLL_S,
            log_path=tmp_path / "log",
        ) as server,
        Client(f"http://{server.http_url}") as client,
        Load(server, "m") as load,
    ):
        until(lambda: load.answers[1] > 10)
        assert _labels(server, "m") == "north of 1"

        # It arrives, and nothing changes.
        looks = _looks(server)
        publish(staged_model(2), repository, activate=False)
        until(lambda: _looks(server) > looks)
        load.since_now()
        until(lambda: load.answers.total() > 100)
        assert set(load.answers) == {1}
        assert "INIT m 2" not in server.log()

        # The configuration is replaced: it is served.
        activate(repository, "m", 2)
        until(lambda: load.answers[2] > 10)
        assert _labels(server, "m") == "north of 2"

        # Three more, one after the other; then back.
        for number in (3, 4, 5):
            publish(staged_model(number), repository)
            until(lambda: load.answers[number] > 10)  # noqa: B023 - asked for at once
        assert rollback(repository, "m").version == 4
        load.since_now()
        until(lambda: load.answers[4] > 10)
        assert _labels(server, "m") == "north of 4"

        # Old versions go, and another model comes.
        assert keep(repository, 1).removed == (("m", 1), ("m", 2), ("m", 3))
        publish(staged_model(1, "n"), repository)
        until(lambda: client.is_ready("n"))
        load.since_now()
        until(lambda: load.answers.total() > 100)
        assert set(load.answers) == {4}
        assert load.failures == []
