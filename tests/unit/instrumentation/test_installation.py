"""`install()`: every ADBC connection of the process, and the program does not notice."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import TelemetryClientManager, install, uninstall
from adbc_telemetry.instrumentation import driver_info
from adbc_telemetry.schema import DriverAuthFlow, DriverAuthMech, DriverConnectionParameters
from adbc_telemetry.testing import BrokenExporter, CapturingExporter, configuration
from support.databases import ADBC, ENDPOINT, Database, database_of, follow
from support.differential import is_ours, outcomes
from support.matrix import CREATE, DELETE, QUERY, SELECT, UPDATE
from support.waiting import wait_until

pyarrow = pytest.importorskip("pyarrow")
dbapi = pytest.importorskip("adbc_driver_manager.dbapi")


@pytest.fixture
def captured() -> Iterator[CapturingExporter]:
    exporter = CapturingExporter()
    install(ENDPOINT, config=configuration(), exporter=exporter)
    yield exporter
    uninstall()


@pytest.fixture(params=ADBC)
def database(request: pytest.FixtureRequest) -> Database:
    return database_of(request, request.param)


def script(connection: Any, mark: str) -> Iterator[Callable[[], object]]:
    """What a program may do with an ADBC connection."""
    cursor = connection.cursor()
    table = pyarrow.table({"n": [1, 2]})
    yield lambda: type(connection).__module__
    yield lambda: cursor.execute("CREATE TABLE t (n INT, s VARCHAR(9))") is cursor
    yield lambda: cursor.executemany(f"INSERT INTO t VALUES ({mark}, {mark.replace('1', '2')})", [(1, "a")])
    yield connection.commit
    yield lambda: (cursor.rowcount, cursor.description, cursor.rownumber, cursor.arraysize)
    yield lambda: cursor.execute(f"SELECT n, s FROM t WHERE n = {mark}", (1,)) is cursor
    yield lambda: (cursor.rowcount, cursor.description, cursor.rownumber)
    yield cursor.next
    yield cursor.fetchone
    yield cursor.next
    yield cursor.fetchall
    yield lambda: cursor.execute("SELECT nothing FROM nowhere")
    yield lambda: cursor.execute("SELECT 1")
    yield connection.rollback
    yield lambda: cursor.execute("NONSENSE")
    yield connection.rollback
    yield lambda: cursor.execute()
    yield lambda: cursor.execute("SELECT 1", unknown=1)
    yield lambda: cursor.fetchall(1)
    yield lambda: cursor.close(1)
    yield lambda: cursor.executescript("DELETE FROM t WHERE n = 3; DELETE FROM t WHERE n = 4")
    yield lambda: cursor.adbc_ingest("t2", table)
    yield lambda: cursor.adbc_ingest("t2", table)
    yield connection.rollback
    yield lambda: cursor.adbc_ingest("t2", table, mode="nonsense")
    yield lambda: cursor.adbc_prepare(f"SELECT n FROM t WHERE n = {mark}")
    yield lambda: cursor.adbc_execute_schema("SELECT n FROM t")
    yield lambda: cursor.adbc_execute_partitions("SELECT n FROM t")
    yield lambda: cursor.adbc_read_partition(b"none")
    yield lambda: cursor.callproc("p", ())
    yield cursor.nextset
    yield lambda: cursor.execute(SELECT).fetch_df().to_dict()
    yield lambda: cursor.execute(SELECT).fetch_polars().to_dicts()
    yield lambda: pyarrow.table(cursor.execute(SELECT).fetch_arrow()).to_pylist()
    yield lambda: connection.adbc_get_table_schema("t")
    yield lambda: connection.adbc_get_table_schema("nothing")
    yield connection.rollback
    yield connection.adbc_get_table_types
    yield lambda: sorted(map(str, connection.adbc_get_info().items()))
    yield lambda: connection.adbc_get_objects(depth="catalogs").read_all().num_rows
    yield lambda: connection.adbc_get_objects(depth="none")
    yield lambda: connection.adbc_get_statistics().read_all().num_rows
    yield lambda: connection.adbc_current_catalog
    yield lambda: connection.nothing_of_this_name
    yield lambda: pickle.dumps(connection)
    yield lambda: pickle.dumps(cursor)
    yield lambda: connection.close(1)
    yield lambda: [method() for method in (cursor.close, cursor.close)]
    yield lambda: cursor.execute("SELECT 1")
    yield lambda: [method() for method in (connection.close, connection.close)]
    yield lambda: connection.execute("SELECT 1")
    yield connection.cursor
    yield connection.commit


@pytest.mark.parametrize("how", ["install", "instrument"])
def test_a_program_runs_as_it_does_without_telemetry(
    how: str, database: Database, request: pytest.FixtureRequest
) -> None:
    without = outcomes(script(database.open(), database.mark))
    with database.open() as again, again.cursor() as cursor:
        for table in ("t", "t2"):  # of the databases that keep them
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
        again.commit()
    if how == "install":
        captured = request.getfixturevalue("captured")
        connection = database.open()
    else:
        thing = follow(database)
        captured, connection = thing.captured, thing.connection
    for one, other in zip(outcomes(script(connection, database.mark)), without, strict=True):
        assert one == other
    assert {CREATE, QUERY, UPDATE} <= set(captured.events)
    assert captured.events[-1].operation_type == "DELETE_SESSION"


def test_connections_that_polars_opens_are_followed(captured: CapturingExporter, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    uri = f"sqlite:///{tmp_path}/some.db"
    frame = polars.DataFrame({"n": [1, 2, 3]})
    assert frame.write_database("t", uri, engine="adbc") == 3
    assert polars.read_database_uri(SELECT, uri, engine="adbc").equals(frame)
    captured.wait_until(lambda events: events.count(DELETE) == 2)
    counts = Counter(captured.events)
    assert counts[CREATE] == counts[DELETE] == 2
    assert counts[UPDATE] == 1
    assert counts[QUERY] == 1


def test_pandas_reads_and_writes_what_it_is_given(captured: CapturingExporter, database: Database) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, 3]})
    with (
        database.open() as connection
    ):  # pandas looks for the name in all schemas, those of other tests included
        assert frame.to_sql("of_pandas", connection, index=False) in (3, -1)
        assert pandas.read_sql("SELECT n FROM of_pandas", connection)["n"].tolist() == [1, 2, 3]
        assert pandas.read_sql_table("of_pandas", connection)["n"].tolist() == [1, 2, 3]
    captured.wait_until(lambda events: DELETE in events)
    assert captured.events.count(UPDATE) == 1
    assert captured.events.count(QUERY) >= 2


def test_polars_reads_what_it_is_given(captured: CapturingExporter, database: Database) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"n": [1, 2, 3]})
    with database.open() as connection:
        assert frame.write_database("t", connection, engine="adbc") in (3, -1)
        assert polars.read_database(SELECT, connection).equals(frame)
        parts = polars.read_database(SELECT, connection, iter_batches=True, batch_size=2)
        assert polars.concat(list(parts)).equals(frame)
    captured.wait_until(lambda events: DELETE in events)
    assert captured.events.count(QUERY) >= 2


def test_an_exporter_that_raises_is_not_noticed_by_the_program(database: Database) -> None:
    exporter = BrokenExporter()
    install(ENDPOINT, config=configuration(), exporter=exporter)
    try:
        with database.open() as connection, connection.cursor() as cursor:
            assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    finally:
        uninstall()
    assert exporter.calls > 0


def test_unclosed_cursors_and_connections_warn_as_they_did(
    captured: CapturingExporter, database: Database
) -> None:
    def warned() -> list[tuple[type[Warning], str, str, int]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            connection = database.open()
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            del cursor
            del connection
        return [(each.category, str(each.message), each.filename, each.lineno) for each in caught]

    followed = warned()
    uninstall()
    assert warned() == followed != []
    captured.wait_for(3)
    assert captured.events == [CREATE, QUERY, DELETE]
    wait_until(lambda: TelemetryClientManager.get_instance().hosts() == [])  # released on the sender's side


def test_uninstall_leaves_no_trace(captured: CapturingExporter, database: Database) -> None:
    patched = dbapi.Connection.__init__
    uninstall()
    assert dbapi.Connection.__init__ is not patched
    assert not is_ours(dbapi.Connection.__init__.__code__.co_filename)
    with database.open() as connection:
        assert "_adbc_telemetry" not in vars(connection)
    assert captured.events == []


# What is told of a connection's options.


class Options:
    """An ADBC handle with options, among them such as must not be asked for."""

    def __init__(self, **options: str) -> None:
        self.options = options
        self.asked: list[str] = []

    def get_option(self, key: str) -> str:
        self.asked.append(key)
        if key not in self.options:
            raise dbapi.ProgrammingError("no such option")
        return self.options[key]


class Stub:
    _autocommit = True

    def __init__(self, database: Options) -> None:
        self.adbc_connection = Options()
        self.adbc_database = database


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "ADBC Snowflake Driver - Go",
            {"adbc.snowflake.sql.auth_type": "auth_pat"},
            ("PAT", "TOKEN_PASSTHROUGH"),
        ),
        ("ADBC Snowflake Driver - Go", {"adbc.snowflake.sql.auth_type": "auth_jwt"}, ("OTHER", None)),
        ("ADBC Snowflake Driver - Go", {"adbc.snowflake.sql.auth_type": "sentinel"}, (None, None)),
        ("Another", {"adbc.snowflake.sql.auth_type": "auth_pat"}, (None, None)),
    ],
)
def test_how_a_driver_authenticates_is_told_in_the_wire_s_own_words(
    name: str, options: dict[str, str], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_info, "driver_name_and_version", lambda _: (name, "1"))
    told = driver_info.facts_of_adbc(Stub(Options(**options))).parameters
    mechanism, flow = expected
    assert told == DriverConnectionParameters(
        enable_arrow=True,
        auto_commit=True,
        auth_mech=mechanism and DriverAuthMech[mechanism],
        auth_flow=flow and DriverAuthFlow[flow],
    )


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("false", False), ("sentinel", None), ("", None)]
)
def test_an_option_that_says_yes_or_no_is_told_as_that(
    value: str, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        driver_info, "driver_name_and_version", lambda _: ("ADBC Flight SQL Driver - Go", "1")
    )
    options = Options(**{"adbc.flight.sql.client_option.tls_skip_verify": value})
    assert driver_info.facts_of_adbc(Stub(options)).parameters.allow_self_signed_support is expected


@pytest.mark.parametrize(("value", "expected"), [("512", 512), ("-1", None), ("1e3", None), ("9" * 30, None)])
def test_an_option_that_is_a_number_is_told_as_one(
    value: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_info, "driver_name_and_version", lambda _: ("ADBC SQLite Driver", "1"))
    options = Options(**{"adbc.sqlite.query.batch_rows": value})
    assert driver_info.facts_of_adbc(Stub(options)).parameters.rows_fetched_per_block == expected


def test_options_that_are_not_allowed_are_not_even_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [option.driver for option in driver_info.ALLOWED_OPTIONS]
    monkeypatch.setattr(driver_info, "driver_name_and_version", lambda _: (" ".join(names), "1"))
    options = Options(uri="sentinel", username="sentinel", password="sentinel")
    told = driver_info.facts_of_adbc(Stub(options))
    assert set(options.asked) <= {option.key for option in driver_info.ALLOWED_OPTIONS}
    assert "sentinel" not in repr(told)
