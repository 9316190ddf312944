"""An alert is told once, to whom it should be, when they want it, and until it has arrived."""

import datetime as dt
import email
import json
import os
import signal as signals_of_the_system
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import apprise
import pytest

from mlops_nb.core.events import _shape, send
from mlops_nb.core.ledger import entries
from mlops_nb.core.records import Alert, Signal, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import history, notices
from mlops_nb.outer_loop.notices import Silence, compose, deliver, end_of_silence, read

BLUE = "deployment:dev.shop/blue"
NOON = dt.datetime(2027, 1, 15, 12, tzinfo=dt.UTC)  # a Friday
DELIVER = f"""
import datetime as dt
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop.notices import deliver
deliver(load_settings(), dt.datetime.fromisoformat("{NOON.isoformat()}"), 300)
"""
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)


def drift(feature: str, value: float = 0.4) -> Signal:
    return Signal("inputs", "data_drift", feature, "jensen_shannon_distance", value, 0.2, value > 0.2)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A real web hook; `answer` is what it answers with, once it is `free` to; what it takes is in `received`."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = server.answer
            server.asked += 1
            server.free.wait(300)
            server.received += [body] if answer == 200 else []
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.received, server.asked, server.answer, server.free = [], 0, 200, threading.Event()
    server.free.set()
    server.address = f"json://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("PATIENT", f"{server.address}/?cto=300&rto=300")  # Apprise itself waits for as long as a test does
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.free.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def look(project: Settings) -> Callable[..., list[history.Notice]]:
    """See the window that ends at a moment, tell of it, and write it down."""

    def see(policy: dict[str, Any], end: dt.datetime, *signals: Signal, monitor: str = "shop", **more: Any) -> list[history.Notice]:
        window = (end - HOUR, end)
        told = compose(project, policy, monitor, BLUE, window, signals, **{"now": end} | more)
        loud = [signal for signal in signals if signal.breached]
        alert = Alert(monitor, BLUE, (history.moment(window[0]), history.moment(end)), loud, []) if loud else None
        assert history.record(project, monitor, BLUE, window, signals or [drift("carat", 0.0)], alert=alert, notices=told)
        return told

    return see


def test_an_hour_without_the_service_loses_nothing_and_repeats_nothing(project: Settings, hook: Any, look: Any) -> None:
    look({"to": [hook.address]}, NOON, drift("carat"))
    hook.answer = 503
    clock = NOON
    for _ in range(60):
        deliver(project, clock)
        clock += MINUTE
    [waiting] = history.notices(project)
    assert (waiting.state, hook.asked, waiting.attempts) == ("waiting", 6, 6)  # after 0, 1, 3, 7, 15 and 31 minutes
    assert "503" in waiting.problem
    hook.answer = 200
    for _ in range(60):
        deliver(project, clock)
        clock += MINUTE
    assert [message["title"] for message in hook.received] == ["shop: 1 signal needs attention"]
    assert "carat jensen_shannon_distance" in hook.received[0]["message"]
    assert hook.received[0]["message"].endswith(f"Notice {waiting.id}")
    [entry] = entries(project, BLUE, "notify")
    assert (entry.details["delivered"], entry.details["notices"]) == ([hook.address], [waiting.id])


def test_after_a_day_it_is_given_up_and_the_ledger_says_so(project: Settings, look: Any) -> None:
    look({"to": ["json://127.0.0.1:9"]}, NOON, drift("carat"))
    clock, attempts = NOON, 0
    while clock < NOON + 1.2 * DAY:
        attempts += len(deliver(project, clock))
        clock += 10 * MINUTE
    [notice] = history.notices(project)
    assert (notice.state, notice.attempts) == ("failed", attempts)
    assert 20 < attempts < 40
    assert history.notices(project, "waiting") == []
    [entry] = entries(project, BLUE, "notify")
    assert "given up" in entry.details["failed"]["json://127.0.0.1:9"]


