"""What all other parts build on.

guard            the only place that swallows exceptions
fork             what a forked child makes new, and what a fork waits for
reentrant        counter, event and registry that a signal handler may enter at any step
native, threads  real threads, locks and sockets, also under gevent and eventlet
uwsgi, process_pools, interpreters   processes and interpreters that begin or end in a way of their own
diagnostics      the last failure, and lines in the log that do not flood it
hosts, ids, version
"""
