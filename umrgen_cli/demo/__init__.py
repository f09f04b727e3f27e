"""`make demo`: the whole service once, on this machine, from an upload to a saved PNG."""
