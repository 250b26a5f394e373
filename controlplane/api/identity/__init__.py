"""Routes of tenants, their projects, people and keys, of staff and models."""
