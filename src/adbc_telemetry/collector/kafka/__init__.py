"""Kafka as a destination of events, and as what a sink reads. Needs the extra `adbc-telemetry[kafka]`.

address      `kafka://broker[,broker]/topic`
settings     what users pass through to librdkafka, and what they may not
records      a log as a record: key, value, headers
producer     class `Producer`: librdkafka's producer, and the thread that polls it
destination  class `KafkaDestination`, the collector's side of it

Who does what, and when

    event loop       hands the logs of a request to librdkafka, which only puts them into its buffer; waits for the
                     request's future, eight seconds at most; answers
    polling thread   hears from librdkafka what became of each record; resolves the futures; asks for the topic when
                     it has not heard of a success for some seconds
    librdkafka       its own threads: connections, batches, retries, the order of each partition (idempotence)

No thread waits for another one while it holds anything. The event loop and the polling thread share plain numbers that
only one of them writes.

A request's states

    waiting      in the buffer or on its way
    durable      all of its records are acknowledged by all in-sync replicas: 200
    given up     a record was refused, or took too long, or the client left. The answer is 503. Some of its records may
                 be in the topic: the client sends all of them again, and the sink keeps each id once.

Races

- A record may be acknowledged after its request was given up. Nothing waits for it then, and the sink drops the second
  one.
- The buffer may be full half-way through a request: that is "given up" at once.
- The broker may be away. When the oldest request has waited for `STALLED_SECONDS`, further ones are refused at once;
  those that wait find out when the broker is back. So an outage holds few connections.
- The brokers may shut the producer out, or its sequence may be broken. The polling thread makes another one. A record
  that the event loop gives to the first one meanwhile is called back all the same.
- The end may come while records are on their way: they are flushed until the deadline. What is left was not answered.
"""
