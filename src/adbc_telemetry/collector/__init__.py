"""A collector of one's own: takes telemetry in over HTTP, keeps it in a folder, and shows it.

Needs the extra `adbc-telemetry[collector]`.
"""
