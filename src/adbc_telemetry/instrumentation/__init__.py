"""Instrumentation: the events of connections that know nothing of telemetry.

    connection = instrument(connection, "https://workspace.example", auth=lambda: {"Authorization": ...})

or `install(...)` once, for every ADBC connection opened from then on. Supported are the DBAPI connections of
`adbc_driver_manager`, with any driver, and those of any other driver that follows PEP 249. What is recorded of
which method: see the table in `operations`.

    installation     `instrument`, `install`, `uninstall`
    settings         endpoint, configuration and consent; starts a session
    new_connections  every ADBC connection that the process opens
    connecting       the making of ADBC connections
    operations       the table: which method is which operation
    watched          the one way to watch a call
    adbc, pep249     connections of the ADBC driver manager; any other connection, through `proxies`
    session_recorder, statement_recorder, null_recorder   what a connection and its cursors carry
    observers, observed   the second listener of a connection, which OpenTelemetry's spans come from
    readers          record batch readers that are watched to their last batch
    driver_info      what a connection says about its driver
    cursor_clone, callers, tracebacks   how the program and the driver notice nothing
"""
