"""Names that stand twice in an object.

The last one wins when JSON is decoded, but the text still holds the others: another reader may take those, and a
private text may hide in one.
"""

from __future__ import annotations


def has_repeated_names(text: str, encoded: bytes) -> bool:
    """Whether decoding `text` lost a value. True also for a few odd spellings, such as `\\u005c` before a quote.

    Args:
        text: valid JSON.
        encoded: what `text` was decoded to, as JSON again, with nothing else left out.
    """
    # A quote behind no backslash opens a string, or closes one that does not end in a backslash. Another spelling of
    # a string does not change their number, and a value that was lost takes the quotes of its name with it.
    quotes = text.count('"')
    if "\\" in text:
        quotes -= text.count('\\"')
        return quotes != encoded.count(b'"') - encoded.count(b'\\"')
    return quotes != encoded.count(b'"')
