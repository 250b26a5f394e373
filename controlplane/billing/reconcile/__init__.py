"""Whether the bill says what the engines say: a second witness of every token, all the time."""
