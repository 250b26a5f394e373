"""What a ConfigMap or a Secret holds: pure, for `launching` and `volumes`."""

import base64

from controlplane.cluster import Object


def texts_of(body: Object) -> dict[str, str]:
    """Return a ConfigMap's or Secret's texts by key."""
    data: dict[str, str] = body.get("data") or {}
    if body["kind"] != "Secret":
        return dict(data)
    return {name: base64.b64decode(value).decode() for name, value in data.items()}
