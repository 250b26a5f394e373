"""The small V4-Flash that talks sense: its dialogues, its training and its proof. See README.md."""
