"""A granted lease as the spawner gets it: the interpreter, the limits and the variables of the session."""

import json
from typing import Any

from jupyterhub_bkai.api import views
from jupyterhub_bkai.api.context import Context, Realised
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.store.records import Record


def lease_json(context: Context, record: Record, realised: Realised) -> dict[str, Any]:
    """Everything a spawner needs to start the session."""
    request = record.request
    paths = {folder.name: folder.path for folder in context.settings.folders}
    slices = _slices(context, record)
    return {
        "id": record.id,
        "user": record.user,
        "server": record.server,
        "image": request.version,
        "python": realised.python,
        "env": realised.folder,
        "node": record.node,
        "cpu_milli": request.cpu_milli,
        "memory_mib": request.memory_mib,
        "shm_mib": request.shm_mib,
        "slices": slices,
        "environment": dict(request.environment),
        "variables": _variables(context, record, slices),
        "folders": [
            {"name": m.name, "path": paths[m.name], "mode": m.mode}
            for m in request.folders
            if m.name in paths
        ],
        "deadline": views.iso(record.deadline_ms),
        "session_type": str(request.session_type),
        "fake": context.fake,
    }


def _slices(context: Context, record: Record) -> list[dict[str, Any]]:
    group = context.settings.group(record.request.group)
    unit = group.unit if group else Unit()
    found = []
    for piece in record.slices:
        mig = None
        if piece.mig:
            mig = {"profile": piece.mig.profile, "start": piece.mig.start, "size": piece.mig.size}
        shown = views.slice_view(piece, unit)
        row = {name: getattr(shown, name) for name in shown.__struct_fields__}
        found.append({**row, "mig": mig})
    return found


def _variables(context: Context, record: Record, slices: list[dict[str, Any]]) -> dict[str, str]:
    """What programs in the session can read of it. Set last, so that nothing a user sends replaces it."""
    threads = str(max(1, -(-record.request.cpu_milli // 1000)))
    variables = {
        "BKAI_LEASE_ID": record.id,
        "BKAI_SESSION_NAME": record.request.name or record.server or "default",
        "BKAI_SESSION_IMAGE": record.request.version,
        "BKAI_SERVICE_URL": f"{context.public_url.rstrip('/')}/services/bkai",
        "BKAI_SLICES": json.dumps(slices, separators=(",", ":")),
        "BKAI_ENFORCEMENT": context.enforcement,
        "BACKENDAI_SESSION_ID": record.id,
        "BACKENDAI_SESSION_NAME": record.request.name or record.server or "default",
        # Numeric libraries start a thread per processor they see unless they are told how many are theirs.
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    if not context.fake:
        # An empty list hides every card from a session that asked for none.
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(p.device for p in record.slices if p.slot == "cuda")
    return variables
