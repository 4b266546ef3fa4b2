"""The documentation's pictures of TensorBoard, MLflow and Trackio: their own pages on the demo's comparison, taken by Chromium.

    python -m benchmarks tracker_pictures [tensorboard mlflow trackio]

The three runs of seed 0 are made below --outputs unless they are there. It takes the three extras (of MLflow all of it, not
mlflow-skinny, which has no page), and Chromium. A picture is taken once all runs and both metrics stand on the page and it has
stopped changing; a server or a browser that does not answer ends the command with what it said.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

COMPARISON = (
    "experiment=demo/compare", "seed=0", "tracking=local",
    "tracking.tensorboard=true", "tracking.mlflow=true", "tracking.trackio=true",
)  # fmt: skip
METRICS = ("accuracy_macro", "cross_entropy")
"""Of the validation split: the curves that are shown."""
FILTER = "val/(accuracy_macro|cross_entropy)"


@dataclass(frozen=True)
class Tracker:
    """How its server is started, and which of its pages is shown; ``{port}`` and ``{outputs}`` are filled in."""

    server: str
    """What follows ``python``."""
    page: str
    environment: dict[str, str] = field(default_factory=dict)
    clicks: tuple[str, ...] = ()
    """CSS selectors of what is clicked, in this order, so that the curves have the room."""
    drawn: str = "document.body.innerText.includes('400')"
    """JavaScript, true once the curves are drawn: the last step stands on the axes."""
    typed: str | None = None
    """CSS selector of the field that takes ``FILTER``, where the address cannot."""


TRACKERS = {
    "tensorboard": Tracker(
        "-m tensorboard.main --logdir {outputs}/tensorboard --port {port}",
        "/?tagFilter=val%2F(accuracy_macro|cross_entropy)&smoothing=0#timeseries",
        clicks=("button.settings-button",),
    ),
    "mlflow": Tracker(
        "-m mlflow server --backend-store-uri sqlite:///{outputs}/mlflow.db --port {port} --workers 1",
        "/#/experiments/1/runs?compareRunsMode=CHART&workflowType=machine_learning",
        {"MLFLOW_DISABLE_TELEMETRY": "true"},
        clicks=(
            "[data-component-id='mlflow.assistant.chat_panel.close']",
            "[data-component-id='mlflow_header.toggle_sidebar_button']",
        ),
        typed="input[placeholder='Search metric charts']",
    ),
    "trackio": Tracker(
        "-c 'import trackio; trackio.show(open_browser=False, block_thread=True, server_port={port})'",
        "/?project=genaug&metric_filter=val%2F(accuracy_macro|cross_entropy)&smoothing=0",
        {"TRACKIO_DIR": "{outputs}/trackio"},
        drawn=f"document.querySelectorAll('canvas').length == {len(METRICS)}",
    ),
}
SIZE = (1280, 680)
"""Of the window, in pixels."""
PATIENCE = 120.0
"""Seconds that a server, the browser or a page may take."""
MAKING = 3600.0
"""Seconds that the three runs may take."""
STILL = 1.5
"""Seconds between two pictures that have to be the same."""
NUM_COLOURS = 64
"""Of the picture: the page has few, and the file stays small."""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""This machine is asked without a proxy."""


def wait(what: str, found: Callable[[], Any], told: Callable[[], str] = str) -> Any:
    """What ``found`` gives as soon as it is true; after ``PATIENCE``, an error with what was ``told`` instead."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} within {PATIENCE:.0f} s. {told()}".strip())
        time.sleep(0.3)
    return answer


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program and all that it starts, which ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)


def said(log: Path) -> str:
    """The end of what a program said."""
    return "It said:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def get(address: str) -> bytes | None:
    """The answer of a server, or None."""
    try:
        with OPENER.open(address, timeout=5) as answer:
            return answer.read()
    except OSError:
        return None


@contextlib.contextmanager
def served(name: str, outputs: Path, place: Path) -> Iterator[str]:
    """The address of a tracker's server, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracker, log, address = TRACKERS[name], place / "server.txt", f"http://127.0.0.1:{port}"
    words = [word.format(outputs=outputs, port=port) for word in shlex.split(tracker.server)]
    environment = {key: value.format(outputs=outputs) for key, value in tracker.environment.items()}
    with started([sys.executable, *words], environment, log) as server:

        def answers() -> bool:
            if server.poll() is not None:
                raise SystemExit(f"The server of {name} ended by itself. {said(log)}")
            return get(address) is not None

        wait(f"The server of {name} does not answer", answers, lambda: said(log))
        yield address


