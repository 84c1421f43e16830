"""What is measured is chosen by words, and a word that is none is refused."""

from __future__ import annotations

import pytest
from benchmarks.__main__ import _arguments
from benchmarks.syncs.upstreams import NETWORKS

from local_airflow.layout import CHECKOUT


def arguments(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, object]:
    monkeypatch.setattr("sys.argv", ["benchmarks", *words])
    return vars(_arguments())


def test_everything_is_measured_five_times_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = arguments(monkeypatch)
    assert chosen["only"] == ["blob-store", "pulls", "digests", "fleets", "mirrors", "observed", "scale", "syncs"]
    assert (chosen["shapes"], chosen["networks"], chosen["runs"]) == ([], [], 5)


def test_repositories_of_several_sizes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arguments(monkeypatch)["units"] == [100_000]
    chosen = arguments(monkeypatch, "--tags", "0", "--units", "7500", "100000", "--repositories", "0")
    assert (chosen["tags"], chosen["units"], chosen["repositories"]) == ([0], [7500, 100_000], 0)


@pytest.mark.parametrize("text", ["80ms,loopback", "80ms loopback", " loopback, 80ms "])
def test_words_are_separated_by_commas_or_blanks(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert arguments(monkeypatch, f"--networks={text}")["networks"] == ["loopback", "80ms"]


def test_an_unknown_word_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(monkeypatch, "--contenders", "oras,docker")
    assert "unknown: docker" in capsys.readouterr().err


def test_the_reference_of_make_names_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = (CHECKOUT / "docs/reference/make.md").read_text()
    chosen = arguments(monkeypatch)
    for option in ("only", "networks", "contenders"):
        (line,) = (line for line in reference.splitlines() if line.startswith(f"| `{option.upper()}` |"))
        words = chosen[option] or list(NETWORKS)
        assert isinstance(words, list)
        assert all(f"`{word}`" in line for word in words), option
