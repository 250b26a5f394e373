"""Nothing of what was asked or answered is kept: not in a table, a store, a journal or a log."""

import logging

import psycopg
import pytest
import redis
from psycopg import sql
from support.engine import Engine, Plan
from support.gateway import MODEL, World

PROMPT, ANSWER = "prompt-canary-5d1e", "answer-canary-9a3c"
TABLES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


def database(url: str) -> bytes:
    """Every row of every table, as COPY writes it."""
    with psycopg.connect(url) as connection:
        rows = b""
        for schema, table in connection.execute(TABLES).fetchall():
            copy = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(schema, table))
            with connection.cursor().copy(copy) as told:
                rows += b"".join(bytes(part) for part in told)
        return rows


def store(url: str) -> str:
    """Everything in the store."""
    read = {
        b"string": lambda client, key: client.get(key),
        b"hash": lambda client, key: client.hgetall(key),
        b"list": lambda client, key: client.lrange(key, 0, -1),
        b"set": lambda client, key: client.smembers(key),
        b"zset": lambda client, key: client.zrange(key, 0, -1),
        b"stream": lambda client, key: client.xrange(key),
    }
    with redis.Redis.from_url(url) as client:
        return str([(key, read[client.type(key)](client, key)) for key in client.scan_iter()])


async def test_no_prompt_and_no_answer_is_kept(
    world: World, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.WARNING)  # the test's own client
    logging.getLogger("openai").setLevel(logging.WARNING)
    key = world.tenant()
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "user": PROMPT,
        "max_tokens": 50,
    }
    engine.plans = [
        Plan(words=[ANSWER]),
        Plan(words=[ANSWER]),
        Plan(die_after_chunks=2, words=[ANSWER]),
    ]
    async with world.http(key) as http:
        for stream in (True, False, True):
            answer = await http.post("/chat/completions", json=asked | {"stream": stream})
            assert answer.status_code == 200
        assert ANSWER in answer.text
        await http.post("/chat/completions", content=b'{"model": "' + PROMPT.encode())
    await world.settled_all()
    rows = database(world.settings.database_url)
    assert MODEL.encode() in rows, "the tables were read"
    journals = [path for path in world.settings.journal_dir.rglob("*") if path.is_file()]
    assert journals
    kept = {
        "database": rows.decode(errors="replace"),
        "store": store(world.settings.redis_url),
        "journal": "".join(path.read_bytes().decode("latin-1") for path in journals),
        "log": "".join(str(record.__dict__) for record in caplog.records),
    }
    for place, text in kept.items():
        assert PROMPT not in text, place
        assert ANSWER not in text, place
