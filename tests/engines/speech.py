"""A server that speaks: espeak-ng behind OpenAI's /v1/audio/speech. Runs inside the tests' engine image.

Its model is a file that names a voice. Standard library only.
"""

from __future__ import annotations

import argparse
import http.server
import io
import json
import subprocess
import wave
from pathlib import Path

_RATE, _WORDS_A_MINUTE = 22050, 150
_STREAM_HEAD = 44  # espeak-ng's own head says no length, since it streams


def spoken(text: str, voice: str, speed: float) -> bytes:
    """Return a text as a WAV file of one channel."""
    words = ["espeak-ng", "--stdout", "-v", voice, "-s", str(round(_WORDS_A_MINUTE * speed)), "--stdin"]
    streamed = subprocess.run(words, input=text.encode(), capture_output=True, check=True, timeout=60).stdout
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(streamed[_STREAM_HEAD:])
    return whole.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers /health and /v1/audio/speech."""

    voice = ""

    def do_GET(self) -> None:
        """Say that all is well: there is nothing to load."""
        self._answer(200 if self.path == "/health" else 404, "application/json", b"{}")

    def do_POST(self) -> None:
        """Speak the body's ``input``."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/audio/speech":
            self._answer(404, "application/json", b"{}")
        else:
            self._answer(200, "audio/wav", spoken(asked["input"], self.voice, asked.get("speed", 1.0)))

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    said = parser.parse_args()
    Handler.voice = said.model.read_text().strip()
    http.server.ThreadingHTTPServer((said.host, said.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