def test_a_service_that_never_ends_its_answer_holds_nobody(project: Settings, hook: Any, look: Any) -> None:
    hook.free.clear()
    look({"to": [hook.address, f"{hook.address}/second"]}, NOON, drift("carat"))
    done = deliver(project, NOON, seconds=0.3)
    assert [(notice.state, notice.problem) for notice in done] == [("waiting", "no answer within 0.3 s")] * 2
    assert hook.received == []


def test_two_at_the_same_time_deliver_once(project: Settings, hook: Any, look: Any) -> None:
    hook.free.clear()
    for number in range(6):
        look({"to": ["env:PATIENT"]}, NOON, drift("carat"), monitor=f"shop{number}", now=NOON - number * MINUTE)
    other = subprocess.Popen([sys.executable, "-c", DELIVER], cwd=project.root)
    with ThreadPoolExecutor(2) as pool:
        delivering = [pool.submit(deliver, project, NOON, 300) for _ in range(2)]
        while hook.asked < 3:  # each of the three is sending one
            assert other.poll() is None
            time.sleep(0.02)
        hook.free.set()
        for each in delivering:
            each.result()
    assert other.wait(60) == 0
    assert sorted(message["title"] for message in hook.received) == [f"shop{n}: 1 signal needs attention" for n in range(6)]


def test_a_killed_delivery_is_taken_up_by_the_next(project: Settings, hook: Any, look: Any) -> None:
    hook.answer = 503
    hook.free.clear()
    look({"to": ["env:PATIENT"]}, NOON, drift("carat"))
    sender = subprocess.Popen([sys.executable, "-c", DELIVER], cwd=project.root)
    while not hook.asked:
        assert sender.poll() is None
        time.sleep(0.02)
    assert deliver(project, NOON) == []  # somebody is at it
    os.kill(sender.pid, signals_of_the_system.SIGKILL)
    sender.wait()
    hook.answer = 200
    hook.free.set()
    assert [notice.state for notice in deliver(project, NOON)] == ["sent"]
    assert len(hook.received) == 1


def test_what_goes_on_wakes_nobody_and_what_changes_does(project: Settings, look: Any) -> None:
    policy = {"to": ["env:TEAM"], "repeat": "P1D"}
    states = [[notice.state for notice in look(policy, NOON + hour * HOUR, drift("carat"))] for hour in range(27)]
    assert states[0] == ["waiting"]
    assert [hour for hour, state in enumerate(states) if state == ["waiting"]] == [0, 24]  # reminded after a day
    [still] = look(policy, NOON + 27 * HOUR, drift("carat"))
    assert still.problem == "still, window 28 since 2027-01-15 11:00 UTC"
    [changed] = look(policy, NOON + 28 * HOUR, drift("carat"), drift("depth"))
    assert changed.title == "shop: 2 signals need attention, 1 of them new (window 29 since 2027-01-15 11:00 UTC)"
    assert [notice.state for notice in look(policy, NOON + 29 * HOUR, drift("depth"))] == ["silenced"]  # less is no news
    [quiet] = look(policy, NOON + 30 * HOUR)
    assert quiet.title == "shop: quiet again after 30 windows"
    assert look(policy, NOON + 31 * HOUR) == []
    assert look(policy | {"resolved": False}, NOON + 32 * HOUR, drift("carat"))[0].state == "waiting"  # a new alert
    assert look(policy | {"resolved": False}, NOON + 33 * HOUR) == []


