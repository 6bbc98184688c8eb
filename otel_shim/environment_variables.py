"""Names of the environment variables that are ours, each with its meaning and default."""

from typing import Final

OTEL_SHIM_ORG_ID: Final = "OTEL_SHIM_ORG_ID"
"""Where the organisation comes from: sources in order, first wins, for example
``dependency:current_user.org_id,state:org.id``. Kinds: ``dependency``, ``state``, ``user``, ``path``.
Default: see ``otel_shim.sources.DEFAULTS``."""

OTEL_SHIM_USER_ID: Final = "OTEL_SHIM_USER_ID"
"""Where the user's id comes from; as ``OTEL_SHIM_ORG_ID``."""

OTEL_SHIM_ACTOR_ROLE: Final = "OTEL_SHIM_ACTOR_ROLE"
"""Where the actor's role comes from; as ``OTEL_SHIM_ORG_ID``."""

OTEL_SHIM_PLAN: Final = "OTEL_SHIM_PLAN"
"""Where the organisation's plan comes from; as ``OTEL_SHIM_ORG_ID``."""

OTEL_SHIM_USER_IDENTITY: Final = "OTEL_SHIM_USER_IDENTITY"
"""``hash`` (default): spans carry ``user.hash``, a keyed pseudonym. ``clear``: they carry ``user.id``."""

OTEL_SHIM_SECRET: Final = "OTEL_SHIM_SECRET"  # noqa: S105 - a name
"""The secret from which the keys of pseudonyms are derived; at least 32 bytes. Give every host of a
deployment the same. Default: one made once per host, in its state directory."""

OTEL_SHIM_SECRET_FILE: Final = "OTEL_SHIM_SECRET_FILE"  # noqa: S105 - a name
"""A file that holds the secret, instead of ``OTEL_SHIM_SECRET``."""

OTEL_SHIM_STATE_DIRECTORY: Final = "OTEL_SHIM_STATE_DIRECTORY"
"""The directory in which a host's own secret is kept. Default ``/var/lib/otel-shim`` for root, else
``$XDG_STATE_HOME/otel-shim`` (``~/.local/state/otel-shim``)."""

OTEL_SHIM_TRUSTED_PEERS: Final = "OTEL_SHIM_TRUSTED_PEERS"
"""Networks (CIDR, comma-separated) whose requests may continue identity; default none, so every
request that brings a trace context of its own is marked as an edge."""

OTEL_SHIM_PUBLIC_PEERS: Final = "OTEL_SHIM_PUBLIC_PEERS"
"""What becomes of a trace context from a public address: ``restart`` (default; a new trace, linked)
or ``continue``."""

OTEL_SHIM_PRIVATE_PEERS: Final = "OTEL_SHIM_PRIVATE_PEERS"
"""What becomes of a trace context from a loopback or private address: ``continue`` (default) or
``restart``."""

OTEL_SHIM_QUEUE_RELATION: Final = "OTEL_SHIM_QUEUE_RELATION"
"""How a task of Celery or a job of RQ refers to who asked for it: ``link`` (default; a trace of its own,
linked both ways) or ``parent`` (a part of the trace that asked). ``parent`` lets the Collector complete
the organisation of the request on the task's spans; ``link`` does not."""

OTEL_SHIM_METRICS_PORT: Final = "OTEL_SHIM_METRICS_PORT"
"""The port on which ``/metrics`` is served for Prometheus, for all processes of the application together.
Default: none, metrics go out over OTLP only. Never let one Prometheus have both."""

OTEL_SHIM_METRICS_HOST: Final = "OTEL_SHIM_METRICS_HOST"
"""The address on which ``/metrics`` is served. Default ``127.0.0.1``; one that is not loopback needs a
token."""

OTEL_SHIM_METRICS_TOKEN: Final = "OTEL_SHIM_METRICS_TOKEN"  # noqa: S105 - a name
"""Who reads ``/metrics`` must send it as ``Authorization: Bearer <token>``. Default: none."""

OTEL_SHIM_METRICS_TOKEN_FILE: Final = "OTEL_SHIM_METRICS_TOKEN_FILE"  # noqa: S105 - a name
"""A file that holds the token, instead of ``OTEL_SHIM_METRICS_TOKEN``."""

OTEL_SHIM_METRICS_DIRECTORY: Final = "OTEL_SHIM_METRICS_DIRECTORY"
"""The directory in which the processes of one application keep what they count; it must be this user's
alone. Default: one for user and port in the directory for temporary files."""

OTEL_SHIM_PROMETHEUS_URL: Final = "OTEL_SHIM_PROMETHEUS_URL"
"""Where ``otel_shim.ops`` asks for the figures of the summary, for example ``http://127.0.0.1:9090``."""

OTEL_SHIM_ALERTMANAGER_URL: Final = "OTEL_SHIM_ALERTMANAGER_URL"
"""Where ``otel_shim.ops`` asks for firing alerts, for example ``http://127.0.0.1:9093``."""

OTEL_SHIM_OPS_LINKS: Final = "OTEL_SHIM_OPS_LINKS"
"""Links that ``otel_shim.ops`` passes on, comma-separated: ``dashboard=https://…,runbooks=https://…``."""

OTEL_SHIM_LOG_FORMAT: Final = "OTEL_SHIM_LOG_FORMAT"
"""``json`` (default): handlers that write to stdout or stderr with a plain formatter write JSON; what
structlog renders and loguru's ``extra`` have trace and identity too. ``text``: what the application writes
stays as it is."""

OTEL_SHIM_ON_SIGTERM: Final = "OTEL_SHIM_ON_SIGTERM"
"""``flush`` (default): where the application has no handler for SIGTERM, what is queued is sent, for at most
three seconds, before the process dies of it. ``default``: the signal is left alone."""
