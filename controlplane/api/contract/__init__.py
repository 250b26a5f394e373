"""What every route keeps: who may call it, one transaction, retries, audit."""
