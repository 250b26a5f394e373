"""The demo model: V4-Flash made small, trained on dialogues of our own. Not part of the engine."""
