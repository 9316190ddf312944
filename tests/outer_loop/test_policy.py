"""Which rule holds, how often a number must be beyond its threshold, and what speaks against a retraining."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from mlops_nb.core.records import Signal, SpecificationError
from mlops_nb.outer_loop.history import Action, Point
from mlops_nb.outer_loop.policy import DEFAULT, Policy, breaches_of, decide, load_policy, policy_file, rule_for

ROOT = Path(__file__).resolve().parents[2]
BLUE, NOON = "deployment:dev.diamonds/blue", dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
SPAN = ("2026-11-19T12:00:00+00:00", "2026-11-20T12:00:00+00:00")
DRIFT = Signal("inputs", "data_drift", "carat", "jensen_shannon_distance", 0.4, 0.2, True)
NULLS = replace(DRIFT, name="quality", type="data_quality", metric="null_value_rate")


def policy(*rules, **more):
    return Policy.model_validate({"rules": list(rules)} | more)


def decided(rules, signals=(DRIFT,), points=(), actions=(), diagnosis=None):
    """Decide, and say what came of it."""
    found = decide(rules, "m", BLUE, SPAN, list(signals), list(points), list(actions), diagnosis, NOON)
    return [(action.kind, action.state) for action in found]


def past(*beyond, **of):
    """Make the points of earlier windows: True for one beyond its threshold, None for one that could not be computed."""
    about = {"signal": "inputs", "type": "data_drift", "feature": "carat", "metric": "jensen_shannon_distance"} | of
    values = [(None if one is None else 0.4, bool(one)) for one in beyond]
    return [Point(end="", value=value, threshold=0.2, breached=b, problem="", detail={}, **about) for value, b in values]


@pytest.mark.parametrize(("when", "fits"), [
    ({}, True), ({"type": "data_*"}, True), ({"type": ["data_quality", "custom"]}, False), ({"feature": "car*"}, True),
    ({"type": "data_drift", "metric": "*wasserstein*"}, False), ({"signal": "inputs", "feature": ["depth", "carat"]}, True),
    ({"deployment": "blue"}, True), ({"deployment": "deployment:prod.*"}, False),
    ({"deployment": "deployment:dev.*/b*"}, True)])  # fmt: skip
def test_a_rule_fits_what_its_patterns_fit(when, fits):
    rules = policy({"when": when, "then": "annotate"}, {"then": "investigate"})
    assert rule_for(rules, DRIFT, BLUE).then == ("annotate" if fits else "investigate")


def test_the_first_rule_that_fits_holds_and_without_one_the_signals_own_proposal():
    rules = policy({"when": {"type": "data_drift"}, "then": "tell"}, {"when": {"type": "data_*"}, "then": "annotate"})
    assert decided(rules) == []
    assert decided(rules, [NULLS]) == [("annotate", "planned")]
    idle = Signal("requests", "custom", "", "idle_days", 30.0, 14.0, True)
    assert decided(rules, [idle]) == []
    proposals = {"retire": "waiting", "decommission": "waiting", "resize": "planned"}
    for propose, state in proposals.items():
        kind = "reconfigure" if propose == "resize" else propose
        assert decided(rules, [replace(idle, detail={"propose": propose})]) == [(kind, state)]


def test_without_a_policy_a_person_is_asked_before_a_retraining():
    assert decided(DEFAULT) == [("retrain", "waiting")]
    assert decided(DEFAULT, [NULLS]) == [("investigate", "planned")]


def test_signals_that_ask_for_the_same_are_one_action():
    five = [replace(DRIFT, feature=f"f{n}") for n in range(5)]
    [action] = decide(policy({"then": "annotate"}), "m", BLUE, SPAN, five, [], [], None, NOON)
    assert len(action.details["signals"]) == 5
    assert action.reason.endswith("and 2 more")


@pytest.mark.parametrize(("before", "state"), [
    ([], "held"), ([True], "planned"), ([True, False], "planned"), ([True, False, False], "held"),
    ([True, None, None, False], "planned"), ([True, True, True, False, False], "held")])  # fmt: skip
def test_two_of_three_windows_must_be_beyond(before, state):
    rules = policy({"then": "annotate", "breaches": {"at_least": 2, "of": 3}})
    assert decided(rules, points=past(*before)) == [("annotate", state)]


def test_another_number_beyond_its_threshold_does_not_count():
    rules = policy({"then": "annotate", "breaches": {"at_least": 2, "of": 2}})
    for other in ({"feature": "depth"}, {"metric": "kolmogorov"}, {"signal": "outputs"}, {"segment": "cut=Fair"}):
        assert decided(rules, points=past(True, True, **other)) == [("annotate", "held")]


@limits(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([True, False, None]), max_size=30), st.integers(1, 12))
def test_breaches_are_counted_over_the_newest_windows_that_said_something(before, windows):
    told = [one for one in [*before, True] if one is not None]
    assert breaches_of(DRIFT, past(*before), windows) == (told[-windows:].count(True), min(len(told), windows))


def test_a_signal_that_is_often_beyond_carries_the_action_another_that_is_not_is_left_out():
    rules = policy({"then": "annotate", "breaches": {"at_least": 2, "of": 2}})
    [action] = decide(rules, "m", BLUE, SPAN, [DRIFT, replace(DRIFT, feature="depth")], past(True), [], None, NOON)
    assert action.state == "planned"
    assert "depth" not in action.reason


def test_nothing_learns_from_broken_data():
    rules = policy({"when": {"type": "data_drift"}, "then": "retrain", "mode": "automatic"}, {"then": "tell"})
    assert decided(rules) == [("retrain", "planned")]
    assert decided(rules, [DRIFT, NULLS]) == [("investigate", "planned")]
    assert decided(rules, [replace(DRIFT, value=None, problem="no column")]) == [("investigate", "planned")]
    bounds = replace(NULLS, metric="out_of_bounds_rate")  # values beyond the known range, and drift: a new market
    assert decided(rules, [DRIFT, bounds]) == [("retrain", "planned")]


def retraining(state, days, id="first", endpoint="diamonds"):
    then = (NOON - dt.timedelta(days=days)).isoformat()
    ended = then if state in ("done", "failed", "refused") else ""
    return Action(id, "a", "retrain", f"deployment:dev.{endpoint}/green", "", state=state, at=then, ended=ended)


@pytest.mark.parametrize(("before", "why"), [
    ([retraining("waiting", 9)], "retraining first is waiting"),
    ([retraining("planned", 9)], "retraining first is planned"),
    ([retraining("running", 90)], "retraining first is running"),
    ([retraining("failed", 0.9)], "retraining first was failed"),
    ([retraining("refused", 0.9)], "retraining first was refused"),
    ([retraining("done", 5), retraining("failed", 20)], "the budget is 2 retrainings in 30 days"),
    ([retraining("done", 5), retraining("refused", 20)], ""),
    ([retraining("done", 5), retraining("done", 31)], ""),
    ([retraining("held", 0.1)], ""),
    ([retraining("running", 0.1, endpoint="stones")], "")])  # fmt: skip
def test_limits_hold_a_retraining_back(before, why):
    rules = policy({"then": "retrain", "mode": "automatic"}, limits={"cool_down": "P1D", "retrainings": 2, "per": "P30D"})
    [action] = decide(rules, "m", BLUE, SPAN, [DRIFT], [], before, None, NOON)
    assert action.state == ("held" if why else "planned")
    assert action.reason.startswith(why)


@pytest.mark.parametrize("recommendation", ["investigate", "wait", "nothing", "retrain"])
def test_a_diagnosis_is_followed_or_only_shown(recommendation):
    from types import SimpleNamespace

    said = SimpleNamespace(recommendation=recommendation, sentence="A sensor broke on Tuesday.")
    rules = policy({"then": "retrain", "mode": "automatic"})
    assert decided(rules, diagnosis=said) == [("retrain" if recommendation == "retrain" else "investigate", "planned")]
    assert decided(rules.model_copy(update={"diagnosis": "advise"}), diagnosis=said) == [("retrain", "planned")]


def test_what_a_person_has_not_answered_is_not_asked_again():
    idle = Signal("requests", "custom", "", "idle_days", 30.0, 14.0, True, detail={"propose": "retire"})
    waiting = Action("first", "a", "retire", BLUE, "", "supervised", "waiting")
    assert decided(policy({"when": {"type": "x"}, "then": "tell"}), [idle], actions=[waiting]) == [("retire", "held")]


BAD = """\
name: diamonds
rules:
  - when: {kind: data_drift}
    then: retrain
  - then: relearn
    breaches: {at_least: 4, of: 3}