def test_what_somebody_answered_stays_quiet_until_it_changes_or_the_time_is_over(project: Settings, look: Any) -> None:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    policy = {"to": ["env:TEAM"], "repeat": "PT1M"}
    look(policy, now - 5 * HOUR, drift("carat"))
    history.acknowledge(project, history.alerts(project)[-1].id, "mine")
    [acknowledged] = look(policy, now - 4 * HOUR, drift("carat"))
    assert acknowledged.problem.startswith(f"acknowledged by {project.user}; still, window 2")
    assert look(policy, now - 3 * HOUR, drift("carat"), drift("depth"))[0].state == "waiting"
    assert look(policy, now - 2 * HOUR, drift("carat"), drift("depth"))[0].state == "waiting"  # nobody has acknowledged depth
    history.snooze(project, history.alerts(project)[-1].id, "later", now + HOUR)
    [snoozed] = look(policy, now - HOUR, drift("depth"))
    assert snoozed.problem.startswith(f"snoozed by {project.user} until")
    with history.transaction(project) as database:  # the hour passes
        database.execute("UPDATE alerts SET until = ? WHERE until != ''", (history.moment(now - MINUTE),))
    assert look(policy | {"repeat": "PT0S"}, now, drift("depth"))[0].state == "waiting"
    history.resolve(project, history.alerts(project)[-1].id, "mended")
    assert "new" not in look(policy, now + HOUR, drift("depth"))[0].title  # it is back: an alert of its own


def test_answered_while_it_waited_it_is_not_sent(project: Settings, hook: Any, look: Any) -> None:
    look({"to": [hook.address], "digest": "PT1H"}, NOON, drift("carat"))
    history.acknowledge(project, history.alerts(project)[0].id)
    assert deliver(project, NOON + HOUR) == []
    assert hook.asked == 0
    assert history.notices(project)[0].problem == f"acknowledged by {project.user} before it was sent"


def test_an_alert_that_ended_while_the_service_was_down_is_told_all_the_same(project: Settings, hook: Any, look: Any) -> None:
    hook.answer = 503
    look({"to": [hook.address]}, NOON, drift("carat"))
    deliver(project, NOON)
    look({"to": [hook.address]}, NOON + HOUR)
    hook.answer = 200
    deliver(project, NOON + 2 * HOUR)
    assert [message["title"] for message in hook.received] == ["shop: 1 signal needs attention", "shop: quiet again after 1 window"]


def test_a_digest_is_one_message(project: Settings, hook: Any, look: Any) -> None:
    policy = {"to": [hook.address], "digest": "PT30M"}
    for minute, name in enumerate(("shop", "stones", "taxi")):
        look(policy, NOON, drift(name), monitor=name, now=NOON + minute * 5 * MINUTE)
    assert deliver(project, NOON + 29 * MINUTE) == []
    assert len(deliver(project, NOON + 30 * MINUTE)) == 3
    [message] = hook.received
    assert message["title"] == "3 notices: shop: 1 signal needs attention"
    assert all(f"{name} jensen_shannon_distance" in message["message"] for name in ("shop", "stones", "taxi"))
    assert all(notice.id in message["message"] for notice in history.notices(project, "sent"))


NIGHT = {"from": "22:00", "to": "06:00"}
BERLIN = {"time_zone": "Europe/Berlin"}
SMALL = {"from": "01:00", "to": "02:30"} | BERLIN


