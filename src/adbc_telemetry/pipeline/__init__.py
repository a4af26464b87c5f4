"""How events leave the process: queue, batches, the threads that send, the spool, the account and the end."""
