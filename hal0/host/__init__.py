"""One thin adapter for each thing outside the process, with a deadline on every call."""
