"""The app of a test, listening: for what only a browser can show."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from flask_openapi3.openapi import OpenAPI
from werkzeug.serving import make_server


@pytest.fixture
def address(app: OpenAPI) -> Iterator[str]:
    """Where the app listens."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
