"""From the facts of a session and a statement to one event, and its JSON.

session          what all events of a connection share
statement        the facts of a statement, and the log made of them
handover         how a statement that is over reaches its client
wire_types       which values the wire has a type for
encoding         logs and statements as JSON, and requests made of them
"""
