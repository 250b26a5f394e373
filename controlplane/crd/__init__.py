"""The custom resources: their types, which are also their schemas, and the words of their status.

The classes here are the one home of every field: the operator reads and writes objects through
them, the REST API takes the same specs, and `schema` turns them into the CRDs of the chart.
"""
