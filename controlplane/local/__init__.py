"""A cluster on one machine: objects in memory, pods as local processes. For `flashplane up` and
the tests."""
