from controlplane.cluster import CONFIG_MAPS, Object
from controlplane.crd.configuration import CATALOGUE_NAME
from controlplane.operator.catalogue import Tables
from controlplane.planner.catalogue import KEY, default_text
from controlplane.watching.cache import Cache


def config_map(version: int, text: str, name: str = CATALOGUE_NAME) -> Object:
    metadata = {"namespace": "fp", "name": name, "resourceVersion": str(version)}
    return {"metadata": metadata, "data": {KEY: text}}


def test_the_newest_text_that_can_be_read_is_in_force() -> None:
    cache: Cache[Object] = Cache(CONFIG_MAPS, lambda body: body)
    catalogue = Tables(cache, "fp").catalogue
    assert catalogue() == {}
    cache.assume(config_map(1, default_text()))
    shipped = catalogue()
    assert shipped
    cache.assume(config_map(2, "configurations: ["))
    assert catalogue() == shipped
    cache.assume(config_map(3, "configurations: []"))
    assert catalogue() == {}


def test_other_config_maps_are_none_of_its_business() -> None:
    cache: Cache[Object] = Cache(CONFIG_MAPS, lambda body: body)
    catalogue = Tables(cache, "fp").catalogue
    cache.assume(config_map(1, default_text(), name="another"))
    assert catalogue() == {}