class Browser:
    """A page of Chromium, by its DevTools protocol."""

    def __init__(self, socket: ClientConnection):
        self.socket = socket
        self.number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command of the protocol."""
        self.number += 1
        deadline = time.monotonic() + PATIENCE
        try:
            self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
            while True:
                answer = json.loads(self.socket.recv(timeout=max(0, deadline - time.monotonic())))
                if answer.get("id") == self.number:
                    return answer["result"]
        except (TimeoutError, WebSocketException) as error:
            raise SystemExit(f"Chromium does not answer to {method} ({type(error).__name__}).") from None

    def value(self, script: str) -> Any:
        """What a line of JavaScript gives."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextlib.contextmanager
def chromium(place: Path) -> Iterator[Browser]:
    """A browser with an empty page, which ends with the block."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("There is no Chromium on this machine.")
    profile, log = place / "profile", place / "chromium.txt"
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--no-proxy-server",
        "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",  # a mouse
        "--remote-debugging-port=0", f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}", "about:blank",
    ]  # fmt: skip
    with started(command, {}, log) as process:
        written = profile / "DevToolsActivePort"

        def page() -> str | None:
            if process.poll() is not None:
                raise SystemExit(f"Chromium ended by itself. {said(log)}")
            lines = written.read_text().splitlines() if written.is_file() else []
            listed = get(f"http://127.0.0.1:{lines[0]}/json/list") if lines else None
            pages = [target for target in json.loads(listed or b"[]") if target["type"] == "page"]
            return pages[0]["webSocketDebuggerUrl"] if pages else None

        address = wait("Chromium does not open a page", page, lambda: said(log))
        with contextlib.ExitStack() as stack:
            try:
                socket = stack.enter_context(connect(address, max_size=None, proxy=None, open_timeout=PATIENCE))
            except (OSError, WebSocketException) as error:
                raise SystemExit(f"Chromium does not answer at {address}: {error}") from None
            yield Browser(socket)


def take(browser: Browser, tracker: Tracker, address: str, runs: list[str]) -> bytes:
    """The tracker's page once it shows the runs' curves, as a PNG file's content."""
    browser.call("Emulation.setDeviceMetricsOverride", width=SIZE[0], height=SIZE[1], deviceScaleFactor=1, mobile=False)
    browser.call("Page.navigate", url=address + tracker.page)
    name = f"The page {address}{tracker.page}"

    def text() -> str:
        return browser.value("document.body.innerText") or ""

    def shown() -> str:
        return "It shows: " + " ".join(text().split())[:500]

    for selector in tracker.clicks:
        element = f"document.querySelector({json.dumps(selector)})"
        wait(f"{name} has no {selector}", lambda element=element: browser.value(f"!!{element}"), shown)
        browser.value(f"{element}.click()")
    if tracker.typed:
        element = f"document.querySelector({json.dumps(tracker.typed)})"
        wait(f"{name} has no {tracker.typed}", lambda: browser.value(f"!!{element}"), shown)
        browser.value(f"{element}.focus()")
        browser.call("Input.insertText", text=FILTER)
        browser.value(f"{element}.blur()")
    wanted = (*runs, *METRICS)
    wait(f"{name} does not show {', '.join(wanted)}", lambda: all(word in text() for word in wanted), shown)
    wait(f"{name} does not draw the curves", lambda: browser.value(tracker.drawn), shown)
    pictures = [b""]

    def still() -> bool:
        time.sleep(STILL)
        pictures.append(browser.picture())
        return pictures[-1] == pictures[-2]

    wait(f"{name} does not stop changing", still)
    return pictures[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "trackers", nargs="*", default=list(TRACKERS), help=f"of {', '.join(TRACKERS)}; all without a name"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs/picture"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    if unknown := set(options.trackers) - set(TRACKERS):  # choices of a list refuse the empty one before Python 3.12
        parser.error(f"there is no picture of {', '.join(unknown)}, only of {', '.join(TRACKERS)}")
    outputs = options.outputs.absolute()
    command = [sys.executable, "train.py", "-m", *COMPARISON, f"paths.outputs_dir={outputs}"]
    subprocess.run(command, check=True, timeout=MAKING)
    runs = sorted(path.name for path in (outputs / "runs").iterdir() if path.is_dir())
    if len(runs) != 3:
        raise SystemExit(f"{outputs} holds {len(runs)} runs instead of the comparison's three: give another --outputs.")
    for name in options.trackers:
        path = options.pictures / f"{name}.png"
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
            served(name, outputs, Path(place)) as address,
            chromium(Path(place)) as browser,
        ):
            shot = take(browser, TRACKERS[name], address, runs)
        with Image.open(io.BytesIO(shot)) as picture:
            picture.convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
