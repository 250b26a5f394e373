"""What tenants are told by calling their own servers: endpoints, notices and deliveries."""
