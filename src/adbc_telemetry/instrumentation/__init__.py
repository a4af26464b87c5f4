"""Instrumentation: the events of connections that know nothing of telemetry.

    connection = instrument(connection, "https://workspace.example", auth=lambda: {"Authorization": ...})

or `install(...)` once, for every ADBC connection opened from then on. Supported are the DBAPI connections of
`adbc_driver_manager`, with any driver, and those of any other driver that follows PEP 249. What is recorded of
which method: see the table in `operations`.
"""
