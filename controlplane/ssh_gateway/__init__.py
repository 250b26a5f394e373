"""The way into bare endpoints: SSH, with keys read live from the endpoints themselves."""
