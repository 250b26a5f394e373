"""Whatever is done to audit events behind the database's guards, the check finds it."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy.orm import Session, sessionmaker
from support.shop import Shop
from typer.testing import CliRunner

from controlplane.audit import anchors
from controlplane.audit.chain import record
from controlplane.audit.verification import verify
from controlplane.cli.commands import app

EVENTS = 6


def write(sessions: sessionmaker[Session], tenant_id: uuid.UUID | None, count: int) -> None:
    for number in range(count):
        with sessions.begin() as session:
            record(
                session,
                tenant_id=tenant_id,
                actor="root",
                action="top_up",
                subject=str(number),
                details={"amount_usd": "1.50", "note": "a b", "deep": [{"n": number}]},
            )


class Log:
    """Two chains, anchored after their last event but one."""

    def __init__(self, shop: Shop, folder: Path, database_url: str) -> None:
        self.sessions = shop.sessions
        self.tenant_id = shop.customer().tenant_id
        self.file = folder / "audit" / "anchors.jsonl"
        self.key = anchors.load_key(folder / "audit" / "anchors.key")
        for chain in (None, self.tenant_id):
            write(self.sessions, chain, EVENTS)
        self.anchor()
        self.connection = psycopg.connect(database_url, autocommit=True)
        # What whoever owns the database can do.
        self.connection.execute("ALTER TABLE audit_events DISABLE TRIGGER append_only")

    def anchor(self) -> int:
        with self.sessions.begin() as session:
            return anchors.append(session, self.file, self.key)

    def findings(self, *, anchored: bool = True) -> list[str]:
        with self.sessions.begin() as session:
            read = anchors.read(self.file, public_key=anchors.public_hex(self.key))
            assert read.findings == ()  # the file itself is sound
            return verify(session, read.vouched if anchored else {}).findings

    def tamper(self, statement: str, *values: object) -> None:
        self.connection.execute(statement.encode(), values or None)


@pytest.fixture
def log(shop: Shop, tmp_path: Path, database_url: str) -> Iterator[Log]:
    made = Log(shop, tmp_path, database_url)
    yield made
    made.connection.close()


def test_chains_that_nobody_touched_are_sound(log: Log) -> None:
    write(log.sessions, None, 1)
    assert log.findings() == []


def test_an_anchor_tells_its_time_to_whoever_watches(log: Log) -> None:
    before = time.time()
    log.anchor()
    told = REGISTRY.get_sample_value("flashplane_audit_anchored_at_seconds")
    assert told is not None
    assert told >= before


def test_a_changed_event_is_named(log: Log) -> None:
    log.tamper("UPDATE audit_events SET actor = 'me' WHERE seq = 3 AND tenant_id IS NULL")
    assert log.findings() == ["platform: event 3 was changed after it was written"]


def test_a_removed_event_is_named(log: Log) -> None:
    log.tamper("DELETE FROM audit_events WHERE seq = 3 AND tenant_id IS NULL")
    assert log.findings() == ["platform: event 3 is missing before event 4"]


def test_removed_events_are_named(log: Log) -> None:
    log.tamper("DELETE FROM audit_events WHERE seq < 4 AND tenant_id IS NOT NULL")
    assert log.findings() == [f"tenant {log.tenant_id}: event 1 to 3 is missing before event 4"]


def test_a_cut_end_is_seen_by_the_anchor_alone(log: Log) -> None:
    log.tamper("DELETE FROM audit_events WHERE seq > 4 AND tenant_id IS NULL")
    assert log.findings(anchored=False) == []
    assert log.findings() == [
        "platform: ends at event 4, but an anchor vouches for event 6: the end was cut"
    ]


def test_a_chain_that_is_gone_is_seen_by_the_anchor(log: Log) -> None:
    log.tamper("DELETE FROM audit_events WHERE tenant_id IS NOT NULL")
    assert log.findings() == [
        f"tenant {log.tenant_id}: ends at event 0, but an anchor vouches for event 6: the end was"
        " cut"
    ]


def test_a_rewritten_chain_is_seen_by_the_anchor_alone(log: Log) -> None:
    log.tamper("DELETE FROM audit_events WHERE tenant_id IS NULL")
    write(log.sessions, None, EVENTS)
    assert log.findings(anchored=False) == []
    assert log.findings() == [
        "platform: event 6 is not the one that an anchor vouches for: it was rewritten"
    ]


def test_a_fork_is_named(log: Log) -> None:
    log.tamper("ALTER TABLE audit_events DROP CONSTRAINT uq_audit_events_chain_seq")
    log.tamper(
        "INSERT INTO audit_events"
        " (chain, seq, tenant_id, at, actor, action, subject, details, previous_hash, hash)"
        " SELECT chain, seq, tenant_id, at, actor, action, subject, details, previous_hash, hash"
        " FROM audit_events WHERE seq = 2 AND tenant_id IS NULL"
    )
    assert "platform: event 2 is there more than once: the chain was forked" in log.findings()


def test_events_that_changed_places_are_named(log: Log) -> None:
    log.tamper(
        "ALTER TABLE audit_events DROP CONSTRAINT uq_audit_events_chain_seq,"
        " DROP CONSTRAINT ck_audit_events_seq"
    )
    log.tamper("UPDATE audit_events SET seq = 5 - seq WHERE seq IN (2, 3) AND tenant_id IS NULL")
    told = log.findings()
    assert "platform: event 2 was changed after it was written" in told
    assert "platform: event 3 was changed after it was written" in told


CHANGES = st.one_of(
    st.tuples(st.sampled_from(["actor", "action", "subject"]), st.text("ab1 ", max_size=3)),
    st.tuples(st.just("seq"), st.integers(1, 9)),
    st.tuples(st.just("at"), st.sampled_from(["at + interval '1 us'", "at - interval '1 day'"])),
    st.tuples(st.sampled_from(["hash", "previous_hash"]), st.binary(min_size=32, max_size=32)),
    st.tuples(st.just("details"), st.dictionaries(st.text("ab"), st.integers(), max_size=2)),
    st.tuples(st.just("tenant_id"), st.none()),
    st.tuples(st.just("delete"), st.none()),
)


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(1, EVENTS), CHANGES)
def test_any_change_of_any_one_event_is_found(
    log: Log, seq: int, change: tuple[str, object]
) -> None:
    column, value = change
    with log.sessions() as session, session.connection().begin_nested():
        raw = session.connection().connection.cursor()
        raw.execute(
            "ALTER TABLE audit_events DROP CONSTRAINT uq_audit_events_chain_seq,"
            " DROP CONSTRAINT ck_audit_events_chain"
        )
        where = "WHERE seq = %s AND chain = %s"
        here = (seq, log.tenant_id)
        before = raw.execute(f"SELECT * FROM audit_events {where}", here).fetchone()
        if column == "delete":
            raw.execute(f"DELETE FROM audit_events {where}", here)
        elif column == "at":
            raw.execute(f"UPDATE audit_events SET at = {value} {where}", here)
        else:
            new = json.dumps(value) if column == "details" else value
            raw.execute(f"UPDATE audit_events SET {column} = %s {where}", (new, *here))
        raw.execute("SELECT * FROM audit_events WHERE id = %s", (before[0],))
        changed = raw.fetchone() != before
        read = anchors.read(log.file, public_key=None)
        assert bool(verify(session, read.vouched).findings) == changed
        session.rollback()


def test_only_chains_that_grew_are_anchored_again(log: Log) -> None:
    assert log.anchor() == 0
    write(log.sessions, None, 1)
    assert log.anchor() == 1
    assert len(log.file.read_text().splitlines()) == 3
    assert log.findings() == []


@pytest.mark.parametrize(
    ("number", "old", "new", "reason"),
    [
        (2, '"at":"2', '"at":"3', "line 2: its signature is wrong"),
        (2, "{", "", "line 2: damaged"),
        (1, None, None, "line 1: does not follow the line before"),
    ],
)
def test_a_touched_anchor_is_named(
    log: Log, number: int, old: str | None, new: str | None, reason: str
) -> None:
    write(log.sessions, None, 1)
    log.anchor()
    lines = log.file.read_text().splitlines()
    if old is None or new is None:
        del lines[number - 1]
    else:
        lines[number - 1] = lines[number - 1].replace(old, new, 1)
    log.file.write_text("\n".join(lines) + "\n")
    findings = anchors.read(log.file, public_key=None).findings
    assert reason in findings[0]


def test_anchors_signed_by_another_are_refused(log: Log, tmp_path: Path) -> None:
    other = anchors.public_hex(anchors.load_key(tmp_path / "other.key"))
    (finding,) = anchors.read(log.file, public_key=other).findings
    assert finding.endswith("line 1: signed with another key")


def test_a_line_that_was_cut_short_does_not_swallow_the_next(log: Log) -> None:
    with log.file.open("a") as file:
        file.write('{"at":"20')
    write(log.sessions, None, 1)
    log.anchor()
    read = anchors.read(log.file, public_key=None)
    assert [finding.split(": ")[1] for finding in read.findings] == ["damaged"]
    assert max(read.vouched[uuid.UUID(int=0)]) == EVENTS + 1


def test_the_command_tells_what_is_wrong(log: Log, database_url: str, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": database_url, "FLASHPLANE_DATA_DIR": str(tmp_path)}
    sound = CliRunner().invoke(app, ["audit", "verify"], env=environment)
    assert (sound.exit_code, f"events     {2 * EVENTS}" in sound.output) == (0, True)
    log.tamper("DELETE FROM audit_events WHERE seq = 6 AND tenant_id IS NULL")
    cut = CliRunner().invoke(app, ["audit", "verify", "--anchors", str(log.file)], env=environment)
    assert cut.exit_code == 1
    assert "platform: ends at event 5" in cut.output
