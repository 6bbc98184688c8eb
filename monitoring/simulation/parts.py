"""The programs of the simulation and their configuration: what is shipped, only faster."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from examples.saas.demo import parts as demo
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import RUN_SECONDS, Part, PartError, clean_environment
from monitoring import generate, specification
from monitoring.simulation.receivers import ROUTING_KEY, Addresses

MONITORING = Path(__file__).resolve().parents[1]
SPEED = 20.0
# A day, the objective for backups, is 20 seconds.
DAYS_SPEED = 4320.0
PERIOD_SECONDS = 5
MAX_RUNTIME_SECONDS = "4"
SCHEDULE = f"every {PERIOD_SECONDS}s"
# An alert is sent again before Alertmanager's first message: a look-up that took too long is made good.
RESEND = "1s"
GROUP_WAIT = "6s"
# Of two relays' worth of questions on a busy machine; it must stay below two seconds.
LOOKUP_SECONDS = "1.5"
ENVIRONMENT = "simulation"
SHIPPED_SECRETS = "/etc/alertmanager/secrets"


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports beside the demo's."""

    prometheus: int
    alertmanager: int
    relay: int
    smtp: int


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that has a place."""

    places: demo.Places
    demo_ports: demo.Ports
    ports: Ports

    @property
    def prometheus_url(self) -> str:
        """Prometheus's API."""
        return demo.url(self.ports.prometheus)

    @property
    def faults(self) -> Path:
        """The sample's fault switch."""
        return self.places.out / "faults"


def choose_site(places: demo.Places) -> Site:
    """Free ports, all different."""
    own = len(fields(Ports))
    ports = free_ports(len(fields(demo.Ports)) + own)
    return Site(places, demo.Ports(*ports[own:]), Ports(*ports[:own]))


def write_alertmanager(site: Site, addresses: Addresses) -> Path:
    """The shipped configuration with local addresses, its secrets as files, and shorter waits."""
    folder = site.places.out / "alertmanager"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MONITORING / "alertmanager/templates", folder / "templates")
    secrets = folder / "secrets"
    secrets.mkdir()
    for name, secret in {
        "pagerduty_routing_key": ROUTING_KEY,
        "slack_url": addresses.slack,
        "heartbeat_url": addresses.heartbeat,
    }.items():
        (secrets / name).touch(mode=0o600)
        (secrets / name).write_text(secret)
    shipped = (MONITORING / "alertmanager/alertmanager.yaml").read_text()
    config = yaml.safe_load(shipped.replace(SHIPPED_SECRETS, str(secrets)))
    config["global"] |= {
        "pagerduty_url": addresses.pagerduty,
        "smtp_smarthost": addresses.smtp,
        "smtp_require_tls": False,
    }
    for name in ("smtp_auth_username", "smtp_auth_password_file"):
        del config["global"][name]
    config["route"] |= {"group_wait": GROUP_WAIT, "group_interval": "2s", "repeat_interval": "1h"}
    config["route"]["routes"][0] |= {"group_interval": "1s", "repeat_interval": "2s"}
    return _written(folder / "alertmanager.yaml", config)


def write_prometheus(site: Site) -> Path:
    """The shipped configuration with local addresses and the same rules, faster."""
    folder = site.places.out / "prometheus"
    generate.write(generate.rules(specification.load(SPEED, DAYS_SPEED)), folder)
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    relay = {"static_configs": [{"targets": [demo.local(site.ports.relay)]}]}
    config["alerting"]["alertmanagers"][0] |= relay
    config["scrape_configs"][0] |= relay | {"scrape_interval": "2s", "scrape_timeout": "2s"}
    return _written(folder / "prometheus.yaml", config)


