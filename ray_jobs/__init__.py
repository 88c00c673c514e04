"""The jobs: one module each, run as `genre <job>`. The only package that imports Ray.

Ray reads its environment when it is imported. It is set here, before any module of this package can import Ray.
"""

from __future__ import annotations

import os
import secrets

# Those without a comment silence reports that hide the output of a job. Variables that the user has set are kept.
RAY_VARIABLES = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Ray's core complains about how Ray Data itself starts actors, as if a restart would fail (ray-project/ray#57733)
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # reports are taken at each poll; the default of two seconds is longer than a short epoch
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # a machine that replaces a lost one takes minutes to boot; the default is one minute
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "900",
    # relative paths of the command line are valid in every process
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # results are polled ten times a second; those fetched by a thread would be seen one poll later
    "RAY_DATA_METADATA_PREFETCH_ON_THREAD": "0",
}
for _name, _value in RAY_VARIABLES.items():
    os.environ.setdefault(_name, _value)
if not os.environ.get("RAY_ADDRESS"):
    # a token of this process alone, so that Ray writes none to HOME
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
