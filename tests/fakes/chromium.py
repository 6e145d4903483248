"""Headless Chromium, driven over a pipe by its own protocol (chromedevtools.github.io); nothing is fetched for it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --remote-debugging-pipe --force-device-scale-factor=1"
)


_SCROLLED = "[scrollY, ...[...document.querySelectorAll('.frames')].map(e => e.scrollTop)].join()"


class Browser:
    """One open page."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._number, self._rest, self._session = to, answers, 0, b"", ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.requests: list[str] = []
        self.ask("Page.enable")
        self.ask("Network.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == self._number:
                assert "error" not in got, got
                result: dict[str, Any] = got["result"]
                return result

    def open(self, page: Path) -> float:
        """Show a file; returns the seconds until it was loaded and drawn."""
        start = time.monotonic()
        self.ask("Page.navigate", url=page.absolute().as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass
        self.look()
        return time.monotonic() - start

    def eval(self, script: str) -> Any:
        """The value of an expression in the page; the page's own policy does not bind it."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, *, rest: bool = True) -> None:
        """Press and release a key, and let scrolling come to rest."""
        before = self.eval(_SCROLLED)
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        if rest:
            self._rest_scrolling(before)

    def wheel(self, x: float, y: float, down: float) -> None:
        """Turn the wheel over a place, and let scrolling come to rest."""
        self.look()  # what lies under the wheel is what was drawn last, and not what a script has moved there since
        before = self.eval(_SCROLLED)
        self.ask("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=down)
        self._rest_scrolling(before)

    def look(self, file: Path | None = None, *, whole: bool = False) -> None:
        """Draw the page, and keep the picture where a file is named."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        if file is not None:
            file.write_bytes(base64.b64decode(shot["data"]))

    def _rest_scrolling(self, start: str) -> None:
        """Wait until something has scrolled, on a busy machine perhaps long after it was asked for, and stopped."""
        begin, end = time.monotonic() + 15, time.monotonic() + 30
        before, now = "", self.eval(_SCROLLED)
        while (now == start and time.monotonic() < begin) or (before != now and time.monotonic() < end):
            time.sleep(0.4)
            before, now = now, self.eval(_SCROLLED)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._answers, 1 << 20)
            assert more, "Chromium has ended"
            self._rest += more
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message


@contextmanager
def browser(profile: Path, width: int = 1200, height: int = 900) -> Iterator[Browser]:
    """Start it with a fresh profile, and end it."""
    (low_in, our_out), (our_in, low_out) = os.pipe(), os.pipe()
    # It reads commands from descriptor 3 and answers on 4, which must not be what they are copied from.
    their_in, their_out = (fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 20) for low in (low_in, low_out))
    script = f"exec 3<&{their_in} 4>&{their_out}; exec {CHROMIUM} {_FLAGS} --window-size={width},{height}"
    script += f" --user-data-dir={profile}"
    process = subprocess.Popen(
        ["bash", "-c", script],
        pass_fds=(their_in, their_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for ours in (low_in, low_out, their_in, their_out):
        os.close(ours)
    try:
        page = Browser(our_out, our_in)
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        yield page
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(our_out)
        os.close(our_in)
