"""What a person sees in Airflow's own pages: the trigger form and a finished run in the grid.

With ``SCREENSHOTS`` naming a folder, the pictures of the documentation are taken anew.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from playwright.sync_api import Locator, Page, expect, sync_playwright

from local_airflow.settings import load_secrets
from registry_sync.hooks.connection import HostLimits, read_connection
from support.airflow_instance import BUSY_SECONDS, AirflowInstance
from support.certificates import CertificateAuthority
from support.filling import place
from support.registry import RegistryServer
from support.shapes import application, many_tags

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


#: Lets the script of Airflow's pages show another one, as a click on a link of theirs does.
SHOW = """path => {
    history.pushState({idx: (history.state?.idx ?? 0) + 1, key: path}, "", path);
    dispatchEvent(new PopStateEvent("popstate", {state: history.state}));
}"""
#: Airflow's pages keep what they have read for five minutes after it was last shown, and here not at all.
FORGET = """
const later = window.setTimeout;
window.setTimeout = (what, milliseconds, ...given) => later(what, milliseconds === 300000 ? 0 : milliseconds, ...given);
"""


@pytest.fixture(scope="module")
def page(airflow: AirflowInstance) -> Iterator[Page]:
    """The page of someone who is signed in. It draws no transitions: the processor paints each frame.

    All tests have the same one: to load and compile Airflow's script of 7 MB takes several times what they do.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
        context.set_default_timeout(60_000)
        context.add_init_script(FORGET)
        expect.set_options(timeout=60_000)
        page = context.new_page()
        page.goto(f"{airflow.url}/")
        page.fill('input[name="username"]', "admin")
        page.fill('input[name="password"]', airflow.instance.password())
        page.click('button[type="submit"]')
        page.wait_for_url(lambda url: "/auth/login" not in url)
        expect(page.get_by_role("link", name="Dags").first).to_be_visible()
        yield page
        browser.close()


def show(page: Page, path: str) -> None:
    """Goes to another of Airflow's pages."""
    page.evaluate(SHOW, path)


def leave(page: Page) -> None:
    """Goes to a page that is of no DAG, and waits until nothing of one is left."""
    show(page, "/plugins")
    expect(page.get_by_role("button", name="Trigger")).to_have_count(0)


