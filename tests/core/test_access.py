"""Access: the two matrices decide, in every environment."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlops_nb.core.access import may, require
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import load_settings


@pytest.mark.parametrize(
    ("environment", "persona", "action", "allowed"),
    [
        ("dev", "data_scientist", "train", True),
        ("dev", "data_scientist", "deploy", True),
        ("dev", "model_tester", "deploy", False),
        ("dev", "cicd_process", "approve", False),  # a process never approves
        ("prod", "data_scientist", "deploy", False),
        ("prod", "cicd_process", "deploy", True),
        ("prod", "project_lead", "approve", True),
        ("prod", "platform_support", "approve", False),  # mends infrastructure, not models
        ("staging", "data_scientist", "approve", False),  # staging is guarded as production
    ],
)
def test_the_matrix_decides(project, environment, persona, action, allowed):
    settings = load_settings(environment, persona=persona)
    assert (persona in may(settings, action)) is allowed
    if not allowed:
        with pytest.raises(PermissionError, match=f"{persona} may not {action} in {environment}"):
            require(settings, action)


def test_an_edited_matrix_is_in_force_at_once(project):
    matrix = project.root / "environments" / "access" / "production.csv"
    matrix.write_text(matrix.read_text().replace("data_scientist,,", "data_scientist,C,"))
    assert "data_scientist" in may(load_settings("prod"), "deploy")


def test_an_unknown_action_names_the_known_ones(project):
    with pytest.raises(SpecificationError, match=r"No action 'fly'.*approve"):
        may(project, "fly")


def test_threads_may_ask_at_the_same_time(project):
    """Asked through casbin's matcher they failed: Python 3.11 loses count when several threads parse at once."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert len({tuple(found) for found in pool.map(lambda _: may(project, "curate"), range(240))}) == 1
    finally:
        sys.setswitchinterval(before)
