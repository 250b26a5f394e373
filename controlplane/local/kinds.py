"""Resources that only a scheduler and a kubelet write. For `objects` and `kubelet`."""

from controlplane.cluster import Resource

BINDINGS = Resource("", "v1", "bindings", "Binding")
