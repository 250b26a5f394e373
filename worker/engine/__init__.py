"""The engine: a step loop in a thread of its own, and its client on the event loop's side."""
