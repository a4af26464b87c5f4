"""From the facts of a session and a statement to one event, and its JSON."""
