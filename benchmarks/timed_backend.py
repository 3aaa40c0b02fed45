"""Put in the place of the backend's ``model.py`` by ``benchmarks/serving.py``: the same, with a clock.

``TIMES_JSON`` is replaced by the file that the times go to: for 1 request in an execution and for the number that
most requests came in, the median microseconds of ``execute`` and of ONNX Runtime's run within it.
"""

import json
import statistics
import time
from pathlib import Path

import untimed_model
from ort_backend import sessions

running_ns = 0
plain_runner = sessions.runner


def timed_runner(session, options):
    """The backend's runner, adding up what it takes."""
    run = plain_runner(session, options)

    def timed(names, feed):
        global running_ns
        started = time.perf_counter_ns()
        try:
            return run(names, feed)
        finally:
            running_ns += time.perf_counter_ns() - started

    return timed


sessions.runner = timed_runner


class TritonPythonModel(untimed_model.TritonPythonModel):
    """The backend's model with a clock around ``execute``."""

    def initialize(self, args):
        """As the backend's; then put the clock in place."""
        super().initialize(args)
        plain_execute = self.execute
        self.times = {}

        def execute(requests):
            global running_ns
            running_ns = 0
            started = time.perf_counter_ns()
            responses = plain_execute(requests)
            taken = time.perf_counter_ns() - started
            self.times.setdefault(len(requests), []).append((taken, running_ns))
            return responses

        self.execute = execute

    def finalize(self):
        """Write the times down."""
        larger = sorted((count for count in self.times if count > 1), key=lambda count: -count * len(self.times[count]))
        entries = [
            {
                "requests": count,
                "executions": len(self.times[count]),
                "execute_us": statistics.median(taken for taken, _ in self.times[count]) / 1e3,
                "run_us": statistics.median(run for _, run in self.times[count]) / 1e3,
            }
            for count in [1, *larger[:1]]
            if count in self.times
        ]
        Path("TIMES_JSON").write_text(json.dumps(entries))
        super().finalize()
