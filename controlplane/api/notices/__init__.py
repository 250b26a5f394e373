"""Routes of what is told: the audit log, webhooks."""
