"""The engine: one module per job, run as `genre <job>`. The only package that imports Ray.

Ray reads its environment when it is imported. It is set here, before any module of this package can import Ray.
"""

from __future__ import annotations

import os
import secrets

# One job is one program: Ray's own reports would bury its output. All can be set back from outside.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # a report waits for the next poll; two seconds of it would be most of a short epoch
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # a path that a person gave holds where the command was given, in every process
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # results are looked for ten times a second; fetched by a thread, they would be seen the next time only
    "RAY_DATA_METADATA_PREFETCH_ON_THREAD": "0",
}
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
if not os.environ.get("RAY_ADDRESS"):
    # read when ray is imported; a token of this process's own, so that nothing is left in HOME
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