@pytest.mark.parametrize(
    ("silence", "when", "told"),
    [
        pytest.param(NIGHT, "2027-01-15T21:59", "2027-01-15T21:59", id="before"),
        pytest.param(NIGHT, "2027-01-15T22:00", "2027-01-16T06:00", id="over-midnight"),
        pytest.param(NIGHT, "2027-01-16T05:59", "2027-01-16T06:00", id="after-midnight"),
        pytest.param(NIGHT | {"days": ["friday"]}, "2027-01-16T05:00", "2027-01-16T06:00", id="began-on-friday"),
        pytest.param(NIGHT | {"days": "saturday"}, "2027-01-16T05:00", "2027-01-16T05:00", id="not-yet-saturday"),
        pytest.param({"days": ["saturday", "sunday"]}, "2027-01-16T10:00", "2027-01-18T00:00", id="whole-days"),
        pytest.param({"from": "08:00", "to": "24:00"}, "2027-01-16T10:00", "2027-01-17T00:00", id="until-midnight"),
        pytest.param({"from": 1320, "to": 360}, "2027-01-15T23:00", "2027-01-16T06:00", id="minutes-as-yaml-reads-22:00"),
        pytest.param(NIGHT | {"time_zone": "America/New_York"}, "2027-01-15T04:00", "2027-01-15T11:00", id="zone"),
        pytest.param(NIGHT | {"time_zone": "W. Europe Standard Time"}, "2027-07-07T21:00", "2027-07-08T04:00", id="summer"),
        pytest.param(NIGHT | BERLIN, "2027-03-27T23:00", "2027-03-28T04:00", id="spring"),
        pytest.param(NIGHT | BERLIN, "2027-10-30T23:00", "2027-10-31T05:00", id="autumn"),
        pytest.param(SMALL, "2027-03-28T00:30", "2027-03-28T01:30", id="an-hour-that-is-skipped"),
        pytest.param(SMALL, "2027-10-31T00:45", "2027-10-31T01:30", id="an-hour-that-comes-twice"),
        pytest.param({"days": ["sunday"]}, "2028-02-27T10:00", "2028-02-28T00:00", id="leap-year"),
    ],
)
def test_silence_ends_when_the_clock_on_the_wall_says_so(silence: dict[str, Any], when: str, told: str) -> None:
    asked, expected = (dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) for text in (when, told))
    assert end_of_silence([Silence.model_validate(silence)], asked) == expected


def test_a_silent_night_is_one_message_in_the_morning(project: Settings, hook: Any, look: Any) -> None:
    policy = {"to": [hook.address], "silence": [{"from": "22:00", "to": "06:00"}]}
    night = NOON.replace(hour=23)
    look(policy, night, drift("carat"), monitor="shop")
    look(policy, night + 2 * HOUR, drift("carat"), monitor="stones")
    for hour in range(7):
        assert deliver(project, night + hour * HOUR) == []
    deliver(project, night + 7 * HOUR)
    assert [message["title"] for message in hook.received] == ["2 notices: shop: 1 signal needs attention"]


def test_a_wrong_policy_says_everything_that_is_wrong() -> None:
    with pytest.raises(SpecificationError) as wrong:
        read({"to": ["slack://token-one/token-two"], "title": "{sevrity}", "body": "{deployment.uri}", "digest": "soon", "loud": True,
              "mail": "mailto://ana:hush@example.org", "silence": [{"from": "22.00", "time_zone": "Mars"}]})  # fmt: skip
    text = str(wrong.value)
    assert [fault.partition(":")[0] for fault in wrong.value.faults] == [
        "notify.to.0", "notify.mail", "notify.title", "notify.body", "notify.digest", "notify.silence.0.from",
        "notify.silence.0.time_zone", "notify.loud"]  # fmt: skip
    assert "fields: monitor, deployment" in text
    assert "token-one" not in text
    assert "hush" not in text
    with pytest.raises(SpecificationError, match="nobody would ever be told"):
        read({"silence": [{"from": "00:00", "to": "12:00"}, {"from": "12:00", "to": "00:00"}]})


def test_what_comes_from_data_is_neither_markup_nor_a_mention(project: Settings, hook: Any) -> None:
    evil = "`</code><script>alert(1)</script> @everyone\n# <!channel> [x](javascript:1)"
    failed = Signal("inputs", "data_drift", evil, "jensen_shannon_distance", None, 0.2, True, f"no column {evil}")
    told = compose(project, {"to": [hook.address], "title": "{worst}"}, "shop", BLUE, (NOON - HOUR, NOON), [failed])[0]
    assert not set("<>`@[]\n") & set(told.title)
    assert send(f"{hook.address}/?format=html", told.title, told.body, markdown=True) == ""
    page = hook.received[0]["message"]
    assert "<script" not in page
    assert "href" not in page
    assert "&lt;script&gt;" in page


