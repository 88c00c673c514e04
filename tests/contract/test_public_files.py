"""The files that a code host and a reader of the repository look for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from ray_jobs.engine.jobs import JOBS

WORKFLOW = REPOSITORY / ".github/workflows/ci.yml"
TEMPLATES = sorted((REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def test_the_workflow_runs_the_complete_check() -> None:
    steps = [step for job in yaml.safe_load(WORKFLOW.read_text())["jobs"].values() for step in job["steps"]]
    assert any(step.get("run", "").endswith(".ci/run") for step in steps)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_is_valid(template: Path) -> None:
    content = yaml.safe_load(template.read_text())
    assert template.name == "config.yml" or {"name", "description", "body"} <= content.keys()


def test_the_citation_has_the_version_and_licence_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_the_citation_follows_the_schema_of_cff_1_2_0() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    allowed = {"cff-version", "message", "title", "type", "authors", "version", "license", "keywords", "abstract"}
    assert citation.keys() == allowed  # all known to the schema; the first five are what a reference needs
    assert all(isinstance(citation[key], str) and citation[key] for key in allowed - {"authors", "keywords"})
    assert citation["authors"]
    assert all(author.keys() == {"name"} for author in citation["authors"])  # entities, which need a name
    assert len(set(citation["keywords"])) == len(citation["keywords"]) > 0
    assert "(CITATION.cff)" in (REPOSITORY / "README.md").read_text()


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    assert all(f" {page.name}\n" in navigation for page in (REPOSITORY / "docs").glob("*.md"))


def test_the_drawing_of_the_rooms_has_every_job_and_room() -> None:
    drawing = (REPOSITORY / "docs/rooms.svg").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (REPOSITORY / "genre").glob("*/__init__.py")]
    ground = [path.stem for path in (REPOSITORY / "genre").glob("*.py") if path.stem != "__init__"]
    assert [name for name in (*JOBS, *rooms) if f">{name}</text>" not in drawing] == []
    (names,) = (line for line in drawing.splitlines() if "settings, config" in line)
    assert [name for name in ground if name not in names] == []
