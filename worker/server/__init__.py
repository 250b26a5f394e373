"""The wire: OpenAI-style HTTP in front of one engine. README.md is the contract."""
