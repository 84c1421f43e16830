"""What a person sees in Airflow's own pages: the trigger form and a finished run in the grid.

With ``SCREENSHOTS`` naming a folder, the pictures of the documentation are taken anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from registry_sync.hooks.connection import HostLimits, read_connection
from support.airflow_instance import AirflowInstance
from support.filling import place
from support.registry import RegistryServer
from support.shapes import application

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def signed_in(airflow: AirflowInstance) -> Iterator[BrowserContext]:
    """The browser of someone who is signed in. It draws no transitions: the processor paints each frame."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
        context.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page = context.new_page()
        page.goto(f"{airflow.url}/")
        page.fill('input[name="username"]', "admin")
        page.fill('input[name="password"]', airflow.instance.password())
        page.click('button[type="submit"]')
        page.wait_for_url(lambda url: "/auth/login" not in url)
        page.close()
        yield context
        browser.close()


@pytest.fixture
def page(signed_in: BrowserContext) -> Iterator[Page]:
    """A page of its own, closed at the end: an open one asks the server again and again."""
    page = signed_in.new_page()
    yield page
    page.close()


def picture(page: Page, name: str) -> None:
    """Keeps a picture of the page, when pictures are wanted."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / name)


def test_the_form_has_words_for_everything_and_its_values_reach_the_run(
    page: Page, airflow: AirflowInstance, upstream: RegistryServer
) -> None:
    airflow.await_dag()
    page.set_viewport_size({"width": 1200, "height": 1500})
    page.goto(f"{airflow.url}/dags/registry_sync")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    for words in (
        "The repository to sync into",
        "such as https://quay.io",
        "such as library/hello-world",
        "Only these tags",
    ):
        expect(form.get_by_text(words)).to_be_visible()
    form.get_by_text("Further options").click()
    for words in ("Airflow connection of type Container registry", "Concurrent requests of each task"):
        expect(form.get_by_text(words)).to_be_visible()
    form.get_by_text("Run Parameters").click()
    form.locator('input[name="element_repository"]').fill("from-the-form")
    form.locator('input[name="element_url"]').fill(upstream.url)
    form.locator('input[name="element_upstream_name"]').fill("library/hello-world")
    form.locator('textarea[name="element_tags"]').fill("v1\nv2")
    picture(page, "trigger-form.png")
    form.get_by_role("button", name="Trigger").click()
    page.wait_for_url("**/runs/**")
    run = airflow.remember("registry_sync", page.url.split("/runs/")[1].split("/")[0].split("?")[0])
    assert airflow.wait(run) == "success"
    version = airflow.xcom(run, "commit_version")["version"]
    assert version["content_summary"]["present"]["docker.tag"]["count"] == 2


def test_a_finished_run_reads_well_in_the_grid(page: Page, airflow: AirflowInstance, tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry") as registry:
        # of another size than in other tests, whose blobs this Airflow may have already
        place(registry, "team/application", application(0.06))
        run = airflow.sync(repository="application", url=registry.url, upstream_name="team/application")
    page.goto(f"{airflow.url}/dags/registry_sync/runs/{run}")
    for task in ("list_tags", "fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"):
        expect(page.get_by_text(task).first).to_be_visible()
    picture(page, "run.png")
    page.goto(f"{airflow.url}/dags/registry_sync/runs/{run}/tasks/fetch_blobs/mapped")
    expect(page.get_by_text("blobs, ").first).to_be_visible()
    picture(page, "mapped-blobs.png")


def test_a_connection_made_in_the_form_says_what_was_chosen(page: Page, airflow: AirflowInstance) -> None:
    """Fields that are chosen from a list, numbers with fractions and those left empty arrive as they are meant."""
    page.set_viewport_size({"width": 1200, "height": 2600})
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator('input[name="connection_id"]').fill("from_the_form")
    form.get_by_role("combobox").first.click()
    page.keyboard.type("Container reg")
    page.get_by_text("Container registry").first.click()
    form.locator('input[name="host"]').fill("123456789012.dkr.ecr.eu-central-1.amazonaws.com")
    form.get_by_text("Extra Fields", exact=True).click()
    form.locator("#element_credential_helper").click()
    page.get_by_text("Amazon ECR", exact=True).click()
    form.locator('input[name="element_host_concurrency"]').fill("4")
    form.locator('input[name="element_requests_per_second"]').fill("2.5")
    form.locator('input[name="element_contact"]').fill("mirrors@example.org")
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()
    made = airflow.api("GET", "/connections/from_the_form")
    extra = json.loads(made["extra"])
    connection = SimpleNamespace(**{name: made[name] for name in ("host", "login", "password", "schema", "port")})
    connection.extra_dejson, connection.conn_type = extra, made["conn_type"]
    found = read_connection("from_the_form", connection)
    assert (found.credential_helper, found.contact) == ("amazon_ecr", "mirrors@example.org")
    assert found.limits == HostLimits(4, 2.5)
    assert found.choices == {"allow_insecure_credentials": False}
    assert (found.conn_type, found.allow_any_host) == ("registry", False)
    assert found.unknown_extra == ()
