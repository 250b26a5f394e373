"""What an order would get: configuration, stock, price, time, warnings. Pure.

Called by `orders` for dry runs, and before anything is ordered for real.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpointSpec, Volume
from controlplane.crd.inference import InferenceDeploymentSpec
from controlplane.deployments.specs import Spec, is_stopped
from controlplane.money import p_to_usd, rate_p_to_usd_per_million
from controlplane.planner.estimate import estimate_start
from controlplane.planner.launch import Launch, plan_launch
from controlplane.planner.refusal import Refused
from controlplane.pricing.gpu import kind_of
from controlplane.pricing.rating import Price
from controlplane.pricing.storage import ANY_CLASS

# Of a customer's image on a node that does not have it; nobody knows its size beforehand.
IMAGE_SECONDS = 120.0
# Prompt tokens per output token of the traffic that costs are compared on.
INPUT_SHARE = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """A GPU configuration as it is offered: its room now, None: unknown."""

    configuration: GPUConfiguration
    free_replicas: int | None


@dataclass(frozen=True, slots=True)
class Market:
    """What there is to buy, by configuration id: offers, and rates by (id, kind); of volumes, p$
    per GiB and hour by storage class."""

    offers: Mapping[str, Offer]
    rates_p_per_hour: Mapping[tuple[str, str], int]
    serverless: Price | None
    storage_p_per_gib_hour: Mapping[str, int] = field(default_factory=dict)

    def is_spot(self, configuration: str) -> bool:
        offer = self.offers.get(configuration)
        return offer is not None and offer.configuration.spot

    def rate_p_per_hour(self, configuration: str) -> int | None:
        """What a replica on it costs an hour; None: not for sale."""
        kind = kind_of(spot=self.is_spot(configuration))
        return self.rates_p_per_hour.get((configuration, kind))

    def storage_p_per_hour(self, volume: Volume) -> int:
        """What a volume costs an hour; without a price, nothing until there is one."""
        rates = self.storage_p_per_gib_hour
        return volume.size_gib * rates.get(volume.storage_class, rates.get(ANY_CLASS, 0))


@dataclass(frozen=True, slots=True)
class Quote:
    """An estimate, except for the prices, which are exact and pinned when a replica serves.

    Attributes:
        configuration: the first choice that has room, by id.
        stock: room for replicas by configuration; None: unknown.
        rate_p_per_hour: of one replica; None: not for sale.
        replicas: the fewest and the most that run.
        storage_p_per_hour: of its volume, which is had while stopped, too; None: it has none.
        estimated_seconds: until it serves, once GPUs are there; None: unknown.
        warnings: what to know before ordering.
    """

    configuration: str
    gpus: int | None
    nodes: int | None
    spot: bool
    stock: dict[str, int | None]
    rate_p_per_hour: int | None
    replicas: tuple[int, int]
    storage_p_per_hour: int | None
    estimated_seconds: float | None
    warnings: list[str]


def quote(spec: Spec, market: Market, *, available_p: int | None) -> Quote:
    """Return what a spec would get.

    Args:
        spec: a checked spec.
        market: offers and prices of this moment.
        available_p: what the tenant may spend; None: a pool of the platform's own.
    """
    stock = {name: _free(market, name) for name in spec.configurations}
    refused = refusals(spec, market)
    fitting = [name for name in spec.configurations if name not in refused]
    chosen = next(
        (name for name in fitting if stock[name] != 0), (fitting or spec.configurations)[0]
    )
    offer = market.offers.get(chosen)
    least, most = _replicas(spec)
    rate_p = market.rate_p_per_hour(chosen)
    volume = spec.volume if isinstance(spec, GPUEndpointSpec) else None
    storage_p = None if volume is None else market.storage_p_per_hour(volume)
    warnings = [*refused.values(), *_stock_warnings(spec, market, stock, least)]
    if available_p is not None:
        warnings += _money_warnings(rate_p, max(1, least), storage_p or 0, available_p)
    if rate_p and not isinstance(spec, GPUEndpointSpec) and market.serverless:
        warnings.append(_against_serverless(rate_p, market.serverless))
    return Quote(
        configuration=chosen,
        gpus=offer.configuration.count if offer else None,
        nodes=offer.configuration.nodes if offer else None,
        spot=market.is_spot(chosen),
        stock=stock,
        rate_p_per_hour=rate_p,
        replicas=(least, most),
        storage_p_per_hour=storage_p,
        estimated_seconds=_estimate(spec, offer) if chosen in fitting else None,
        warnings=warnings,
    )


def fewest_replicas(spec: Spec) -> int:
    """Return how many replicas a spec keeps at least."""
    return _replicas(spec)[0]


def unpriced(spec: Spec, market: Market) -> str | None:
    """Return a configuration of a spec that is not for sale."""
    return next(
        (name for name in spec.configurations if market.rate_p_per_hour(name) is None), None
    )


def refusals(spec: Spec, market: Market) -> dict[str, str]:
    """Return why the engine cannot run, by configuration; those nobody knows are left out."""
    if isinstance(spec, GPUEndpointSpec):
        return {}
    refused = {}
    for name in spec.configurations:
        offer = market.offers.get(name)
        if offer is None:
            continue
        try:
            _launch(spec, offer)
        except Refused as refusal:
            refused[name] = refusal.message
    return refused


def _launch(spec: InferenceDeploymentSpec, offer: Offer) -> Launch:
    return plan_launch(spec.engine, offer.configuration, weights_bytes=spec.weights.size_bytes)


def _free(market: Market, configuration: str) -> int | None:
    offer = market.offers.get(configuration)
    return offer.free_replicas if offer else None


def _replicas(spec: Spec) -> tuple[int, int]:
    if is_stopped(spec):
        return 0, 0
    if isinstance(spec, GPUEndpointSpec):
        return 1, 1
    if spec.scaling is not None:
        return spec.scaling.min, spec.scaling.max
    assert spec.replicas is not None
    return spec.replicas, spec.replicas


def _estimate(spec: Spec, offer: Offer | None) -> float | None:
    if offer is None:
        return None
    if isinstance(spec, GPUEndpointSpec):
        return IMAGE_SECONDS
    return estimate_start(_launch(spec, offer), offer.configuration, spec.weights).seconds


def _stock_warnings(
    spec: Spec, market: Market, stock: Mapping[str, int | None], wanted: int
) -> list[str]:
    warnings = [
        f"{name} is not in the GPU catalogue." for name in stock if name not in market.offers
    ]
    known = [free for free in stock.values() if free is not None]
    if len(known) == len(stock) and sum(known) < max(1, wanted):
        warnings.append(
            f"There is room for {sum(known)} of {max(1, wanted)} replicas now: the rest waits for"
            " capacity, which costs nothing."
        )
    if spec.configurations and all(market.is_spot(name) for name in spec.configurations):
        warnings.append("All configurations are spot: they may be taken away after a notice.")
    return warnings


def _money_warnings(
    rate_p: int | None, replicas: int, storage_p: int, available_p: int
) -> list[str]:
    if rate_p is None or rate_p == 0:
        return []
    hours = available_p / (rate_p * replicas + storage_p)
    if hours >= 24:
        return []
    return [f"The balance lasts for {hours:.1f} hours of {replicas} replica(s); then it stops."]


def _against_serverless(rate_p: int, price: Price) -> str:
    """Say from what traffic on a replica is cheaper than tokens; at list prices seldom."""
    blended_p = (INPUT_SHARE * price.miss_rate_p + price.output_rate_p) / (INPUT_SHARE + 1)
    if blended_p == 0:
        return "The serverless path is free here."
    per_day = 24 * rate_p / blended_p / 1e6
    return (
        f"At {p_to_usd(rate_p)} USD per hour a replica is cheaper than the serverless path only"
        f" above {per_day:,.0f} million tokens a day ({INPUT_SHARE}:1 input to output, no cache"
        f" hits, {rate_p_to_usd_per_million(round(blended_p))} USD per million). Buy it for"
        " isolation, latency and privacy."
    )
