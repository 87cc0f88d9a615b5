import time

import pytest
from sqlalchemy import update

from service.domain.api_keys import KeyScope
from service.store import keys
from service.store.database import Database
from service.store.keys import NewKey, Pepper
from service.store.rate_buckets import DatabaseBuckets, MemoryBuckets, Rate, buckets_of
from service.store.tables import KeyRow

SLOW = Rate(per_second=0.01, burst=3)


def key_id(database: Database) -> str:
    with database.write() as session:
        return keys.create(session, NewKey("k", [KeyScope.READ]), Pepper("p"))[0].id


def test_a_burst_is_granted_and_then_the_wait_is_told(database: Database):
    buckets, one, other = buckets_of(database, SLOW), key_id(database), key_id(database)
    assert isinstance(buckets, MemoryBuckets if database.is_sqlite else DatabaseBuckets)
    assert [buckets.take(one) for _ in range(3)] == [0.0] * 3
    assert 80 < buckets.take(one) <= 100
    assert buckets.take(other) == 0.0


@pytest.mark.parametrize("kind", ["memory", "database"])
def test_time_brings_tokens_back(database: Database, kind: str):
    rate, one = Rate(per_second=5, burst=1), key_id(database)
    buckets = MemoryBuckets(rate) if kind == "memory" else None
    if buckets is None:
        if database.is_sqlite:
            pytest.skip("SQLite has one API, whose buckets are in memory")
        buckets = DatabaseBuckets(database, rate)
    assert buckets.take(one) == 0.0
    wait = buckets.take(one)
    assert 0 < wait <= 0.2
    time.sleep(0.25)
    assert buckets.take(one) == 0.0


def test_two_apis_share_the_buckets_of_one_database(database: Database):
    if database.is_sqlite:
        pytest.skip("SQLite has one API")
    one = key_id(database)
    first, second = DatabaseBuckets(database, SLOW), DatabaseBuckets(database, SLOW)
    assert [each.take(one) > 0 for each in (first, second, first, second)] == [False, False, False, True]
    with database.write() as session:
        session.execute(update(KeyRow).values(tokens=None))
    assert second.take(one) == 0.0
