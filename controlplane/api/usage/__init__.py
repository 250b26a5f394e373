"""Routes of usage and costs in OpenAI's shape."""