limits: {cool_down: soon, retrainings: -1}
annotate: {queue: ../up, examples: 0}
notify: {title: "{model}"}
surprise: 1
"""


def test_a_wrong_policy_lists_every_fault_with_its_line(tmp_path):
    path = tmp_path / "policy.yml"
    path.write_text(BAD)
    with pytest.raises(SpecificationError) as caught:
        load_policy(path)
    lines = [fault.removeprefix(f"{path}:").partition(": ") for fault in caught.value.faults]
    found = {(line, what.partition(":")[0]) for line, _, what in lines}
    assert found == {("2", "rules.0.when.kind"), ("2", "rules.1.then"), ("2", "rules.1.breaches"), ("7", "limits.cool_down"),
                     ("7", "limits.retrainings"), ("8", "annotate.queue"), ("8", "annotate.examples"), ("9", "notify.title"),
                     ("10", "surprise")}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [
    ("name: x\n", "rules: none"), ("rules: []\n", "rules: none"), ("rules: 3\n", "rules"), ("- a\n", "a mapping is expected"),
    ("rules: [{then: retire, mode: automatic}]\n", "never automatic"), ("rules: [{then: tell}]\nnotify: 3\n", "notify")])  # fmt: skip
def test_a_policy_that_says_nothing_is_refused(tmp_path, text, said):
    (tmp_path / "policy.yml").write_text(text)
    with pytest.raises(SpecificationError, match=said):
        load_policy(tmp_path / "policy.yml")


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_our_own_policies_are_found_beside_their_monitors(environment):
    folder = ROOT / "environments" / environment
    path = policy_file(folder / "monitor.yml")
    assert path is not None
    assert path.resolve() == folder / "policy.yml"
    assert decided(load_policy(path), points=past(True)) == [("retrain", "waiting")]


def test_a_policy_is_named_by_the_monitor_or_stands_beside_it(tmp_path):
    monitor = tmp_path / "monitor.yml"
    monitor.write_text("name: m\n")
    assert policy_file(monitor) is None
    (tmp_path / "policy.yml").write_text("rules: [{then: tell}]\n")
    assert policy_file(monitor) == tmp_path / "policy.yml"
    monitor.write_text("name: m\nproperties:\n  mlops_nb.policy: rules/other.yml\n")
    with pytest.raises(SpecificationError, match=r"monitor\.yml:3: mlops_nb\.policy: no file .*rules/other\.yml"):
        policy_file(monitor)
