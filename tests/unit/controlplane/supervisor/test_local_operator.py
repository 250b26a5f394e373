"""The cluster of one machine as its process makes it."""

from pathlib import Path

import yaml

from controlplane.cluster import CONFIG_MAPS
from controlplane.crd.configuration import CATALOGUE_NAME, GPUConfiguration
from controlplane.crd.engine import EngineSpec
from controlplane.local.objects import LocalCluster
from controlplane.planner.launch import plan_launch
from controlplane.supervisor.local_cluster import CPU_TINY, is_ready, ready_file, seed
from controlplane.supervisor.local_operator import pod_environment


def test_the_catalogue_offers_what_this_machine_has() -> None:
    cluster = LocalCluster()
    seed(cluster, "flashplane")
    text = cluster.get(CONFIG_MAPS, CATALOGUE_NAME, namespace="flashplane")["data"]
    (offered,) = yaml.safe_load(text["catalogue.yaml"])["configurations"]
    assert GPUConfiguration.model_validate(offered) == CPU_TINY


def test_the_engine_can_be_planned_on_it() -> None:
    assert plan_launch(EngineSpec(), CPU_TINY).device == "cpu"


def test_pods_see_programs_and_no_secret() -> None:
    assert "PATH" in pod_environment()
    assert not any("KEY" in name or "URL" in name for name in pod_environment())


def test_a_file_of_a_dead_process_is_not_ready(tmp_path: Path) -> None:
    assert not is_ready(tmp_path)
    ready_file(tmp_path).write_text("1")  # some process, but not ours
    assert not is_ready(tmp_path)
