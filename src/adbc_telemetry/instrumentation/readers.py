"""Readers that `fetch_record_batch` hands out: read behind the cursor's back, and followed to their end.

What the program gets is a `pyarrow.RecordBatchReader` as before, over the driver's own reader: each batch passes
through without a copy, and errors and interrupts pass as they are. One thing differs, because pyarrow has no
way to tell: `close()` on it is not passed on, and the driver's reader is closed with its cursor, as without us.

The stream that `fetch_arrow` hands out is left alone. It is a C structure, and one made of Python would turn
`KeyboardInterrupt` and the driver's errors into texts; so its statement ends with its cursor.
"""

from __future__ import annotations

import weakref
from typing import Any

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.instrumentation.statement_recorder import StatementRecorder
from adbc_telemetry.instrumentation.tracebacks import leave_no_frame


@never_raises(lambda error, recorder, reader: reader)
def follow_reader(recorder: StatementRecorder, reader: Any) -> Any:
    """A reader that reads what `reader` does, and tells the recorder; `reader` where there is nothing to tell."""
    statement = recorder.under_way
    if not statement:
        return reader
    if recorder.reader is not None:
        before = recorder.reader()
        if before is not None:  # the driver, too, hands out the same again
            return before
    followed = type(reader).from_batches(reader.schema, _Batches(reader, recorder, statement))
    recorder.reader = weakref.ref(followed)
    return followed


class _Batches:
    """The batches of a reader. Lives as long as the reader that was made of it."""

    __slots__ = ("_reader", "_recorder", "_statement")

    def __init__(self, reader: Any, recorder: StatementRecorder, statement: list[int]) -> None:
        self._reader = reader
        self._recorder = recorder
        self._statement = statement

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Any:
        try:
            batch = self._reader.read_next_batch()
        except StopIteration:
            self._recorder.read(self._statement, over=True)
            raise
        except BaseException as error:
            self._recorder.read_failed(self._statement, error)
            leave_no_frame(error)
            raise
        self._recorder.read(self._statement, False, batch)
        return batch

    def __del__(self) -> None:
        self._recorder.dropped(self._statement)
