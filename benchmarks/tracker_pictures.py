"""The documentation's pictures of TensorBoard, MLflow and Trackio: their own pages on the demo's comparison, taken by Chromium.

    python -m benchmarks tracker_pictures [tensorboard mlflow trackio]

The three runs of seed 0 are made below --outputs unless they are there. It takes the three extras (of MLflow all of it, not
mlflow-skinny, which has no page), and Chromium.
"""

import argparse
import contextlib
import http.server
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

COMPARISON = (
    "experiment=demo/compare", "seed=0", "tracking=local",
    "tracking.tensorboard=true", "tracking.mlflow=true", "tracking.trackio=true",
)  # fmt: skip


@dataclass(frozen=True)
class Tracker:
    """How its server is started, and which of its pages is shown; ``{port}`` and ``{outputs}`` are filled in."""

    server: str
    """What follows ``python``."""
    page: str
    environment: dict[str, str] = field(default_factory=dict)


TRACKERS = {
    "tensorboard": Tracker(
        "-m tensorboard.main --logdir {outputs}/tensorboard --port {port}",
        "/?tagFilter=val%2Faccuracy_macro|train%2Floss&smoothing=0#timeseries",
    ),
    "mlflow": Tracker(
        "-m mlflow server --backend-store-uri sqlite:///{outputs}/mlflow.db --port {port} --workers 1",
        "/#/experiments/1/runs?compareRunsMode=CHART",
        {"MLFLOW_SERVER_X_FRAME_OPTIONS": "NONE", "MLFLOW_DISABLE_TELEMETRY": "true"},
    ),
    "trackio": Tracker(
        "-c 'import trackio; trackio.show(open_browser=False, block_thread=True, server_port={port})'",
        "/?project=genaug&metric_filter=val%2Faccuracy_macro|train%2Floss&smoothing=0",
        {"TRACKIO_DIR": "{outputs}/trackio"},
    ),
}
SIZE = (1280, 620)
"""Of the window, in pixels."""
PATIENCE = 120.0
"""Seconds that the server may take to answer."""
DRAWING = 60.0
"""Seconds that the page has to draw its curves."""
NUM_COLOURS = 64
"""Of the picture: the page has few, and the file stays small."""


@contextlib.contextmanager
def served(name: str, outputs: Path) -> Iterator[str]:
    """The address of a tracker's server, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracker = TRACKERS[name]
    words = [word.format(outputs=outputs, port=port) for word in shlex.split(tracker.server)]
    environment = {key: value.format(outputs=outputs) for key, value in tracker.environment.items()}
    server = subprocess.Popen([sys.executable, *words], env={**os.environ, **environment})
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} does not answer.") from None
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def framed(address: str) -> Iterator[str]:
    """The address of a page that shows another, and is loaded only after ``DRAWING`` seconds: Chromium waits for it."""

    class Frame(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/":
                time.sleep(DRAWING)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            style = "position:fixed;inset:0;width:100%;height:100%;border:0"
            self.wfile.write(f'<iframe src="{address}" style="{style}"></iframe><img src="/later">'.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Frame) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def take(address: str, path: Path) -> None:
    """The page as Chromium shows it, as a PNG file."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("There is no Chromium on this machine.")
    with tempfile.TemporaryDirectory() as place, framed(address) as page:
        shot = Path(place) / "page.png"
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={place}/profile",
            f"--window-size={SIZE[0]},{SIZE[1]}", f"--screenshot={shot}", page,
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=300, stderr=subprocess.DEVNULL)
        with Image.open(shot) as picture:
            picture.convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trackers", nargs="*", choices=list(TRACKERS), default=list(TRACKERS))
    parser.add_argument("--outputs", type=Path, default=Path("outputs/picture"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    outputs = options.outputs.absolute()
    if not outputs.is_dir():
        subprocess.run([sys.executable, "train.py", "-m", *COMPARISON, f"paths.outputs_dir={outputs}"], check=True)
    for name in options.trackers:
        picture = options.pictures / f"{name}.png"
        with served(name, outputs) as address:
            take(address + TRACKERS[name].page, picture)
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
