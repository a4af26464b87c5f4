"""How events leave the process. `client.py` puts these parts together.

queue            events that wait, and the length at which a new one wakes the sender
batch_timing     when the next batch is due
barriers         what flushes wait at
lifecycle        the states of a client's life
flow             all of these under the client's one lock
batch_delivery   exports batches; requeues, spools or counts what was not sent
closing          the one close, and the end of the process, of one client
account          how many events came to which end
accounts         the accounts of all clients, for those who watch them from outside
reporting        the last failure, and lines in the log

sender           the threads that all clients share
scheduler        which client gets a worker
spool, replay    the folder for undelivered events, and what sends them later
shutdown         the end of the process, for all clients
asyncio_support  waiting without blocking an event loop
"""
