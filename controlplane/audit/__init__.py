"""Who did what: hash-chained events, signed anchors outside the database, and their check."""
