"""`adbc-telemetry check`: why events do not arrive, found step by step.

diagnoses    everything that may be found to be wrong: likely cause and remedy, by name
findings     what one step has found
checkup      the steps in their order, each with its time
target       what is checked: endpoint, credentials, the way there
local        configuration, spool, versions
network      proxy, name, connection, TLS
service      authentication, flags, a test event, the answer, the breaker
"""

from adbc_telemetry.check.checkup import Checkup, CheckupReport
from adbc_telemetry.check.diagnoses import Diagnosis
from adbc_telemetry.check.findings import Finding, Status

__all__ = ["Checkup", "CheckupReport", "Diagnosis", "Finding", "Status"]