def picture(page: Page, name: str) -> None:
    """Keeps a picture of the page, when pictures are wanted."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / name)


def open_form(page: Page, airflow: AirflowInstance) -> Locator:
    """The trigger form; its first section is open."""
    airflow.await_dag()
    page.set_viewport_size({"width": 1200, "height": 1200})
    leave(page)  # the page of a run has such a button, too, and a dialog that goes with it
    show(page, "/dags/registry_sync")
    page.get_by_role("button", name="Trigger").first.click()
    return page.get_by_role("dialog")


def send(page: Page, form: Locator, airflow: AirflowInstance) -> str:
    """Sends the form; the id of the run on whose page it ends, which is not left open to be drawn again and again."""
    form.get_by_role("button", name="Trigger").click()
    page.wait_for_url("**/runs/**")
    run = page.url.split("/runs/")[1].split("/")[0].split("?")[0]
    show(page, "/plugins")
    return airflow.remember("registry_sync", run)


def expect_notes(page: Page, airflow: AirflowInstance, notes: Mapping[str, str]) -> None:
    """The first line of the note of each run, on its page.

    A page that has shown the note of the running sync would go on showing that, had it not forgotten it: to load
    Airflow's script anew instead takes three seconds of the processor.
    """
    deadline = time.monotonic() + 60
    for run, words in notes.items():
        # A run is noted a moment after its end, and a page of one that has ended is not read again.
        while words not in (airflow.api("GET", f"/dags/registry_sync/dagRuns/{run}")["note"] or ""):
            assert time.monotonic() < deadline, words
            time.sleep(0.2)
    leave(page)
    for run, words in notes.items():
        expect_note(page, run, words)


def expect_note(page: Page, run: str, words: str) -> None:
    """The first line of the note of a run whose page was not shown before."""
    show(page, f"/dags/registry_sync/runs/{run}")
    expect(page.get_by_text(words).first).to_be_visible()


def test_the_form_mirrors_something_new_and_syncs_an_existing_remote(
    page: Page, airflow: AirflowInstance, upstream: RegistryServer
) -> None:
    form = open_form(page, airflow)
    expect(form.get_by_text("This field is required")).to_be_visible()
    expect(form.get_by_role("button", name="Trigger")).to_be_disabled()
    repository = form.locator('input[name="element_repository"]')
    expect(repository).to_have_value("")
    form.locator('textarea[name="element_tags"]').fill("v1\nv2")
    repository.fill("from-the-form")
    form.get_by_text("Further options").click()
    form.locator('textarea[name="element_platforms"]').fill("plan9/mips")
    form.locator('textarea[name="element_platforms"]').fill("")
    form.get_by_text("Mirror something new", exact=True).last.click()
    form.locator('input[name="element_url"]').fill(upstream.url)
    form.locator('input[name="element_upstream_name"]').fill("library/hello-world")
    picture(page, "trigger-form.png")
    first = send(page, form, airflow)
    assert airflow.wait(first) == "success"
    show(page, "/dags/registry_sync/runs")
    expect(page.get_by_text(re.compile("^sync__from-the-form__20")).first).to_be_visible()
    picture(page, "runs-of-the-form.png")
    version = airflow.xcom(first, "commit_version")["version"]
    assert version["content_summary"]["present"]["docker.tag"]["count"] == 2

    form = open_form(page, airflow)
    form.locator('input[name="element_repository"]').fill("from-the-form")
    form.get_by_text("Sync an existing remote", exact=True).last.click()
    form.locator('input[name="element_remote"]').fill("from-the-form")
    picture(page, "trigger-form-existing.png")
    run = send(page, form, airflow)
    assert airflow.wait(run) == "success"
    notes = ("version 1, +2 \N{MINUS SIGN}0 tags", "unchanged since version 1, 2 tags")
    expect_notes(page, airflow, {of: f"from-the-form: {note}" for of, note in zip((first, run), notes, strict=True)})
    show(page, f"/dags/registry_sync/runs/{run}/tasks/list_tags/details")
    expect(page.get_by_role("link", name="Upstream")).to_have_attribute(
        "href", f"{upstream.url}/v2/library/hello-world/tags/list"
    )
    linked = page.get_by_role("link", name="Version", exact=True).evaluate("link => link.href")
    assert page.request.get(linked).json()["number"] == 1


#: What is filled in beside the repository, in both ways, and how the first line of the run's note goes on.
MISTAKES: tuple[tuple[dict[str, str], str], ...] = (
    ({"url": "ftp://quay.io", "upstream_name": "team/app"}, "Registry (url): "),
    ({"remote": "nobody-made-this"}, "there is no remote 'nobody-made-this'"),
)
#: Likewise, of what the form leaves out as well as any other program.
OMISSIONS: tuple[tuple[dict[str, str], str], ...] = (
    ({"url": "https://quay.io", "upstream_name": "Team/App"}, "Upstream name (upstream_name): "),
    ({"url": "https://quay.io"}, "upstream_name is missing (Upstream name in the form, "),
    ({}, "say where to sync from: "),
)


def test_what_cannot_be_right_is_refused_in_the_words_of_the_form(page: Page, airflow: AirflowInstance) -> None:
    sent, triggered = {}, {}
    for number, (given, words) in enumerate(OMISSIONS):
        run = airflow.trigger(conf={"repository": f"omitted-{number}", **given})
        triggered[run] = f"omitted-{number}: failed: {words}"
    for number, (given, words) in enumerate(MISTAKES):
        form = open_form(page, airflow)
        form.locator('input[name="element_repository"]').fill(f"mistyped-{number}")
        # One section is open at a time.
        section = "Sync an existing remote" if "remote" in given else "Mirror something new"
        form.get_by_text(section, exact=True).last.click()
        for field, value in given.items():
            form.locator(f'input[name="element_{field}"]').fill(value)
        sent[send(page, form, airflow)] = f"mistyped-{number}: failed: {words}"
    assert {airflow.wait(run) for run in (*sent, *triggered)} == {"failed"}
    expect_notes(page, airflow, sent)
    for run, words in triggered.items():
        assert words in airflow.api("GET", f"/dags/registry_sync/dagRuns/{run}")["note"]


def test_a_finished_run_reads_well_in_the_grid_and_in_the_list(
    page: Page, airflow: AirflowInstance, tmp_path: Path
) -> None:
    with RegistryServer(tmp_path / "registry") as registry:
        # of another size than in other tests, whose blobs this Airflow may have already
        place(registry, "team/application", application(0.06))
        run = airflow.sync(repository="application", url=registry.url, upstream_name="team/application")
    page.set_viewport_size({"width": 1440, "height": 900})
    show(page, "/dags/registry_sync")
    expect(page.get_by_text("Latest Run")).to_be_visible()
    expect_note(page, run, "application: version 1, +61 \N{MINUS SIGN}0 tags")
    for task in ("list_tags", "fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"):
        expect(page.get_by_text(task).first).to_be_visible()
    picture(page, "run.png")
    show(page, f"/dags/registry_sync/runs/{run}/tasks/fetch_blobs/mapped")
    expect(page.get_by_text(re.compile("1/\\d \N{MIDDLE DOT} \\d+ blobs")).first).to_be_visible()
    picture(page, "mapped-blobs.png")
    page.set_viewport_size({"width": 1800, "height": 900})
    show(page, "/dags/registry_sync/runs")
    expect(page.get_by_text(re.compile("^sync__application__20")).first).to_be_visible()
    picture(page, "runs.png")


def test_repositories_and_their_syncs_have_pages_in_the_menu(page: Page, airflow: AirflowInstance) -> None:
    """They look like Airflow around them, and lead to Airflow's own pages there, not in their frame."""
    page.set_viewport_size({"width": 1600, "height": 900})
    page.get_by_role("link", name="Registry").first.click()
    frame = page.frame_locator('iframe[title="Registry"]')
    expect(frame.get_by_role("heading", name="Repositories")).to_be_visible()
    picture(page, "repositories.png")
    frame.get_by_label("Repository", exact=True).fill("FROM-the-f")
    page.keyboard.press("Enter")
    expect(frame.get_by_text("1 repository.")).to_be_visible()
    row = frame.get_by_role("row").filter(has=frame.get_by_role("rowheader", name="from-the-form"))
    for words in ("unchanged", "registry_sync"):
        expect(row.get_by_text(words).first).to_be_visible()
    row.get_by_role("link", name="from-the-form").click()
    expect(frame.get_by_role("heading", name="from-the-form")).to_be_visible()
    expect(page).to_have_url(re.compile("/plugin/registry-sync/pulp/pages/repositories/[0-9a-f-]+/"))
    picture(page, "repository.png")
    frame.get_by_role("link", name="The tags that version 1 changed").click()
    expect(frame.get_by_text("2 added, 0 moved, 0 removed")).to_be_visible()
    picture(page, "version.png")
    # The same page again, as somebody sends its address. Airflow writes it once the frame is loaded, after its text.
    expect(page).to_have_url(re.compile("/plugin/registry-sync/pulp/pages/repositories/[0-9a-f-]+/versions/1/"))
    page.reload()
    expect(frame.get_by_role("heading", name="Version 1")).to_be_visible()
    for theme in ("dark", "light"):
        page.evaluate("theme => { document.documentElement.className = theme }", theme)
        root = frame.locator("html")
        expect(root).to_have_attribute("data-theme", theme)
        expect(root).to_have_css("color-scheme", theme)
        picture(page, f"version-{theme}.png")
    frame.get_by_role("link", name="Syncs").click()
    synced = frame.get_by_role("row").filter(has=frame.get_by_role("rowheader", name="from-the-form"))
    expect(synced.last.get_by_text("+2")).to_be_visible()
    picture(page, "syncs.png")
    synced.last.get_by_role("link", name="registry_sync").click()
    page.wait_for_url("**/dags/registry_sync/runs/**")
    expect(page.get_by_text("from-the-form: version 1").first).to_be_visible()
    assert page.frames == [page.main_frame]


