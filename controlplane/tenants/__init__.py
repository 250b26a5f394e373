"""Who the customers are: tenants and their API keys."""
