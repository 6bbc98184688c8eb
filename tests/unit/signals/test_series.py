"""otel_shim.signals.series, exposition and scrape: files of several processes, read as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider

from examples.saas.demo.ports import free_ports
from otel_shim.signals import scrape, series
from otel_shim.signals.exposition import exposition, metric_name
from otel_shim.signals.scrape import Publisher
from otel_shim.signals.series import Description, Directory, Series, merged
from tests.wheel import ROOT

CHILD = """
import sys, time
from pathlib import Path
from opentelemetry.sdk.metrics import MeterProvider
from otel_shim.signals.scrape import Publisher, publish
directory, port, count = sys.argv[1:]
meters = MeterProvider(shutdown_on_exit=False)
publish(meters, Publisher(Path(directory), "127.0.0.1", int(port), None))
meter = meters.get_meter("app")
orders = meter.create_counter("shop.orders")
for _ in range(int(count)):
    orders.add(1, {"kind": "gift"})
meter.create_up_down_counter("shop.open").add(3)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "shared")


@pytest.fixture
def child(directory: Directory) -> Iterator[Callable[[int, int], subprocess.Popen[str]]]:
    """Starts a process that counts so many orders and stays; all are ended at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(port: int, count: int) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", CHILD, str(directory.path), str(port), str(count)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def served(directory: Directory) -> Iterator[Callable[..., tuple[MeterProvider, str]]]:
    """Publishes in this process; gives what to record with, and the address."""
    made: list[Publisher] = []

    def start(token: str | None = None) -> tuple[MeterProvider, str]:
        (port,) = free_ports(1)
        publisher = Publisher(directory.path, "127.0.0.1", port, token)
        meters = MeterProvider(shutdown_on_exit=False)
        scrape.publish(meters, publisher)
        made.append(publisher)
        url = f"http://127.0.0.1:{port}/metrics"
        eventually(lambda: status(url) != 0)
        return meters, url

    yield start
    for publisher in made:
        publisher.close()


def status(url: str, **headers: str) -> int:
    """The status of an answer, 0 for none."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=5
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def counter(name: str = "orders", **labels: str) -> Description:
    return Description(series.COUNTER, name, "1", "Orders.", (), tuple(sorted(labels.items())))