def test_a_stopped_deletion_is_approved_among_the_required_actions(
    page: Page, airflow: AirflowInstance, tmp_path: Path
) -> None:
    with RegistryServer(tmp_path / "registry") as registry:
        content = many_tags(tags=6, images=3)
        place(registry, "team/shrinking", content)
        conf = {"repository": "shrinking-in-the-ui", "url": registry.url, "upstream_name": "team/shrinking"}
        airflow.sync(**conf)
        for tag in list(content.tags)[2:]:
            registry.delete_tag("team/shrinking", tag)
        run = airflow.trigger(conf=conf)
        airflow.await_task(run, "commit_version", state="awaiting_input")
    show(page, f"/dags/registry_sync/runs/{run}/tasks/commit_version/required_actions")
    for words in ("Remove 4 tags from shrinking-in-the-ui?", "keeps version 1", *list(content.tags)[2:]):
        expect(page.get_by_text(words).first).to_be_visible()
    picture(page, "approval.png")
    page.get_by_role("button", name="Approve").click()
    assert airflow.wait(run) == "success"
    assert airflow.xcom(run, "commit_version")["removals_approved_by"] == "admin"
    expect_notes(page, airflow, {run: "shrinking-in-the-ui: version 2, +0 \N{MINUS SIGN}4 tags"})
    assert " as admin approved at " in airflow.api("GET", f"/dags/registry_sync/dagRuns/{run}")["note"]


