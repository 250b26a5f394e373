"""Deployments: pools that follow their load, and tenants' replicas that roll out with canaries.

`plan` decides from `observed`, in the words of `scaling`, `rollout`, `choice`, `windows`, `tenant`
and `status`; `pools` tells the gateways; `controller` wires them.
"""
