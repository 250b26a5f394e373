"""The REST API: platform admins on an origin of their own, tenants on the gateway's."""
