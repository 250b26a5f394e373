"""Events count up instead of flooding."""

from support.kube_objects import settings_map

from controlplane.cluster import CONFIG_MAPS, EVENTS
from controlplane.kube import Kube
from controlplane.operator.actions import Emit, Plan
from controlplane.operator.runtime.executor import Executor


def test_equal_events_are_counted_not_repeated(cluster: Kube, namespace: str) -> None:
    about = cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    twice = Emit(about, "Normal", "Scaled", "from 1 to 2")
    other = Emit(about, "Warning", "Refused", "the quota is used up")
    Executor(cluster, []).execute(Plan((twice, twice, other)))
    Executor(cluster, []).execute(Plan((twice,)))  # after a restart
    told = {it["message"]: it["count"] for it in cluster.list(EVENTS, namespace=namespace).items}
    assert told == {"from 1 to 2": 3, "the quota is used up": 1}


def test_an_object_with_much_to_tell_is_heard_so_often(cluster: Kube, namespace: str) -> None:
    about = cluster.create(CONFIG_MAPS, settings_map(namespace, "a"))
    actions = [Emit(about, "Normal", "Noise", str(number)) for number in range(40)]
    Executor(cluster, []).execute(Plan(tuple(actions)))
    assert len(cluster.list(EVENTS, namespace=namespace).items) == 25
