"""A Delta table of events: as sinks write it, and as the queries read it. Needs the extra `adbc-telemetry[delta]`.

schema    the store's columns as Arrow has them, and `day`, by which the table is partitioned
rows      logs become rows
table     class `EventTable`: rows and offsets in one transaction
window    the ids of the last hour
upkeep    small files are compacted, old ones vacuumed
reading   the live files, for the queries
"""
