"""A real headless Chromium, spoken to over its DevTools pipe; from Debian's packages where there is none."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core")
ANSWER_S = 60


def find_chromium():
    """Its path; installed with apt-get (as root, or by sudo) where it is not there: 20 seconds, once a machine."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found:
        return found
    with Path(tempfile.gettempdir(), "triton-repo-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a parallel run wait for one of them
        found = shutil.which(PACKAGES[0])
        if found:
            return found
        sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(
                [*sudo, "apt-get", *command], env=environment, capture_output=True, text=True, timeout=280, check=False
            )
        assert done.returncode == 0, f"the page is tested in Chromium: install one ({NAMES[0]})\n{done.stderr}"
    return shutil.which(PACKAGES[0])


class Browser:
    """One page in a headless Chromium; a context manager.

    Attributes:
        events: what it reported since the page was opened, oldest first.
    """

    def __init__(self, path):
        self.path, self.events, self.number, self.session = path, [], 0, None

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        to_read, self.outgoing = os.pipe()
        self.incoming, to_write = os.pipe()
        flags = ["--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars", "--no-first-run"]
        flags += ["--disable-background-networking", f"--user-data-dir={self.profile.name}", "--headless"]
        script = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'  # Chromium reads commands on 3 and answers on 4
        self.process = subprocess.Popen(
            ["bash", "-c", script, self.path, *flags, "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        os.close(self.outgoing)
        os.close(self.incoming)
        self.profile.cleanup()

    def call(self, method, **parameters):
        """Send a command and give its result; events that come first are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.outgoing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.incoming, 1 << 16)
            assert piece, "Chromium ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page):
        """Open a file and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, script):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def resize(self, width, height=900, *, mobile=False):
        """The size of the window, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        """``light`` or ``dark``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def press(self, key):
        """A key on the keyboard: ``Tab``, ``Enter``."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            parts = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            self.call("Input.dispatchKeyEvent", **parts, **(text if kind == "keyDown" else {}))

    def screenshot(self, path):
        """The whole page as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
