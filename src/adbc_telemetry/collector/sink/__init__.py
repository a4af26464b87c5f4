"""The sink: reads a topic of Kafka as one of a group, and writes its events into a Delta table, each once.

batch   what was read since the last commit
loop    class `Sink`: reading, committing, and what happens when the group changes

States of a sink

    joining   it has no partitions: the group has not assigned any, or has taken them back
    asking    it has partitions. Where they begin stands in the table, which is being read
    reading   records come; they gather in the batch; the batch is committed when it is large or old
    ended     by a signal, or because with `--once` all was read: the batch is committed, the group is left

    joining -> asking     the group assigns partitions
    asking  -> reading    the table was read: offsets, and ids of the window
    reading -> asking     a commit failed: the batch is dropped, and the table is asked what it holds
    reading -> joining    the group takes the partitions back: the batch is committed first; or it has given them away
                          already ("lost"): the batch is dropped

Who owns what

    the table         offsets, and so the truth. Kafka's committed offsets are written for tools that show the lag, and
                      never read
    the main thread   the consumer, the batch, the ids, the handle on the table; it does one thing after the other
    librdkafka        fetches ahead, within bounds, and sends heartbeats meanwhile
    upkeep's thread   a handle of its own; it compacts and vacuums. Only the sink that has partition 0 does so

Races

- A crash between Kafka and the table: there is nothing between. Rows and offsets are one commit.
- A sink that was stopped for a while ("zombie") still holds a batch of partitions that another sink has by now. Its
  commit names the offsets at which it began; the table holds others: `Overtaken`. See `delta.table`.
- The answer to a commit is lost: the table is asked. Either it holds the batch or it does not.
- A client sends an event again: it is in the same partition, and its id is in the window, or in this batch.
- A record that is no log, by another program: it is counted and passed over, for otherwise nothing after it would come.
- The records of a partition are deleted by Kafka's retention before they are read: the sink says so, and goes on.
"""
