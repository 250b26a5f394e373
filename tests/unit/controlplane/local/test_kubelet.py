"""Pods as processes of this machine."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from support.pods import a_pod, gone, in_phase, is_ready, only, script, waited
from support.polling import until

from controlplane.cluster import CONFIG_MAPS, NODES, PODS, SECRETS, Cluster
from controlplane.local.kubelet import Kubelet, LocalNode
from controlplane.processes.process import identify
from controlplane.processes.table import ProcessTable

PID = "$$$$"  # a kubelet takes each pair for one
FOREVER = "exec sleep 1000"
TINY = "flashplane.io/tiny"
SERVE = [
    *(sys.executable, "-c"),
    "import http.server as s, sys; s.ThreadingHTTPServer((sys.argv[1], 8000),"
    " s.SimpleHTTPRequestHandler).serve_forever()",
    "$(POD_IP)",
]
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def tiny(count: int) -> dict[str, object]:
    return {"resources": {"limits": {TINY: str(count)}, "requests": {TINY: str(count)}}}


def running_pid(folder: Path) -> int:
    """The pid a script wrote."""
    until(lambda: folder.exists() and folder.read_text().strip(), seconds=10, what="its pid")
    return int(folder.read_text())


def test_a_pod_runs_to_its_end(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(PODS, a_pod("a", script("exit 0"), restartPolicy="Never"))
    pod = in_phase(cluster, "a", "Succeeded")
    assert pod["spec"]["nodeName"] == "local"
    assert only(pod["status"])["state"]["terminated"]["reason"] == "Completed"
    cluster.delete(PODS, "a", namespace="own")
    gone(cluster, "a")


def test_last_words_and_exit_codes_are_told(cluster: Cluster, kubelet: Kubelet) -> None:
    said = script("printf done > /dev/termination-log; exit 3")
    cluster.create(PODS, a_pod("a", said, restartPolicy="Never"))
    ended = only(in_phase(cluster, "a", "Failed")["status"])["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, "done")
    printed = script("echo printed; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    cluster.create(PODS, a_pod("b", printed, restartPolicy="Never"))
    ended = only(in_phase(cluster, "b", "Failed")["status"])["state"]["terminated"]
    assert ended["message"] == "printed\n"


def test_what_crashes_is_started_again_and_again(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(PODS, a_pod("a", script("kill -9 $$$$")))
    pod = waited(cluster, "a", lambda it: only(it)["restartCount"] >= 2)
    told = only(pod["status"])
    assert told["lastState"]["terminated"]["exitCode"] == 137
    waiting = waited(cluster, "a", lambda it: "waiting" in only(it)["state"])
    assert only(waiting["status"])["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert waiting["status"]["phase"] == "Running"


def test_init_containers_run_one_after_the_other(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    inits = [
        {**script(f"sleep 0.2; echo {word} >> {notes}"), "name": word} for word in ("one", "two")
    ]
    main = script(f"echo main >> {notes}; {FOREVER}")
    cluster.create(PODS, a_pod("a", main, initContainers=inits))
    pod = waited(cluster, "a", is_ready)
    until(lambda: notes.read_text().split() == ["one", "two", "main"], seconds=5, what="all three")
    codes = [it["state"]["terminated"]["exitCode"] for it in pod["status"]["initContainerStatuses"]]
    assert codes == [0, 0]


def test_a_failed_init_container_is_tried_again(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path
) -> None:
    init = {**script(f"test -e {tmp_path}/there"), "name": "init"}
    cluster.create(PODS, a_pod("a", script(FOREVER), initContainers=[init]))

    def has_failed(status: dict[str, object]) -> bool:
        (told,) = status.get("initContainerStatuses", [{}])  # type: ignore[misc]
        return "CrashLoopBackOff" in str(told.get("state"))

    assert waited(cluster, "a", has_failed)["status"]["phase"] == "Pending"
    (tmp_path / "there").touch()
    waited(cluster, "a", is_ready)


def test_a_pod_serves_on_an_address_of_its_own(cluster: Cluster, kubelet: Kubelet) -> None:
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 10}
    server = {
        "name": "it",
        "image": "any",
        "command": SERVE,
        "env": [POD_IP],
        "ports": [{"name": "http", "containerPort": 8000}],
        "startupProbe": {**probe, "failureThreshold": 10},
        "readinessProbe": probe,
    }
    addresses = set()
    for name in ("a", "b"):
        cluster.create(PODS, a_pod(name, server))
        addresses.add(waited(cluster, name, is_ready)["status"]["podIP"])
    assert len(addresses) == 2
    for address in addresses:
        assert httpx.get(f"http://{address}:8000/", trust_env=False).status_code == 200


def test_what_fails_its_liveness_probe_is_restarted(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path
) -> None:
    probe = {
        "exec": {"command": ["test", "!", "-e", f"{tmp_path}/ill"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    cluster.create(PODS, a_pod("a", script(FOREVER, livenessProbe=probe)))
    waited(cluster, "a", is_ready)
    (tmp_path / "ill").touch()
    waited(cluster, "a", lambda it: "terminated" in only(it)["lastState"])
    (tmp_path / "ill").unlink()
    waited(cluster, "a", is_ready)


def test_a_readiness_probe_takes_a_pod_out_and_back(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path
) -> None:
    probe = {
        "exec": {"command": ["test", "-e", f"{tmp_path}/well"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    cluster.create(PODS, a_pod("a", script(FOREVER, readinessProbe=probe)))
    assert not is_ready(in_phase(cluster, "a", "Running")["status"])
    (tmp_path / "well").touch()
    waited(cluster, "a", is_ready)
    (tmp_path / "well").unlink()
    pod = waited(cluster, "a", lambda it: not is_ready(it))
    assert only(pod["status"])["restartCount"] == 0


def test_deletion_asks_then_kills(cluster: Cluster, kubelet: Kubelet, tmp_path: Path) -> None:
    polite = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; echo {PID} > {tmp_path}/pid; "
    wait = "while :; do sleep 0.05; done"
    cluster.create(PODS, a_pod("polite", script(polite + wait)))
    cluster.create(PODS, a_pod("stubborn", script(f"trap '' TERM; {wait}")))
    pid = running_pid(tmp_path / "pid")
    in_phase(cluster, "stubborn", "Running")
    for name in ("polite", "stubborn"):
        cluster.delete(PODS, name, namespace="own")
        gone(cluster, name)
    assert (tmp_path / "bye").read_text() == "bye\n"
    assert identify(pid) is None


def test_what_is_removed_by_force_ends_too(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path
) -> None:
    cluster.create(PODS, a_pod("a", script(f"echo {PID} > {tmp_path}/pid; {FOREVER}")))
    pid = running_pid(tmp_path / "pid")
    cluster.delete(PODS, "a", namespace="own", grace_seconds=0)
    until(lambda: identify(pid) is None, seconds=5, what="the process to end")


def test_a_pod_past_its_deadline_has_failed(cluster: Cluster, kubelet: Kubelet) -> None:
    body = a_pod("a", script(FOREVER), restartPolicy="Never", activeDeadlineSeconds=1)
    cluster.create(PODS, body)
    assert in_phase(cluster, "a", "Failed")["status"]["reason"] == "DeadlineExceeded"


def test_an_image_that_cannot_be_pulled_is_waited_for(cluster: Cluster, kubelet: Kubelet) -> None:
    kubelet.missing_images.add("any")
    cluster.create(PODS, a_pod("a", script(FOREVER)))
    pod = waited(cluster, "a", lambda it: "ImagePullBackOff" in str(it.get("containerStatuses")))
    assert pod["status"]["phase"] == "Pending"
    kubelet.missing_images.clear()
    waited(cluster, "a", is_ready)


def test_configuration_that_is_missing_is_waited_for(cluster: Cluster, kubelet: Kubelet) -> None:
    container = script('test "$(WORD)$WORD" = xx', envFrom=[{"secretRef": {"name": "words"}}])
    cluster.create(PODS, a_pod("a", container, restartPolicy="OnFailure"))
    waited(cluster, "a", lambda it: "CreateContainerConfigError" in str(it))
    secret = {"metadata": {"namespace": "own", "name": "words"}, "stringData": {"WORD": "x"}}
    cluster.create(SECRETS, secret)
    in_phase(cluster, "a", "Succeeded")


def test_volumes_are_folders_where_the_container_sees_them(
    cluster: Cluster, new_kubelet: Callable[..., Kubelet], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config").write_text("tiny")
    new_kubelet(weights=model)
    words = {"metadata": {"namespace": "own", "name": "words"}, "data": {"greeting": "hi"}}
    cluster.create(CONFIG_MAPS, words)
    mounts = [
        {"name": "weights", "mountPath": "/weights"},
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "words", "mountPath": "/etc/words"},
        {"name": "kept", "mountPath": "/kept"},
    ]
    volumes = [
        {"name": "weights", "persistentVolumeClaim": {"claimName": "weights"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "words", "configMap": {"name": "words"}},
        {"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}},
    ]
    write = script(
        "cat /weights/config /etc/words/greeting > /tmp/all && cp /tmp/all $KEPT/all",
        env=[{"name": "KEPT", "value": "/kept"}],
        volumeMounts=mounts,
    )
    cluster.create(PODS, a_pod("a", write, volumes=volumes, restartPolicy="Never"))
    in_phase(cluster, "a", "Succeeded")
    assert (tmp_path / "disks/claims/own/kept/all").read_text() == "tinyhi"


def test_extended_resources_are_given_once(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.create(PODS, a_pod("a", script(FOREVER, **tiny(2))))
    waited(cluster, "a", is_ready)
    cluster.create(PODS, a_pod("b", script(FOREVER, **tiny(1))))
    cluster.create(PODS, a_pod("c", script(FOREVER)))
    waited(cluster, "c", is_ready)
    assert "nodeName" not in cluster.get(PODS, "b", namespace="own")["spec"]
    cluster.delete(PODS, "a", namespace="own")
    waited(cluster, "b", is_ready)


def test_a_lost_node_tells_nothing_more(
    cluster: Cluster, new_kubelet: Callable[..., Kubelet], tmp_path: Path
) -> None:
    kubelet = new_kubelet(LocalNode("one", {TINY: 1}), LocalNode("two", {TINY: 1}))
    cluster.create(PODS, a_pod("a", script(f"echo {PID} > {tmp_path}/pid; {FOREVER}")))
    pid = running_pid(tmp_path / "pid")
    waited(cluster, "a", is_ready)
    kubelet.lose("one")
    assert identify(pid) is None
    assert is_ready(cluster.get(PODS, "a", namespace="own")["status"])
    (ready,) = cluster.get(NODES, "one")["status"]["conditions"]
    assert ready["status"] == "Unknown"
    cluster.create(PODS, a_pod("b", script(FOREVER)))
    assert waited(cluster, "b", is_ready)["spec"]["nodeName"] == "two"


def test_the_next_kubelet_ends_what_a_killed_one_left(
    cluster: Cluster, new_kubelet: Callable[..., Kubelet], tmp_path: Path
) -> None:
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    identity = identify(left.pid)
    assert identity is not None
    (tmp_path / "disks").mkdir()
    ProcessTable(tmp_path / "disks/processes.json").record("some-pod/it", identity)
    new_kubelet()
    assert left.wait(10) == -signal.SIGTERM


def test_the_next_kubelet_goes_on_with_the_pods_of_the_one_before(
    cluster: Cluster, new_kubelet: Callable[..., Kubelet]
) -> None:
    kubelet = new_kubelet()
    for name in ("a", "b"):
        cluster.create(PODS, a_pod(name, script(FOREVER)))
        waited(cluster, name, is_ready)
    kubelet.stop(grace_seconds=1)
    cluster.delete(PODS, "b", namespace="own")
    new_kubelet()
    waited(cluster, "a", lambda it: is_ready(it) and only(it)["restartCount"] == 1)
    gone(cluster, "b")


def test_a_claim_is_a_name_and_not_a_path(cluster: Cluster, kubelet: Kubelet) -> None:
    volume = {"name": "weights", "persistentVolumeClaim": {"claimName": "../../etc"}}
    cluster.create(PODS, a_pod("a", script(FOREVER), volumes=[volume]))
    pod = waited(cluster, "a", lambda it: "CreateContainerConfigError" in str(it))
    assert "there is no claim" in str(pod["status"])