def test_a_killed_process_loses_nothing(
    directory: Directory, child: Callable[[int, int], subprocess.Popen[str]]
) -> None:
    """What it counted stays, to the last; what it had open is gone with it."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/metrics"
    first = child(port, 1000)
    child(port, 234)
    eventually(lambda: status(url) == 200)
    assert 'shop_orders_total{kind="gift"} 1234\n' in read(url)
    assert "shop_open 6\n" in read(url)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    eventually(lambda: status(url) == 200)  # the other one has taken over
    assert 'shop_orders_total{kind="gift"} 1234\n' in read(url)
    assert "shop_open 3\n" in read(url)
    child(port, 66)
    assert 'shop_orders_total{kind="gift"} 1300\n' in read(url)


def test_a_new_life_starts_from_nothing(directory: Directory) -> None:
    """Where nobody lives, what was left is cleared away; where somebody does, it stays."""
    gone = Series(directory, 10)
    gone.add(gone.enter("k", counter(), {})[0], 5)
    assert list(merged(directory.shares()).values()) == [[5.0]]
    beside = Series(directory, 10)
    beside.join()
    gone.forget()
    assert list(merged(directory.shares()).values()) == [[5.0]]
    beside.forget()
    Series(directory, 10).join()
    assert not merged(directory.shares())


def test_many_restarts_make_one_file(directory: Directory) -> None:
    """Workers that are replaced every so many requests do not slow the answer down for ever."""
    alive = Series(directory, 10)
    alive.join()
    for number in range(40):
        worker = Series(directory, 10)
        worker.add(worker.enter("k", counter(), {})[0], 1)
        gauge = Description(series.GAUGE, "age", "s", "", (), ())
        worker.put(worker.enter("g", gauge, {})[0], (number, 1000 + number))
        worker.forget()
        found = merged(directory.shares())
        assert sorted(found.values()) == sorted([[number + 1.0], [number, 1000.0 + number]])
    assert len(list(directory.path.glob("*.series"))) < 20


def test_threads_count_together(directory: Directory) -> None:
    mine = Series(directory, 10)
    slot, _ = mine.enter("k", counter(), {})

    def count() -> None:
        for _ in range(2000):
            mine.add(slot, 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(merged(directory.shares()).values()) == [[16000.0]]


def test_more_than_a_chunk(directory: Directory) -> None:
    """The file grows; all of it is read."""
    mine = Series(directory, 10_000)
    for number in range(5000):
        mine.add(mine.enter(number, counter(number=f"{number:0100d}"), {})[0], number)
    found = merged(directory.shares())
    assert sum(value for (value,) in found.values()) == sum(range(5000))
    (file,) = directory.path.glob("*.series")
    assert file.stat().st_size > series.CHUNK


def test_beyond_the_limit_all_is_one(directory: Directory) -> None:
    mine = Series(directory, 3)
    for number in range(10):
        mine.add(mine.enter(number, counter(number=str(number)), {"overflow": "true"})[0], 1)
    text = exposition(merged(directory.shares()))
    assert 'orders_total{overflow="true"} 7\n' in text
    assert text.count("orders_total{") == 4


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "shared"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others"):
        Directory(open_to_all).join()


def test_a_forked_child_counts_for_itself(directory: Directory) -> None:
    """The counts so far are the parent's; they are not there twice."""
    code = f"""
import os
from pathlib import Path
from opentelemetry.sdk.metrics import MeterProvider
from otel_shim.signals.scrape import Publisher, publish
meters = MeterProvider(shutdown_on_exit=False)
publisher = Publisher(Path({str(directory.path)!r}), "127.0.0.1", {free_ports(1)[0]}, None)
publish(meters, publisher)
orders = meters.get_meter("app").create_counter("shop.orders")
orders.add(10)
while publisher._server is None:
    pass
for _ in range(3):
    if (pid := os.fork()) == 0:
        orders.add(1)
        os._exit(0)
    os.waitpid(pid, 0)
print(publisher.text())
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "shop_orders_total 13\n" in run.stdout


def test_every_kind_of_instrument(served: Callable[..., tuple[MeterProvider, str]]) -> None:
    """With the name that Prometheus gives to what comes over OTLP."""
    meters, url = served()
    meter = meters.get_meter("app")
    meter.create_counter("shop.sold", "By", 'with "quotes"').add(2.5, {"a.b": 'x"\\\n', "t": True})
    meter.create_histogram("shop.wait", "ms", explicit_bucket_boundaries_advisory=[1, 5]).record(3)
    meter.create_gauge("shop.share", "1").set(0.25)
    meter.create_up_down_counter("shop.open").add(-2)

    def depth(_: CallbackOptions) -> list[Observation]:
        return [Observation(7, {"queue": "mail"})]

    meter.create_observable_gauge("shop.depth", [depth], "{item}")
    expected = (
        'shop_sold_bytes_total{a_b="x\\"\\\\\\n",t="true"} 2.5',
        'shop_wait_milliseconds_bucket{le="1.0"} 0',
        'shop_wait_milliseconds_bucket{le="5.0"} 1',
        'shop_wait_milliseconds_bucket{le="+Inf"} 1',
        "shop_wait_milliseconds_sum 3",
        "shop_wait_milliseconds_count 1",
        "# TYPE shop_wait_milliseconds histogram",
        "shop_share_ratio 0.25",
        "shop_open -2",
        'shop_depth{queue="mail"} 7',
    )
    eventually(lambda: "shop_depth" in read(url))
    lines = read(url).splitlines()
    assert [line for line in expected if line not in lines] == []


def test_nobody_is_a_label(served: Callable[..., tuple[MeterProvider, str]]) -> None:
    """Also where the application puts somebody there."""
    meters, url = served()
    somebody = {"user.id": "anna", "user.hash": "h4sh", "saas.org.id": "acme"}
    request = {"saas.request.id": "r-1", "request_id": "r-1", "saas.plan": "pro"}
    meters.get_meter("app").create_counter("shop.orders").add(1, {**somebody, **request})
    assert 'shop_orders_total{saas_plan="pro"} 1\n' in read(url)


def test_a_token_is_asked_for(served: Callable[..., tuple[MeterProvider, str]]) -> None:
    _, url = served(token="s3cret")
    assert status(url) == 401
    assert status(url, Authorization="Bearer wrong") == 401
    assert status(url, Authorization="Bearer s3cret") == 200


def test_only_metrics_are_served(served: Callable[..., tuple[MeterProvider, str]]) -> None:
    _, url = served()
    assert status(url.replace("/metrics", "/etc/passwd")) == 404


def test_a_full_disk_is_counted_and_breaks_nothing(
    served: Callable[..., tuple[MeterProvider, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    meters, url = served()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    orders = meters.get_meter("app").create_counter("shop.orders")
    orders.add(1)
    monkeypatch.undo()
    orders.add(1)
    assert "shop_orders_total 1\n" in read(url)


def test_names_are_those_of_the_contract() -> None:
    """What the contract says of a metric's name in Prometheus is what it has on /metrics."""
    contract = yaml.safe_load((ROOT / "semconv/metrics.yaml").read_text())
    kinds = {
        "counter": series.COUNTER,
        "gauge": series.GAUGE,
        "histogram": series.HISTOGRAM,
        "updowncounter": series.UP_DOWN,
    }
    for metric in (*contract["groups"], *contract["upstream"]):
        kind = kinds[metric["instrument"]]
        description = Description(kind, metric["metric_name"], metric["unit"], "", (), ())
        assert metric_name(description) == metric["annotations"]["prometheus"]


def test_the_tracker_of_multiprocessing_serves_nobody(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started with the shim too, and has closed its standard streams; another process takes the port."""
    code = "from multiprocessing.resource_tracker import main;main(5)"
    monkeypatch.setattr("sys.orig_argv", ["python", "-c", code])
    publisher = Publisher(directory.path, "127.0.0.1", free_ports(1)[0], None)
    publisher.start()
    time.sleep(1.5 * scrape.TICK_SECONDS)
    served = publisher._server
    publisher.close()
    assert served is None
