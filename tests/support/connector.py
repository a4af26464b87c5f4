"""The telemetry client of the real `databricks-sql-connector`, unchanged, in a process of its own.

Not in the tests' process: it replaces `sys.excepthook` and keeps threads.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

_PROGRAM: Final = '''
import logging, sys
from databricks.sql.auth.authenticators import AccessTokenAuthProvider
from databricks.sql.auth.common import ClientContext
from databricks.sql.telemetry.models import enums
from databricks.sql.telemetry.models.event import (
    ChunkDetails, DriverConnectionParameters, HostDetails, OperationDetail, ResultLatency, SqlExecutionEvent,
)
from databricks.sql.telemetry.telemetry_client import TelemetryClientFactory, TelemetryHelper
from databricks.sql.types import SSLOptions

url, authority, private = sys.argv[1:]

class Refusals(logging.Handler):
    """The client tells of refused events in its debug log only."""
    def emit(self, record):
        text = record.getMessage()
        if record.levelno >= logging.ERROR or any(word in text.lower() for word in ("failed", "failure pushing")):
            print(text, file=sys.stderr, flush=True)

logging.getLogger("databricks.sql").setLevel(logging.DEBUG)
logging.getLogger("databricks.sql").addHandler(Refusals())

context = ClientContext(
    hostname=url, ssl_options=SSLOptions(tls_trusted_ca_file=authority), user_agent="PyDatabricksSqlConnector/test",
    retry_stop_after_attempts_count=1, socket_timeout=30,
)
def provider(token):
    return AccessTokenAuthProvider(token)

def host():
    return HostDetails(host_url="host.example", port=443)

events = 0
for auth in (provider("token"), None):
    TelemetryClientFactory.initialize_telemetry_client(
        telemetry_enabled=True, session_id_hex="01f0c1d2", auth_provider=auth, host_url=url, batch_size=20,
        client_context=context,
    )
    client = TelemetryClientFactory.get_telemetry_client(url)
    client.export_initial_telemetry_log(
        DriverConnectionParameters(
            http_path="/sql/1.0/warehouses/abc", mode=enums.DatabricksClientType.THRIFT, host_info=host(),
            auth_mech=TelemetryHelper.get_auth_mechanism(auth), auth_flow=enums.AuthFlow.TOKEN_PASSTHROUGH,
            socket_timeout=900, azure_workspace_resource_id="a", azure_tenant_id="b", use_proxy=True,
            use_system_proxy=False, proxy_host_info=host(), use_cf_proxy=False, cf_proxy_host_info=host(),
            non_proxy_hosts=["localhost", "*.example"], allow_self_signed_support=False, use_system_trust_store=True,
            enable_arrow=True, enable_direct_results=True, enable_sea_hybrid_results=False,
            http_connection_pool_size=10, rows_fetched_per_block=10_000, async_poll_interval_millis=200,
            support_many_parameters=True, enable_complex_datatype_support=True, allowed_volume_ingestion_paths="",
            query_tags="team:é",
        ),
        "PyDatabricksSqlConnector/test",
    )
    client.export_failure_log("ServerOperationError", private)
    events += 2
    for statement_type in enums.StatementType:
        for result in enums.ExecutionResultFormat:
            client.export_latency_log(
                27,
                SqlExecutionEvent(
                    statement_type=statement_type, is_compressed=True, execution_result=result, retry_count=0,
                    chunk_id=None, chunk_details=ChunkDetails(2, 5, 3, 3, 9), result_latency=ResultLatency(14, 27),
                    operation_detail=OperationDetail(1, 3, "EXECUTE_STATEMENT", False),
                ),
                "01f0c1d2-%d" % events,
            )
            events += 1
    TelemetryClientFactory.close(url)

TelemetryClientFactory.connection_failure_log("RequestError", private, url, "/sql", 443, context, "test")
TelemetryClientFactory.close(url)
print(events + 1)
'''


def send_by_the_connector(url: str, authority: Path, *, private: str) -> int:
    """Let the connector's client send all kinds of its events, and wait until they are answered.

    Args:
        url: an HTTPS endpoint that answers as the service does; both of its paths are used.
        authority: a PEM file with the authority of the endpoint's certificate.
        private: a text that the connector sends as the text of an error.

    Returns:
        How many events it sent.

    Raises:
        AssertionError: when it failed, or when an event was refused.
    """
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, url, str(authority), private],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "", ended.stderr
    return int(ended.stdout)
