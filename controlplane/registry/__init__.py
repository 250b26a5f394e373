"""What runs where, told by heartbeats in the store; losing it costs one second of them.

`replicas` says who can be asked, `pools` which deployments exist and how far they are from serving,
`gateways` what each gateway has in flight and in waiting, `leases` which GPU time is proven.
Operator, supervisor and gateways publish; gateways, operator and jobs read.
"""
