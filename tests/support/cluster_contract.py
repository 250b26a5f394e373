"""What every `cluster.Cluster` does: run against the model in memory and a real API server.

A test class that inherits these is given the fixtures `cluster` and `namespace`, a fresh one whose
contents are the test's own.
"""

import copy
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.polling import until

from controlplane.cluster import (
    CONFIG_MAPS,
    NAMESPACES,
    PODS,
    AlreadyExists,
    Cluster,
    Conflict,
    Invalid,
    NamespaceTerminating,
    NotFound,
    Object,
    Resource,
    WatchEvent,
)
from controlplane.crd.base import FINALIZER, REPLICAS
from controlplane.local.kinds import BINDINGS

ALIVE_SECONDS = 20.0


def text(namespace: str, name: str, labels: dict[str, str] | None = None, **data: str) -> Object:
    """A ConfigMap."""
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels or {}},
        "data": data,
    }


def replica(namespace: str, name: str, **spec: Any) -> Object:
    """A Replica of a bare endpoint."""
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "ownerKind": "GPUEndpoint",
            "owner": "box",
            "path": "bare",
            "revision": "r1",
            "configuration": {"id": "h200-x1", "gpu": "H200", "memoryGib": 140.4},
            **spec,
        },
    }


def pod(namespace: str, name: str, **metadata: Any) -> Object:
    """A pod that nobody runs."""
    return {
        "metadata": {"namespace": namespace, "name": name, **metadata},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "it", "image": "none"}],
        },
    }


