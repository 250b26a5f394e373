"""Between text and token ids: the tokenizer, DeepSeek's chat format, and stop strings."""
