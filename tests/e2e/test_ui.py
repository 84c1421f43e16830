"""What a person sees in Airflow's own pages: the trigger form and a finished run in the grid.

With ``SCREENSHOTS`` naming a folder, the pictures of the documentation are taken anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

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


@pytest.fixture
def page(airflow: AirflowInstance) -> Iterator[Page]:
    """A page of someone who is signed in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.goto(f"{airflow.url}/")
        page.fill('input[name="username"]', "admin")
        page.fill('input[name="password"]', airflow.instance.password())
        page.click('button[type="submit"]')
        page.wait_for_url(lambda url: "/auth/login" not in url)
        yield page
        browser.close()


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
    for words in ("The name to sync into", "such as https://quay.io", "such as library/hello-world", "Only these tags"):
        expect(form.get_by_text(words)).to_be_visible()
    form.get_by_text("Further options").click()
    for words in ("Airflow connection of type Container registry", "Requests at once in each task"):
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
        place(registry, "team/application", application(0.75))
        run = airflow.sync(repository="application", url=registry.url, upstream_name="team/application")
    page.goto(f"{airflow.url}/dags/registry_sync/runs/{run}")
    for task in ("list_tags", "fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"):
        expect(page.get_by_text(task).first).to_be_visible()
    picture(page, "run.png")
    page.goto(f"{airflow.url}/dags/registry_sync/runs/{run}/tasks/fetch_blobs/mapped")
    expect(page.get_by_text("blobs, ").first).to_be_visible()
    picture(page, "mapped-blobs.png")