def test_secrets_of_addresses_stay_where_they_are(
    project: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEAM", "json://ana:hush-hush-hush@127.0.0.1:9/tokentokentoken/?cto=0.2&rto=0.2")
    own = project.model_copy(update={"notify": ["slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?cto=0.2&rto=0.2"]})
    told = compose(own, {"to": ["env:TEAM", "settings"]}, "shop", BLUE, (NOON - HOUR, NOON), [drift("carat")])
    alert = Alert("shop", BLUE, (history.moment(NOON - HOUR), history.moment(NOON)), [drift("carat")], [])
    history.record(own, "shop", BLUE, (NOON - HOUR, NOON), [drift("carat")], alert=alert, notices=told)
    with caplog.at_level("DEBUG"):
        done = deliver(own, NOON)
    assert [notice.state for notice in done] == ["waiting", "waiting"]
    assert {notice.to.partition(":")[0] for notice in done} == {"env", "settings"}
    kept = history.history_file(own).read_bytes() + b"".join(path.read_bytes() for path in own.state.rglob("*") if path.is_file())
    for secret in ("hush-hush-hush", "tokentokentoken", "A1BRTD4JD", "TIiajkdnlazkcOXrIdevi7FQ"):
        assert secret.encode() not in kept
        assert secret not in caplog.text
        assert secret not in repr(done)


class Smtp(socketserver.StreamRequestHandler):
    """As much of a mail server as one message takes."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        to, server = [], self.server
        while line := self.rfile.readline().decode().strip():
            word = line[:4].upper()
            if word == "RCPT":
                to.append(line.partition("<")[2].partition(">")[0])
            if word == "DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                server.mails.append((to, email.message_from_bytes(b"".join(lines), policy=default)))  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == "QUIT" else b"250 ok\r\n")
            if word == "QUIT":
                return


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A mail server on this machine; the environment's MAIL_SERVER leads to it."""
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    server.daemon_threads, server.mails = True, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MAIL_SERVER", f"mailto://127.0.0.1:{server.server_address[1]}?smtp=127.0.0.1&from=monitor@example.org&mode=insecure")
    yield server.mails
    server.shutdown()
    server.server_close()


def test_the_people_of_the_monitor_file_are_mailed(project: Settings, look: Any, mails: list[Any]) -> None:
    look({"mail": "env:MAIL_SERVER"}, NOON, drift("carat"), emails=["ada@example.org", "grace@example.org"])
    assert [(notice.state, notice.problem) for notice in deliver(project, NOON)] == [("sent", "")] * 2
    assert sorted(to for [to], _ in mails) == ["ada@example.org", "grace@example.org"]
    mail = mails[0][1]
    assert mail["Subject"] == "shop: 1 signal needs attention"
    assert "monitor@example.org" in mail["From"]
    page = mail.get_body(("html",)).get_content()
    assert "<code>carat jensen_shannon_distance</code>" in page


def test_without_a_mail_server_that_is_said_and_not_passed_over(project: Settings, look: Any) -> None:
    [notice] = look({}, NOON, drift("carat"), emails=["ada@example.org"])
    assert (notice.state, notice.to) == ("failed", "ada@example.org")
    assert "no mail server" in notice.problem
    assert notices.recipients(project, read({}), ["ada@example.org"])[1] == [notice.problem]
    [nobody] = compose(project, {}, "stones", BLUE, (NOON - HOUR, NOON), [drift("carat")])
    assert (nobody.state, nobody.problem.partition(":")[0]) == ("silenced", "nobody to tell")


def test_a_phone_gets_a_short_message_with_its_id(hook: Any) -> None:
    phone = apprise.Apprise.instantiate("sns://AHIAJGNT76XIMXDBIJYA/bu1dHSdO22pfaaVywmNsdjJVasddsd/us-east-1/+12223334444")
    message = _shape(phone, "shop: 2 signals need attention", f"**2 signals** `{'x' * 300}`\n\nmore", "Notice 4ab1c13ff4")
    assert len(message["body"]) <= 160
    assert message["body"].startswith("shop: 2 signals need attention: 2 signals xxx")
    assert message["body"].endswith("... Notice 4ab1c13ff4")