def _written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def prometheus(site: Site, config: Path) -> Part:
    """Prometheus with its OTLP receiver; data of an earlier run is removed."""
    data = site.places.out / "prometheus/data"
    shutil.rmtree(data, ignore_errors=True)
    argv = (
        str(site.places.binaries / "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={demo.local(site.ports.prometheus)}",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
        f"--rules.alert.resend-delay={RESEND}",
        "--log.level=warn",
    )
    return Part("prometheus", argv, site.prometheus_url + "/-/ready")


def alertmanager(site: Site, config: Path) -> Part:
    """Alertmanager, alone."""
    data = site.places.out / "alertmanager/data"
    shutil.rmtree(data, ignore_errors=True)
    argv = (
        str(site.places.binaries / "alertmanager"),
        f"--config.file={config}",
        f"--storage.path={data}",
        f"--web.listen-address={demo.local(site.ports.alertmanager)}",
        "--cluster.listen-address=",
    )
    return Part("alertmanager", argv, demo.url(site.ports.alertmanager, "/-/ready"))


def relay(site: Site) -> Part:
    """The alert relay."""
    state = site.places.out / "alert-relay.sqlite"
    for old in site.places.out.glob(f"{state.name}*"):
        old.unlink()
    jaeger = demo.url(site.demo_ports.jaeger_query)
    argv = (
        *(sys.executable, "-m", "otel_shim.cli", "alert-relay"),
        *("--port", str(site.ports.relay)),
        *("--alertmanager", demo.url(site.ports.alertmanager)),
        *("--prometheus", site.prometheus_url),
        *("--traces", jaeger),
        *("--state", str(state)),
        *("--budget", LOOKUP_SECONDS),
    )
    env = {"PYTHONPATH": str(demo.ROOT)}
    return Part("alert-relay", argv, demo.url(site.ports.relay, "/health"), env=env)


def _metrics(site: Site) -> dict[str, str]:
    """Metrics straight to Prometheus, the environment, the fault switch, and when jobs run."""
    resource = {"service.namespace": demo.NAMESPACE, "deployment.environment.name": ENVIRONMENT}
    return {
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{name}={is_}" for name, is_ in resource.items()),
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": site.prometheus_url + "/api/v1/otlp/v1/metrics",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "SAAS_FAULTS": str(site.faults),
        "SAAS_SCHEDULE": SCHEDULE,
        "SAAS_MAX_RUNTIME": MAX_RUNTIME_SECONDS,
    }


def api(site: Site) -> Part:
    """The sample's API."""
    part = demo.api(site.places, site.demo_ports)
    return replace(part, env={**part.env, **_metrics(site)})


def scheduler(site: Site) -> Part:
    """The sample's jobs and the worker of its queue, in one process."""
    part = demo.scheduler(site.places, site.demo_ports)
    # It will be killed: little is to wait in it.
    return replace(part, env={**part.env, **_metrics(site), "OTEL_BSP_SCHEDULE_DELAY": "100"})


def run_job(site: Site) -> int:
    """Run the retention job as a timer would, in a process of its own; returns its exit code.

    Raises PartError when it does not end.
    """
    part = api(site)
    bin_folder = site.places.api_env / "bin"
    env = {**clean_environment(), **part.env, "OTEL_SERVICE_NAME": demo.JOBS_SERVICE}
    env["SAAS_DATABASE_URL"] = f"sqlite:///{site.places.out / demo.DATABASE}"
    argv = (bin_folder / "opentelemetry-instrument", bin_folder / "python", "-m", "api.retention")
    with (site.places.out / "job.log").open("ab") as log:
        try:
            return subprocess.call(
                argv, cwd=demo.SAAS, env=env, stdout=log, stderr=log, timeout=RUN_SECONDS
            )
        except subprocess.TimeoutExpired as late:
            raise PartError("retention job", f"did not end within {RUN_SECONDS:.0f} s") from late


def set_faults(site: Site, *lines: str) -> None:
    """Switch faults on; none switches all off. The file is replaced, never half-written."""
    new = site.faults.with_suffix(".new")
    new.write_text("\n".join(lines))
    new.replace(site.faults)
