"""What Pod Security's level `restricted` asks of pods and containers, and a little more."""

from controlplane.cluster import Object

UID = 10_001  # of every container that is ours; no image needs a user entry for it


def confined(uid: int = UID, *, writable: bool = False) -> Object:
    """Return a container's security context: no root, no privileges, nothing to write on.

    Args:
        writable: whether its own files may be changed all the same.
    """
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": not writable,
        "runAsNonRoot": True,
        "runAsUser": uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_confined() -> Object:
    """Return a pod's security context; volumes are given to its group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        # A recursive change of owner over 160 GB takes minutes; once is enough.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
