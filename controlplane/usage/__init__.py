"""What was used: the gateway's durable journal, its way into PostgreSQL, and usage rows."""
