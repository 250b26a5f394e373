"""Routes of deployments: tenants' own, and all of them for staff."""
