"""What GPU errors lead to."""

import pytest
from support.replica_world import START, node_body

from controlplane.operator.actions import Patch
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.health.table import XID_ACTIONS, Action, parse
from controlplane.operator.health.verdict import Verdict, plan_node, verdict
from controlplane.operator.signals import GPUError


def judge(*errors: tuple[float, int]) -> Verdict:
    told = [GPUError(START + at, xid) for at, xid in errors]
    return verdict(told, XID_ACTIONS, since=START, now=START + 1000)


def test_the_gravest_error_counts() -> None:
    assert judge((1, 94), (2, 79), (3, 43)).action is Action.QUARANTINE
    assert judge((1, 94), (2, 79), (3, 43)).xid == 79


def test_errors_from_before_are_past() -> None:
    assert judge((-1, 79)) == Verdict()


def test_an_unknown_error_is_shown_and_not_acted_on() -> None:
    assert judge((1, 999)) == Verdict(Action.IGNORE, 999, "XID 999")


def test_what_a_restart_repairs_is_a_fault_when_it_comes_back() -> None:
    assert judge((1, 94), (2, 13)).action is Action.RESTART_APP
    assert judge((-500, 94), (-400, 31), (2, 94)).action is Action.QUARANTINE


def test_a_cluster_may_see_it_otherwise() -> None:
    assert parse("79: ignore\n")[79] is Action.IGNORE
    assert parse("79: ignore\n")[94] is Action.RESTART_APP


@pytest.mark.parametrize("text", ["- 1", "79: explode", "x: ignore", "{"])
def test_a_table_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_a_node_is_taken_out_of_use_once() -> None:
    errors = [GPUError(START, 79)]
    plan = plan_node(Node.of(node_body("n1")), errors, XID_ACTIONS, START + 1)
    patch = plan.actions[0]
    assert isinstance(patch, Patch)
    node = Node.of(node_body("n1", **patch.change["metadata"]))
    assert "XID 79" in node.quarantined
    assert plan_node(node, errors, XID_ACTIONS, START + 2).actions == ()


def test_errors_of_an_earlier_boot_do_not_quarantine() -> None:
    errors = [GPUError(START - 7200, 79)]
    assert plan_node(Node.of(node_body("n1")), errors, XID_ACTIONS, START).actions == ()
