"""Who asks the server all the time, and knows what each version has to answer.

Every fourth request asks for a label (Triton's classification extension). Those alone Triton itself may refuse while it
changes versions: when it writes the answer it looks the version up again that gave it (`ServerModelBatchProperties` in
both of its endpoints), and says "not at ready state" where that one has just been let go. They are counted apart.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import Any

import numpy as np

from benchmarks.chaos_models import Models, Right, X
from serving.server import Server

_PAUSE_S = 0.05
_LABEL_EVERY = 4


class Asker:
    """Asks every model in turn over HTTP and gRPC, for its newest version, and checks every answer.

    Attributes:
        requests: how many were answered, by protocol.
        answers: by model and version.
        wrong: answers that are not those of the version that gave them, or of a version older than one before.
        failed: requests without an answer.
        labels_refused: requests for a label that Triton refused because it had let their version go meanwhile.
    """

    def __init__(self, server: Server, models: Models, names: tuple[str, ...]) -> None:
        self.requests: Counter[str] = Counter()
        self.answers: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.failed: list[str] = []
        self.labels_refused = 0
        self._models = models
        self._names = names
        self._stop = threading.Event()
        self._right: dict[tuple[str, int], Right] = {}
        self._newest: dict[tuple[str, str], int] = {}
        places = {"http": server.http_url, "grpc": server.grpc_url}
        self._threads = [threading.Thread(target=self._ask, args=place, daemon=True) for place in places.items()]

    def __enter__(self) -> Asker:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, protocol: str, address: str) -> None:
        import tritonclient.grpc
        import tritonclient.http

        module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
        client = module.InferenceServerClient(address)
        tensor = module.InferInput("x", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X)
        for number in itertools.count():
            if self._stop.wait(_PAUSE_S):
                break
            by_label = number % _LABEL_EVERY == 0
            wanted = [module.InferRequestedOutput("y", class_count=1)] if by_label else None
            for name in self._names:
                try:
                    answer = client.infer(name, [tensor], outputs=wanted)
                except Exception as error:  # whatever it is: it is a failed request
                    if by_label and "is not at ready state" in str(error):
                        self.labels_refused += 1
                    else:
                        self.failed.append(f"{name} over {protocol}: {error}")
                else:
                    self.requests[protocol] += 1
                    self._check(protocol, name, answer)
        client.close()

    def _check(self, protocol: str, name: str, answer: Any) -> None:
        response = answer.get_response()
        version = int(response["model_version"] if isinstance(response, dict) else response.model_version)
        y = answer.as_numpy("y")
        self.answers[name, version] += 1
        try:
            right = self._right.get((name, version)) or self._models.right(name, version)
        except (OSError, ValueError, KeyError) as error:
            self.wrong.append(f"{name} version {version}, which is not whole in the repository: {error!r}")
            return
        self._right[name, version] = right
        if y.dtype.kind in "OS":
            value, _, label = y.ravel()[0].decode().split(":", 2)
            good = float(value) == float(right.factor * X.max()) and label == right.label
        else:
            good = bool(np.array_equal(y, np.float32(right.factor) * X))
        if not good:
            self.wrong.append(f"{name} version {version} over {protocol}: {y!r} instead of {right}")
        if version < self._newest.get((protocol, name), 0):
            self.wrong.append(f"{name} over {protocol}: version {version} after a newer one")
        self._newest[protocol, name] = max(version, self._newest.get((protocol, name), 0))
