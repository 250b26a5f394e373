"""Nodes that are taken away, with a notice and without: streams move, the bill ends."""

import time

from support.polling import until
from support.site import FLEETING, WEIGHTS, Site
from support.streaming import traffic

from controlplane.cluster import NODES
from controlplane.crd.conditions import Reason
from controlplane.operator.capacity.nodes import NOTICE_TAINTS
from controlplane.operator.replica import drain

NOTICE = "flashplane.io/preempted"
MODEL = "deepseek-v4-flash@nomad"


def test_a_deployment_leaves_nodes_that_are_taken_away_and_is_billed_until_then(
    site: Site,
) -> None:
    with site.nodes("short", "long") as kubelet:
        nomad = site.place(
            "nomad",
            "dedicated",
            site.customer,
            configurations=["cpu-fleeting"],
            replicas=1,
            weights=WEIGHTS,
        )
        site.serving(nomad)
        (first,) = site.lives(nomad)
        (placement,) = first.replica.status.placements
        taints = [{"key": NOTICE, "effect": "NoSchedule"}]
        with traffic(site.url, site.customer.token, MODEL, clients=2, tokens=60) as streams:
            noticed_at = time.time()
            site.kube.patch(NODES, placement.node, {"spec": {"taints": taints}})
            until(lambda: first.over, seconds=NOTICE_TAINTS[NOTICE], what="it to leave in time")
            assert time.time() < noticed_at + NOTICE_TAINTS[NOTICE]
            site.serving(nomad)
        assert (streams.lost, first.drained_by) == ([], drain.ACKNOWLEDGED)
        (second,) = [it for it in site.lives(nomad) if not it.over]
        (other,) = second.replica.status.placements
        assert other.node != placement.node

        site.kube.patch(NODES, placement.node, {"spec": {"taints": None}})
        # A life counts from its first proof that has arrived: a moment's may leave none.
        uid = second.replica.uid
        until(
            lambda: uid in {str(it.id) for it in site.intervals(nomad)},
            seconds=60,
            what="a proof of the second",
        )
        lost_at = time.time()
        kubelet.lose(other.node)
        site.kube.delete(NODES, other.node)  # as clouds do when a machine is gone
        until(lambda: len(site.lives(nomad)) == 3, seconds=60, what="a third replica")
        site.serving(nomad)
        failure = second.replica.status.failure
        assert failure is not None
        assert failure.reason == Reason.NODE_LOST
        site.delete(nomad)
    billed = {str(it.id): it for it in site.billed(nomad)}
    assert billed[uid].proven_until.timestamp() <= lost_at + 1
    assert site.books() == []
    for name in ("short", "long"):
        assert site.chronicle.reserved().get(name) is None
    assert FLEETING not in str(site.chronicle.overbooked)
