"""Python imports this at the start of every process that has this folder on its path: it brings faults about."""

import os

if "FAULTS_AT" in os.environ:
    from reproduce import phases
    from tests.faults import injected

    phases.listen(injected.heard)