def owned(body: Object, owner: Object) -> Object:
    """`body`, owned by `owner`."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [reference]}}


def is_gone(cluster: Cluster, resource: Resource, namespace: str, name: str) -> bool:
    """Whether an object is not there."""
    try:
        cluster.get(resource, name, namespace=namespace)
    except NotFound:
        return True
    return False


def names(items: list[Object]) -> list[str]:
    """The names of objects."""
    return [it["metadata"]["name"] for it in items]


def told(
    cluster: Cluster, resource: Resource, namespace: str, since: str, **more: Any
) -> Iterator[tuple[str, str]]:
    """Type and name of what a watch tells, bookmarks left out; at most for a few seconds."""
    events: Iterator[WatchEvent] = cluster.watch(
        resource, resource_version=since, namespace=namespace, timeout_seconds=5, **more
    )
    return ((it.type, it.object["metadata"]["name"]) for it in events if it.type != "BOOKMARK")


class Reading:
    """Lists, gets and watches."""

    def test_what_is_created_can_be_read(self, cluster: Cluster, namespace: str) -> None:
        made = cluster.create(CONFIG_MAPS, text(namespace, "a", word="x"))
        assert made["kind"] == "ConfigMap"
        assert made["metadata"].keys() >= {"uid", "resourceVersion", "creationTimestamp"}
        assert cluster.get(CONFIG_MAPS, "a", namespace=namespace) == made

    def test_what_is_handed_out_is_the_callers(self, cluster: Cluster, namespace: str) -> None:
        made = cluster.create(CONFIG_MAPS, text(namespace, "a", word="x"))
        before = copy.deepcopy(made)
        made["data"]["word"] = "changed"
        assert cluster.get(CONFIG_MAPS, "a", namespace=namespace) == before

    def test_what_is_not_there_is_not_found(self, cluster: Cluster, namespace: str) -> None:
        with pytest.raises(NotFound):
            cluster.get(CONFIG_MAPS, "a", namespace=namespace)
        with pytest.raises(NotFound):
            cluster.delete(CONFIG_MAPS, "a", namespace=namespace)
        with pytest.raises(NotFound):
            cluster.patch(CONFIG_MAPS, "a", {"data": {"word": "x"}}, namespace=namespace)
        body = {"metadata": {"namespace": namespace, "name": "a"}, "status": {"phase": "x"}}
        with pytest.raises(NotFound):
            cluster.apply_status(REPLICAS, body)

    def test_lists_select_by_labels(self, cluster: Cluster, namespace: str) -> None:
        for name, tier in (("a", "web"), ("b", "web"), ("c", "cache")):
            cluster.create(CONFIG_MAPS, text(namespace, name, {"tier": tier}))

        def found(labels: str) -> list[str]:
            return names(cluster.list(CONFIG_MAPS, namespace=namespace, labels=labels).items)

        assert found("tier=web") == ["a", "b"]
        assert found("tier,tier!=web") == ["c"]
        assert found("tier in (cache,none)") == ["c"]
        assert "a" not in found("!tier")

    def test_pages_of_a_list_show_one_moment(self, cluster: Cluster, namespace: str) -> None:
        for name in "abc":
            cluster.create(CONFIG_MAPS, text(namespace, name, {"mine": "yes"}))

        def page(continuation: str = "") -> Any:
            return cluster.list(
                CONFIG_MAPS,
                namespace=namespace,
                labels="mine=yes",
                limit=2,
                continuation=continuation,
            )

        first = page()
        cluster.create(CONFIG_MAPS, text(namespace, "d", {"mine": "yes"}))
        second = page(first.continuation)
        assert (names(first.items), names(second.items)) == (["a", "b"], ["c"])
        assert first.resource_version == second.resource_version
        assert second.continuation == ""

    def test_a_watch_tells_what_happened_since(self, cluster: Cluster, namespace: str) -> None:
        since = cluster.list(REPLICAS, namespace=namespace).resource_version
        cluster.create(REPLICAS, replica(namespace, "a"))
        cluster.patch(REPLICAS, "a", {"spec": {"weight": 5}}, namespace=namespace)
        cluster.delete(REPLICAS, "a", namespace=namespace)
        events = told(cluster, REPLICAS, namespace, since)
        assert [next(events) for _ in range(3)] == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
        ]

    def test_a_watch_tells_what_happens_meanwhile(self, cluster: Cluster, namespace: str) -> None:
        since = cluster.list(REPLICAS, namespace=namespace).resource_version
        seen: list[tuple[str, str]] = []
        thread = threading.Thread(
            target=lambda: seen.append(next(told(cluster, REPLICAS, namespace, since)))
        )
        thread.start()
        cluster.create(REPLICAS, replica(namespace, "a"))
        thread.join(ALIVE_SECONDS)
        assert seen == [("ADDED", "a")]

    def test_a_selecting_watch_sees_things_come_and_go(
        self, cluster: Cluster, namespace: str
    ) -> None:
        since = cluster.list(CONFIG_MAPS, namespace=namespace).resource_version
        cluster.create(CONFIG_MAPS, text(namespace, "a"))
        for tier in ("web", "cache"):
            change = {"metadata": {"labels": {"tier": tier}}}
            cluster.patch(CONFIG_MAPS, "a", change, namespace=namespace)
        events = told(cluster, CONFIG_MAPS, namespace, since, labels="tier=web")
        assert [next(events), next(events)] == [("ADDED", "a"), ("DELETED", "a")]


class Writing:
    """Create, apply, patch, and who owns what."""

    def test_a_name_can_be_taken_once(self, cluster: Cluster, namespace: str) -> None:
        cluster.create(CONFIG_MAPS, text(namespace, "a"))
        with pytest.raises(AlreadyExists):
            cluster.create(CONFIG_MAPS, text(namespace, "a"))

    def test_nothing_is_made_where_there_is_no_namespace(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound):
            cluster.create(CONFIG_MAPS, text("nowhere-at-all", "a"))

    def test_defaults_are_filled_in(self, cluster: Cluster, namespace: str) -> None:
        made = cluster.create(REPLICAS, replica(namespace, "a"))
        assert made["spec"]["weight"] == 100
        assert made["spec"]["configuration"]["resource"] == "nvidia.com/gpu"
        assert "tenant" not in made["spec"]

    @pytest.mark.parametrize(
        "wrong",
        [{"weight": 101}, {"weight": "all"}, {"path": "free"}, {"configuration": {"id": "x"}}],
        ids=["bound", "type", "choice", "missing"],
    )
    def test_what_breaks_its_schema_is_invalid(
        self, cluster: Cluster, namespace: str, wrong: Object
    ) -> None:
        with pytest.raises(Invalid):
            cluster.create(REPLICAS, replica(namespace, "a", **wrong))
        with pytest.raises(Invalid):
            cluster.create(CONFIG_MAPS, text(namespace, "No_Name"))

    def test_generations_count_changes_of_the_spec(self, cluster: Cluster, namespace: str) -> None:
        generations = [cluster.create(REPLICAS, replica(namespace, "a"))["metadata"]["generation"]]
        for change in ({"metadata": {"labels": {"a": "b"}}}, {"spec": {"weight": 1}}):
            after = cluster.patch(REPLICAS, "a", change, namespace=namespace)
            generations.append(after["metadata"]["generation"])
        status = {**replica(namespace, "a"), "status": {"phase": "Serving"}}
        generations.append(cluster.apply_status(REPLICAS, status)["metadata"]["generation"])
        assert generations == [1, 1, 2, 2]

    def test_status_and_the_rest_are_written_apart(self, cluster: Cluster, namespace: str) -> None:
        body = {**replica(namespace, "a"), "status": {"phase": "Serving"}}
        assert "status" not in cluster.create(REPLICAS, body)
        changed = {**replica(namespace, "a", weight=7), "status": {"phase": "Loading"}}
        after = cluster.apply_status(REPLICAS, changed)
        assert (after["spec"]["weight"], after["status"]) == (100, {"phase": "Loading"})
        after = cluster.apply(REPLICAS, {**changed, "status": {"phase": "Failed"}})
        assert (after["spec"]["weight"], after["status"]) == (7, {"phase": "Loading"})
        after = cluster.patch(REPLICAS, "a", {"status": {"phase": "Failed"}}, namespace=namespace)
        assert after["status"] == {"phase": "Loading"}

    def test_a_write_that_changes_nothing_keeps_the_version(
        self, cluster: Cluster, namespace: str
    ) -> None:
        body = text(namespace, "a", {"tier": "web"}, word="x")
        version = cluster.apply(CONFIG_MAPS, body)["metadata"]["resourceVersion"]
        assert cluster.apply(CONFIG_MAPS, body)["metadata"]["resourceVersion"] == version
        after = cluster.patch(CONFIG_MAPS, "a", {"data": {"word": "x"}}, namespace=namespace)
        assert after["metadata"]["resourceVersion"] == version

    def test_what_an_apply_leaves_out_goes(self, cluster: Cluster, namespace: str) -> None:
        cluster.apply(CONFIG_MAPS, text(namespace, "a", one="1", two="2"))
        after = cluster.apply(CONFIG_MAPS, text(namespace, "a", two="2", three="3"))
        assert after["data"] == {"two": "2", "three": "3"}

    def test_what_others_made_stays(self, cluster: Cluster, namespace: str) -> None:
        cluster.apply(CONFIG_MAPS, text(namespace, "a", one="1"))
        cluster.apply(CONFIG_MAPS, text(namespace, "a", two="2"), manager="other")
        cluster.patch(CONFIG_MAPS, "a", {"data": {"three": "3"}}, namespace=namespace)
        after = cluster.apply(CONFIG_MAPS, text(namespace, "a", four="4"))
        assert after["data"] == {"two": "2", "three": "3", "four": "4"}

    def test_who_changes_a_field_takes_it(self, cluster: Cluster, namespace: str) -> None:
        cluster.apply(CONFIG_MAPS, text(namespace, "a", word="one", mine="x"))
        cluster.apply(CONFIG_MAPS, text(namespace, "a", word="two"), manager="other")
        after = cluster.apply(CONFIG_MAPS, text(namespace, "a", mine="x"))
        assert after["data"] == {"word": "two", "mine": "x"}
        after = cluster.apply(CONFIG_MAPS, text(namespace, "a", more="y"), manager="other")
        assert after["data"] == {"mine": "x", "more": "y"}

    def test_a_field_of_two_goes_with_the_second(self, cluster: Cluster, namespace: str) -> None:
        for manager in ("one", "two"):
            cluster.apply(CONFIG_MAPS, text(namespace, "a", word="x"), manager=manager)
        after = cluster.apply(CONFIG_MAPS, text(namespace, "a", rest="1"), manager="one")
        assert after["data"] == {"word": "x", "rest": "1"}
        after = cluster.apply(CONFIG_MAPS, text(namespace, "a", more="2"), manager="two")
        assert after["data"] == {"rest": "1", "more": "2"}

    def test_an_apply_of_the_spec_survives_one_of_the_status(
        self, cluster: Cluster, namespace: str
    ) -> None:
        cluster.apply(REPLICAS, replica(namespace, "a", tenant="t", weight=5))
        status = {**replica(namespace, "a"), "status": {"phase": "Serving", "url": "http://x"}}
        cluster.apply_status(REPLICAS, status)
        after = cluster.apply(REPLICAS, replica(namespace, "a", weight=5))
        assert "tenant" not in after["spec"]
        assert after["status"] == {"phase": "Serving", "url": "http://x"}
        after = cluster.apply_status(REPLICAS, {**status, "status": {"phase": "Degraded"}})
        assert after["status"] == {"phase": "Degraded"}

    def test_a_merge_patch_removes_with_null_and_replaces_lists(
        self, cluster: Cluster, namespace: str
    ) -> None:
        body = text(namespace, "a", {"keep": "1", "drop": "2"}, word="x")
        body["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
        cluster.create(CONFIG_MAPS, body)
        change = {"metadata": {"labels": {"drop": None}, "finalizers": ["example.com/b"]}}
        after = cluster.patch(CONFIG_MAPS, "a", change, namespace=namespace)
        assert after["metadata"]["labels"] == {"keep": "1"}
        assert after["metadata"]["finalizers"] == ["example.com/b"]
        cluster.patch(CONFIG_MAPS, "a", {"metadata": {"finalizers": None}}, namespace=namespace)

    def test_an_older_version_is_a_conflict(self, cluster: Cluster, namespace: str) -> None:
        old = cluster.create(REPLICAS, replica(namespace, "a"))["metadata"]["resourceVersion"]
        cluster.patch(REPLICAS, "a", {"spec": {"weight": 1}}, namespace=namespace)
        change = {"metadata": {"resourceVersion": old}, "spec": {"weight": 2}}
        with pytest.raises(Conflict):
            cluster.patch(REPLICAS, "a", change, namespace=namespace)
        body = {**replica(namespace, "a"), "status": {"phase": "Serving"}}
        body["metadata"]["resourceVersion"] = old
        with pytest.raises(Conflict):
            cluster.apply_status(REPLICAS, body)


class Ending:
    """Deletion: finalizers, owners, pods, namespaces."""

    def test_a_finalizer_holds_what_is_deleted(self, cluster: Cluster, namespace: str) -> None:
        body = replica(namespace, "a")
        body["metadata"]["finalizers"] = [FINALIZER]
        cluster.create(REPLICAS, body)
        cluster.delete(REPLICAS, "a", namespace=namespace)
        cluster.delete(REPLICAS, "a", namespace=namespace)
        held = cluster.get(REPLICAS, "a", namespace=namespace)
        assert "deletionTimestamp" in held["metadata"]
        with pytest.raises(AlreadyExists):
            cluster.create(REPLICAS, replica(namespace, "a"))
        more = {"metadata": {"finalizers": [FINALIZER, "example.com/more"]}}
        with pytest.raises(Invalid):
            cluster.patch(REPLICAS, "a", more, namespace=namespace)
        cluster.patch(REPLICAS, "a", {"metadata": {"finalizers": []}}, namespace=namespace)
        assert is_gone(cluster, REPLICAS, namespace, "a")

    def test_a_namesake_is_not_deleted(self, cluster: Cluster, namespace: str) -> None:
        cluster.create(CONFIG_MAPS, text(namespace, "a"))
        with pytest.raises(Conflict):
            cluster.delete(CONFIG_MAPS, "a", namespace=namespace, uid="another")

    def test_what_is_owned_goes_with_its_owner(self, cluster: Cluster, namespace: str) -> None:
        owner = cluster.create(CONFIG_MAPS, text(namespace, "owner"))
        cluster.create(CONFIG_MAPS, owned(text(namespace, "mine"), owner))
        cluster.create(CONFIG_MAPS, text(namespace, "free"))
        cluster.delete(CONFIG_MAPS, "owner", namespace=namespace)
        until(
            lambda: is_gone(cluster, CONFIG_MAPS, namespace, "mine"),
            seconds=ALIVE_SECONDS,
            what="the collection of what was owned",
        )
        assert not is_gone(cluster, CONFIG_MAPS, namespace, "free")

    def test_what_is_made_for_an_owner_that_is_gone_goes(
        self, cluster: Cluster, namespace: str
    ) -> None:
        owner = cluster.create(CONFIG_MAPS, text(namespace, "owner"))
        cluster.delete(CONFIG_MAPS, "owner", namespace=namespace)
        cluster.create(CONFIG_MAPS, owned(text(namespace, "late"), owner))
        until(
            lambda: is_gone(cluster, CONFIG_MAPS, namespace, "late"),
            seconds=ALIVE_SECONDS,
            what="the collection of what came too late",
        )

    def test_a_pod_on_a_node_is_given_its_time(self, cluster: Cluster, namespace: str) -> None:
        cluster.create(PODS, pod(namespace, "a"))
        cluster.create(BINDINGS, binding(namespace, "a", "somewhere"))
        assert cluster.get(PODS, "a", namespace=namespace)["spec"]["nodeName"] == "somewhere"
        cluster.delete(PODS, "a", namespace=namespace)
        held = cluster.get(PODS, "a", namespace=namespace)["metadata"]
        assert held["deletionGracePeriodSeconds"] == 30
        cluster.delete(PODS, "a", namespace=namespace, grace_seconds=5)
        held = cluster.get(PODS, "a", namespace=namespace)["metadata"]
        assert held["deletionGracePeriodSeconds"] == 5
        cluster.delete(PODS, "a", namespace=namespace, grace_seconds=0)
        assert is_gone(cluster, PODS, namespace, "a")

    def test_a_pod_nobody_runs_goes_at_once(self, cluster: Cluster, namespace: str) -> None:
        cluster.create(PODS, pod(namespace, "a"))
        cluster.delete(PODS, "a", namespace=namespace)
        assert is_gone(cluster, PODS, namespace, "a")

    def test_a_pod_has_one_node_and_one_content(self, cluster: Cluster, namespace: str) -> None:
        assert cluster.create(PODS, pod(namespace, "a"))["status"]["phase"] == "Pending"
        cluster.create(BINDINGS, binding(namespace, "a", "one"))
        with pytest.raises(Conflict):
            cluster.create(BINDINGS, binding(namespace, "a", "two"))
        change = {"spec": {"restartPolicy": "Never"}}
        with pytest.raises(Invalid):
            cluster.patch(PODS, "a", change, namespace=namespace)
        cluster.delete(PODS, "a", namespace=namespace, grace_seconds=0)

    def test_the_status_of_a_pod_is_its_nodes(self, cluster: Cluster, namespace: str) -> None:
        cluster.create(PODS, pod(namespace, "a"))
        body = {
            "metadata": {"namespace": namespace, "name": "a"},
            "status": {
                "phase": "Running",
                "podIP": "127.64.0.1",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        status = cluster.apply_status(PODS, body, manager="kubelet")["status"]
        assert (status["phase"], status["podIP"]) == ("Running", "127.64.0.1")
        assert [it["type"] for it in status["conditions"]] == ["Ready"]

    def test_nothing_is_made_in_a_namespace_that_ends(
        self, cluster: Cluster, namespace: str
    ) -> None:
        name = f"{namespace}-ending"
        cluster.create(NAMESPACES, {"metadata": {"name": name}})
        body = replica(name, "a")
        body["metadata"]["finalizers"] = [FINALIZER]
        cluster.create(REPLICAS, body)
        cluster.delete(NAMESPACES, name)
        with pytest.raises(NamespaceTerminating):
            cluster.create(CONFIG_MAPS, text(name, "late"))

        def is_asked_to_go() -> bool:
            found = cluster.get(REPLICAS, "a", namespace=name)
            return "deletionTimestamp" in found["metadata"]

        until(is_asked_to_go, seconds=ALIVE_SECONDS, what="the namespace's contents to be deleted")
        cluster.patch(REPLICAS, "a", {"metadata": {"finalizers": []}}, namespace=name)
        until(
            lambda: is_gone(cluster, NAMESPACES, "", name),
            seconds=ALIVE_SECONDS,
            what="the namespace to go",
        )


def binding(namespace: str, name: str, node: str) -> Object:
    """What gives a pod its node."""
    return {
        "metadata": {"namespace": namespace, "name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
