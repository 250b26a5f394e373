"""What is taken over of an engine's journal, from rows as a worker writes them."""

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select
from support.shop import MODEL, Shop
from support.usage_rows import usage_row

from controlplane.billing.reconcile.models import WitnessedAttempt
from controlplane.billing.reconcile.witnesses import Reader
from controlplane.registry.replicas import Replica
from worker.server.journal_store import JournalStore


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalStore]:
    store = JournalStore(tmp_path / "usage.db")
    yield store
    store.close()


@pytest.fixture
def engine_url(journal: JournalStore) -> Iterator[str]:
    """Where the journal is served, by the page, as a worker does."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            after = int(asked["after"][0])
            rows = journal.ended_after(after, int(asked["limit"][0]))
            following = rows[-1]["ended_us"] if rows else after
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"attempts": rows, "next": following}).encode())

        def log_message(self, *_: object) -> None:
            """Tell nobody."""

    server = HTTPServer(("127.0.0.1", 0), Pages)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_an_engine_was_given_of_an_answer_is_known(
    shop: Shop, journal: JournalStore, engine_url: str
) -> None:
    began, went_on = str(uuid.uuid4()), str(uuid.uuid4())
    journal.write(
        [],
        [
            usage_row("a", request_id=began, resumed_tokens=0),
            usage_row("b", request_id=went_on, resumed_tokens=12),
        ],
    )
    told = {"model": MODEL, "path": "serverless", "max_model_len": 2048}
    replica = Replica("replica-1", engine_url, published_at=time.time(), **told)
    reader = Reader(shop.sessions, token="")
    assert reader.read([replica], datetime.now(UTC)) == 2
    assert reader.read([replica], datetime.now(UTC)) == 0
    with shop.sessions.begin() as session:
        rows = session.execute(
            select(WitnessedAttempt.request_id, WitnessedAttempt.resumed_tokens)
        ).all()
    assert {str(who): tokens for who, tokens in rows} == {began: 0, went_on: 12}
