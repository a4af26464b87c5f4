// What an empty collector shows: how to send a first event.

import { hasToken } from "./api.js";

export function write() {
  const origin = location.origin;
  const log = {
    frontend_log_event_id: crypto.randomUUID?.() ?? `first-${Date.now()}`,
    context: { client_context: { timestamp_millis: Date.now(), user_agent: "curl" } },
    entry: {
      sql_driver_log: {
        session_id: "first-session", sql_statement_id: "first-statement", operation_latency_ms: 42,
        system_configuration: { driver_name: "my driver", driver_version: "1.0" },
        driver_connection_params: { host_info: { host_url: "database.example" } },
        sql_operation: { statement_type: "QUERY", operation_detail: { operation_type: "EXECUTE_STATEMENT" } },
      },
    },
  };
  const body = JSON.stringify({ uploadTime: Date.now(), items: [], protoLogs: [JSON.stringify(log)] });
  const token = hasToken() ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const path = hasToken() ? "/telemetry-ext" : "/telemetry-unauth";
  document.getElementById("curl").textContent =
    `curl ${origin}${path} -H 'Content-Type: application/json'${token} -d '${body}'`;
  document.getElementById("python").textContent = [
    "# pip install 'adbc-telemetry[adbc]' adbc-driver-sqlite",
    "import adbc_driver_sqlite.dbapi",
    "import adbc_telemetry",
    "",
    `with adbc_telemetry.instrument(adbc_driver_sqlite.dbapi.connect(), "${origin}"${hasToken() ? ", auth=headers" : ""}) as connection:`,
    "    with connection.cursor() as cursor:",
    '        cursor.execute("SELECT 1")',
    "        print(cursor.fetchall())",
    "",
  ].join("\n");
}
