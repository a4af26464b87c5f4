"""Everything that `check` may find to be wrong. `docs/check.md` shows this table; a test compares the two."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Explanation(NamedTuple):
    """A sentence each, without a full stop."""

    cause: str
    remedy: str


class Diagnosis(Enum):
    """What is wrong, by name: the likely cause, and what to do about it."""

    # Configuration
    OPTED_OUT = Explanation(
        "the environment of this process says no to telemetry",
        "unset DO_NOT_TRACK and DATABRICKS_TELEMETRY_ENABLED=false where events are wanted",
    )
    LOCAL_ONLY = Explanation(
        "the user wants events to stay on this machine, so none is sent",
        "unset ADBC_TELEMETRY_DEBUG and DATABRICKS_TELEMETRY_MODE=local where events are to be sent",
    )
    UNDECIDED = Explanation(
        "the user has said neither yes nor no, so the server's flags decide",
        "set DATABRICKS_TELEMETRY_ENABLED=true, or call instrument() or install(), or turn the flag on",
    )
    BAD_SETTING = Explanation(
        "a setting in the environment makes no sense and counts as absent",
        "correct its value or unset it",
    )
    UNKNOWN_SETTING = Explanation(
        "a variable in the environment looks like a setting and is none",
        "correct its name; docs/configuration.md lists the settings",
    )
    NO_ENDPOINT = Explanation(
        "neither the command nor the environment names an endpoint, so nothing is sent",
        "name one: adbc-telemetry check https://host, or set ADBC_TELEMETRY_ENDPOINT",
    )
    BAD_ENDPOINT = Explanation(
        "the endpoint is neither a host nor a URL that is understood",
        "write it as https://host, http://127.0.0.1:8317 or otlp+http://host:4318",
    )

    # The way there
    PROXY_UNKNOWN = Explanation(
        "the name of the proxy is not known",
        "correct HTTPS_PROXY or HTTP_PROXY, or name the endpoint in NO_PROXY",
    )
    PROXY_REFUSES_CONNECTION = Explanation(
        "the proxy that the environment names cannot be reached",
        "correct HTTPS_PROXY or HTTP_PROXY, start the proxy, or name the endpoint in NO_PROXY",
    )
    PROXY_WANTS_CREDENTIALS = Explanation(
        "the proxy wants a name and a password",
        "put them into the proxy's URL: http://name:password@proxy:port",
    )
    PROXY_FORBIDS = Explanation(
        "the proxy does not let this endpoint through",
        "ask for the endpoint to be allowed, or name it in NO_PROXY if it can be reached directly",
    )
    PROXY_IS_NONE = Explanation(
        "what answers at the proxy's address is no proxy",
        "correct HTTPS_PROXY or HTTP_PROXY",
    )
    UNKNOWN_HOST = Explanation(
        "no such host is known",
        "see whether its name is right, and whether it is known outside of a VPN",
    )
    RESOLVER_DOES_NOT_ANSWER = Explanation(
        "the name server does not answer",
        "see whether this machine has a network and a name server (/etc/resolv.conf), or needs a proxy",
    )
    CONNECTION_REFUSED = Explanation(
        "nothing listens at that port",
        "start the collector (adbc-telemetry collect), or correct the port",
    )
    HOST_UNREACHABLE = Explanation(
        "there is no way to that address",
        "see whether a VPN or a proxy is needed",
    )
    CONNECTION_TIMES_OUT = Explanation(
        "the address does not answer; most often a firewall drops the packets",
        "have the port opened, or set HTTPS_PROXY where only a proxy gets out",
    )

    # TLS
    CERTIFICATE_EXPIRED = Explanation(
        "the server's certificate has expired",
        "have the certificate renewed",
    )
    CERTIFICATE_NOT_YET_VALID = Explanation(
        "the server's certificate is not valid yet",
        "have the server's certificate and clock checked",
    )
    CLOCK_IS_WRONG = Explanation(
        "this machine's clock is wrong, so that certificates and tokens seem invalid",
        "set the clock, and keep it right by NTP",
    )
    CERTIFICATE_OF_ANOTHER_HOST = Explanation(
        "the server's certificate is for another name",
        "use the name that the certificate is for; behind a proxy, see which server answers",
    )
    CERTIFICATE_SELF_SIGNED = Explanation(
        "the server's certificate is signed by itself",
        "have it signed by an authority, or trust it: SSL_CERT_FILE=/path/to/certificate.pem",
    )
    CERTIFICATE_ISSUER_UNKNOWN = Explanation(
        "this machine does not know the authority that signed the certificate, often that of a company's proxy",
        "trust it: SSL_CERT_FILE=/path/to/authorities.pem; in slim containers install ca-certificates",
    )
    CERTIFICATE_NOT_ACCEPTED = Explanation(
        "the server's certificate is not accepted",
        "have the certificate checked: openssl s_client -connect host:port",
    )
    SPEAKS_NO_TLS = Explanation(
        "the port speaks plain HTTP and no TLS",
        "write http:// for a collector on this machine, or give the server a certificate",
    )
    WANTS_TLS = Explanation(
        "the port speaks TLS and no plain HTTP",
        "write https://",
    )
    TLS_FAILS = Explanation(
        "TLS breaks off; the server may be too old for TLS 1.2, or something in between interferes",
        "see what answers: openssl s_client -connect host:port",
    )

    # The answers
    TOKEN_WOULD_BE_READ = Explanation(
        "a token may not travel over plain HTTP to another machine",
        "use https://, or send without a token",
    )
    UNAUTHORIZED = Explanation(
        "the endpoint does not accept the credentials, or wants some",
        "set the token: ADBC_TELEMETRY_COLLECTOR_TOKEN or --token-file; it may have expired",
    )
    FORBIDDEN = Explanation(
        "the endpoint knows the credentials and does not allow them to send events",
        "ask for the permission; for a collector see its --host and the name it is addressed by",
    )
    NO_SUCH_ROUTE = Explanation(
        "a server answers that does not take telemetry",
        "correct the endpoint: host and port of the workspace or collector",
    )
    REDIRECTED = Explanation(
        "the server sends elsewhere, and credentials do not follow a redirect",
        "use the address that it redirects to",
    )
    REFUSES_THE_REQUEST = Explanation(
        "the endpoint refuses the request",
        "see the endpoint's log for the reason",
    )
    RATE_LIMITED = Explanation(
        "the endpoint has had enough requests for now (429)",
        "wait; events are tried again, and kept in between where a spool_dir is set",
    )
    UNAVAILABLE = Explanation(
        "the endpoint is overloaded or under maintenance (503)",
        "wait; for a collector see /healthz, its log, and the room on its disk",
    )
    SERVER_FAILS = Explanation(
        "the endpoint fails on its side (5xx)",
        "see the endpoint's log",
    )
    DOES_NOT_ANSWER = Explanation(
        "the endpoint takes the connection and does not answer",
        "see whether it hangs or is overloaded; a longer --timeout shows whether it is slow",
    )
    BREAKS_OFF = Explanation(
        "the connection ends before the answer",
        "see the endpoint's log; a firewall or a proxy may cut connections",
    )
    ANSWER_IS_NO_TELEMETRY = Explanation(
        "something answers that knows nothing of telemetry, such as a login page of the network",
        "log in to the network, or correct the endpoint or the proxy",
    )
    EVENT_REFUSED = Explanation(
        "the endpoint answers but does not accept the event",
        "see the refused events of the collector: its page and log say why; it may be too old",
    )
    FLAGS_SAY_NO = Explanation(
        "the endpoint's feature flags turn telemetry off for users who have not decided",
        "turn the flag on at the server, or decide: DATABRICKS_TELEMETRY_ENABLED=true",
    )
    FLAGS_NOT_READABLE = Explanation(
        "the endpoint has no feature flags, so that users who have not decided send nothing",
        "decide: DATABRICKS_TELEMETRY_ENABLED=true, or call instrument() or install()",
    )
    CIRCUIT_OPEN = Explanation(
        "the circuit breaker is open after failed exports",
        "mend what is named above; it closes by itself when the endpoint is back",
    )
    FILE_NOT_WRITABLE = Explanation(
        "the file that events go to cannot be written",
        "make its folder, and make it writable for the user that the program runs as",
    )
    NEEDS_EXTRA = Explanation(
        "the endpoint needs a package that is not installed",
        "install it: pip install 'adbc-telemetry[otel]'",
    )

    # The spool
    SPOOL_NOT_WRITABLE = Explanation(
        "the spool's folder cannot be written to",
        "make it writable for the user that the program runs as, or set another DATABRICKS_TELEMETRY_SPOOL_DIR",
    )
    SPOOL_IS_NO_FOLDER = Explanation(
        "the spool's path is not a folder",
        "set DATABRICKS_TELEMETRY_SPOOL_DIR to a folder",
    )
    SPOOL_FULL = Explanation(
        "the spool is nearly full; the oldest events are dropped beyond its bound",
        "mend the delivery, or raise DATABRICKS_TELEMETRY_SPOOL_MAX_BYTES",
    )
    DISK_FULL = Explanation(
        "the spool's disk has less room than the spool may take",
        "make room, or lower DATABRICKS_TELEMETRY_SPOOL_MAX_BYTES",
    )

    @property
    def label(self) -> str:
        """The name as it is printed: `certificate-expired`."""
        return self.name.lower().replace("_", "-")
