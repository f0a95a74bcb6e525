"""A page in a real browser: headless Chromium, driven over the DevTools protocol through a pipe."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
TIMEOUT = 60.0  # seconds for one answer
SMALLEST = 8.0  # px, text that can still be read

# Opens what is folded, then looks for what a reader would stumble over. Returns a list of lines.
LOOK = """(() => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const found = [], slack = 1.5;
  const shown = e => e.getClientRects().length > 0 && getComputedStyle(e).visibility !== "hidden";
  const named = e => e.closest("figure")?.id || e.closest("section")?.querySelector("h2")?.textContent || "page";
  const root = document.documentElement;
  // A phone's browser zooms out until all fits: its innerWidth says nothing.
  if (root.scrollWidth > WIDTH) found.push(`the page is ${root.scrollWidth} px wide in a window of WIDTH px`);
  for (const f of document.querySelectorAll("figure")) {
    const box = f.getBoundingClientRect();
    if (!(box.width > 0 && box.height > 0)) found.push(`figure ${named(f)} is empty`);
    if (![...f.querySelectorAll("svg, table, img, ul")].some(shown)) found.push(`figure ${named(f)} shows nothing`);
  }
  for (const i of document.images)
    if (!(i.complete && i.naturalWidth)) found.push(`an image of ${named(i)} is not there`);
  for (const s of document.querySelectorAll("svg")) {
    if (!shown(s)) continue;
    const frame = s.getBoundingClientRect(), texts = [...s.querySelectorAll("text")].filter(t => t.textContent.trim());
    if (!(frame.width > 0 && frame.height > 0)) found.push(`a drawing of ${named(s)} is empty`);
    const scale = s.viewBox.baseVal && s.viewBox.baseVal.width ? frame.width / s.viewBox.baseVal.width : 1;
    const boxes = texts.map(t => [t, t.getBoundingClientRect()]);
    for (const [t, b] of boxes) {
      const said = [...t.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join("");
      if (b.left < frame.left - slack || b.right > frame.right + slack || b.top < frame.top - slack
          || b.bottom > frame.bottom + slack) found.push(`"${said}" leaves its drawing (${named(s)})`);
      const size = parseFloat(getComputedStyle(t).fontSize) * scale;
      if (size < SMALLEST) found.push(`"${said}" is ${size.toFixed(1)} px small (${named(s)})`);
    }
    boxes.forEach(([t, a], i) => boxes.slice(i + 1).forEach(([u, b]) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const tall = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Boxes hold the line's height, which is more than the letters'.
      if (wide > slack && tall > 4) found.push(`"${t.lastChild.data}" and "${u.lastChild.data}" overlap (${named(s)})`);
    }));
  }
  return found;
})()"""


def check_page(path, widths=(1280, 390), smallest=SMALLEST):
    """Open a page at some widths and say what is wrong with it.

    Args:
        path: of the HTML file.
        widths: of the window, in pixels; less than 600 is a phone's.
        smallest: pixels of the smallest text that a drawing may hold.

    Returns:
        Lines, empty for a good page: errors of the console, exceptions and violations of the page's policy, figures
        without a box, a page that is wider than its window, text of a drawing that leaves it, overlaps or is tiny.
    """
    problems = []
    with browser() as page:
        for width in widths:
            page.open(path, width)
            problems += [f"{width} px: {line}" for line in page.complaints]
            looked = page.evaluate(LOOK.replace("SMALLEST", str(smallest)).replace("WIDTH", str(width)))
            problems += [f"{width} px: {line}" for line in looked]
    return problems


@contextlib.contextmanager
def browser():
    """A `Page` in a browser of its own; the test is skipped where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser on this machine: looked for {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        to_read, to_write = os.pipe(), os.pipe()
        # The browser reads from file descriptor 3 and writes to 4. A shell need not take `3<&12`: two digits.
        redirect = f'exec "$0" "$@" 3</dev/fd/{to_read[0]} 4>/dev/fd/{to_write[1]}'
        process = subprocess.Popen(
            ["sh", "-c", redirect, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read[0], to_write[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read[0])
        os.close(to_write[1])
        try:
            yield Page(to_read[1], to_write[0])
        finally:
            process.kill()
            process.wait()
            os.close(to_read[1])
            os.close(to_write[0])


class Page:
    """One tab.

    Args:
        out: file descriptor that the browser reads.
        into: file descriptor that it writes.
    """

    def __init__(self, out, into):
        self.out, self.into, self.buffer, self.count, self.session = out, into, b"", 0, None
        self.events, self.complaints = [], []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, path, width, dark=False, height=900):
        """Show a file in a window of some width; `complaints` then holds what the browser did not like."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events, self.complaints = [], []
        failed = self.call("Page.navigate", url=Path(path).resolve().as_uri()).get("errorText")
        assert not failed, failed
        self._wait_for("Page.loadEventFired")
        self.call("Log.enable")
        self.complaints += [text for event in self.events if (text := _complaint(event))]

    def evaluate(self, script):
        """The value of a JavaScript expression, as plain data."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path):
        """Write the whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def call(self, method, **parameters):
        """Send a command and wait for its answer; events that come meanwhile are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self.count:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return answer["result"]

    def _wait_for(self, method):
        while not any(event["method"] == method for event in self.events):
            self._message()

    def _message(self):
        deadline = time.monotonic() + TIMEOUT
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self.into, 1 << 16) if ready else b""
            assert block, "the browser ended or does not answer"
            self.buffer += block
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


def _complaint(event):
    """What an event tells of an error; None for the others."""
    method, told = event["method"], event.get("params", {})
    if method == "Runtime.exceptionThrown":
        return f"exception: {told['exceptionDetails'].get('text')}"
    if method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
        return f"console: {[argument.get('value') for argument in told['args']]}"
    if method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
        return f"{told['entry']['source']}: {told['entry']['text']}"
    return None