def stored_extra(airflow: AirflowInstance, conn_id: str) -> dict[str, Any]:
    """Extra as it is stored, which Airflow's REST API does not give."""
    with closing(sqlite3.connect(airflow.layout.database, timeout=BUSY_SECONDS)) as connection:
        query = "SELECT is_extra_encrypted, extra FROM connection WHERE conn_id = ?"
        is_encrypted, extra = connection.execute(query, [conn_id]).fetchone()
    assert is_encrypted
    key = load_secrets(airflow.layout)["fernet_key"]
    found: dict[str, Any] = json.loads(Fernet(key).decrypt(extra.encode()))
    return found


def test_a_connection_made_in_the_form_says_what_was_chosen(
    page: Page, airflow: AirflowInstance, tmp_path: Path
) -> None:
    """Fields chosen from a list, keys of many lines, fractions and those left empty arrive as they are meant."""
    certificate, key = (Path(path).read_text() for path in CertificateAuthority(tmp_path / "ca").client())
    page.set_viewport_size({"width": 1200, "height": 1500})
    show(page, "/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator('input[name="connection_id"]').fill("from_the_form")
    form.get_by_role("combobox").first.click()
    page.keyboard.type("Container reg")
    page.get_by_text("Container registry").first.click()
    form.locator('input[name="host"]').fill("123456789012.dkr.ecr.eu-central-1.amazonaws.com")
    form.get_by_text("Credentials and tokens", exact=True).click()
    form.locator("#element_credential_helper").click()
    page.get_by_text("Amazon ECR", exact=True).click()
    form.get_by_text("Limits", exact=True).click()
    form.locator('input[name="element_host_concurrency"]').fill("4")
    form.locator('input[name="element_requests_per_second"]').fill("2.5")
    form.locator('input[name="element_contact"]').fill("mirrors@example.org")
    form.get_by_text("TLS", exact=True).click()
    form.locator('textarea[name="element_client_certificate"]').fill(certificate)
    form.locator('textarea[name="element_client_private_key"]').fill(key)
    picture(page, "connection-form.png")
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()
    made = airflow.api("GET", "/connections/from_the_form")
    extra = json.loads(made["extra"])
    assert extra["client_private_key"] == "***", "Airflow shows no key again"
    extra["client_private_key"] = stored_extra(airflow, "from_the_form")["client_private_key"]
    connection = SimpleNamespace(**{name: made[name] for name in ("host", "login", "password", "schema", "port")})
    connection.extra_dejson, connection.conn_type = extra, made["conn_type"]
    found = read_connection("from_the_form", connection)
    assert (found.credential_helper, found.contact) == ("amazon_ecr", "mirrors@example.org")
    assert found.limits == HostLimits(4, 2.5)
    assert (found.client_certificate, found.client_key) == (certificate.strip(), key.strip())
    assert found.choices == {"allow_insecure_credentials": False}
    assert (found.conn_type, found.allow_any_host) == ("registry", False)
    assert found.unknown_extra == ()
