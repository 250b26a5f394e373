"""What money costs: holds, settlement and staging on an embedded PostgreSQL that waits for its
disk."""
