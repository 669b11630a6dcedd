"""The HTML report, parsed as by a browser."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support.small_study import ARMS, HOSTILE, entry, folder, study  # noqa: F401

from rollflow.bench.analysis.results import ExperimentResults, read
from rollflow.bench.run.experiment import Arm
from rollflow.report import page as report_page
from rollflow.report import tables

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Parsed content of a page, in which every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def of(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag]


def made(told: ExperimentResults, folder: Path) -> str:  # noqa: F811
    return report_page.page(replace(told, pictures=folder), tables.tables(told))


@pytest.fixture(scope="module")
def text(folder: Path) -> str:  # noqa: F811
    return made(read(folder), folder)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.mark.slow
def test_it_loads_nothing_and_runs_nothing(page: Page, text: str) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "form"}
        assert not any(name.startswith("on") for name in attributes)
        assert all((attributes.get(name) or "data:").startswith("data:") for name in ("src", "href", "srcset"))
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.slow
def test_hostile_prompts_are_text(page: Page, text: str) -> None:
    assert "<script" not in text
    assert f"{HOSTILE}, seed 0" in page.of("h3")
    assert HOSTILE in page.of("li")


@pytest.mark.slow
def test_all_arms_prompts_and_failures_are_there(page: Page) -> None:
    titles = page.of("h3")
    for prompt in ("a red square", HOSTILE, "a unicorn"):
        assert {f"{prompt}, seed 0", f"{prompt}, seed 1"} <= set(titles)
    assert page.of("strong")[1:] == [arm.name for arm in ARMS] * 6
    assert sum(told.startswith("failed: PromptError") for told in page.of("p")) == 2 * len(ARMS)
    assert "each arm (4 of 6, 2 failed)" in page.of("strong")[0]
    assert "Failed jobs: 8" in page.of("summary")
    assert {"Rewards", "Costs", "Sequential Monte Carlo", "Best caption so far at equal NFE"} <= set(page.of("caption"))


def test_pictures_are_whole_and_described(page: Page) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(image["alt"] for image in images)
    pictures = [str(image["src"]) for image in images if str(image["src"]).startswith("data:image/webp")]
    assert len(pictures) == 4 * len(ARMS)  # two prompts, two seeds
    assert len(images) - len(pictures) == 6  # cost twice, budget, held-out, ESS, genealogy
    for image in images:
        kind, _, content = str(image["src"]).partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert f"data:image/{(picture.format or '').lower()}" == kind
            picture.load()


def test_tables_have_headers_and_the_sources_are_told(page: Page, text: str) -> None:
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.tags if tag == "th")
    assert text.count("<caption>") == text.count("<thead>")
    sources = "".join(page.of("pre"))
    assert "2503.19385" in sources
    assert "2501.06848" in sources  # SMC
    assert "2408.08252" not in sources  # SVDD
    assert "prefers-color-scheme: dark" in text


def test_galleries_are_as_long_as_asked(folder: Path) -> None:  # noqa: F811
    told = read(folder)
    assert [(row.prompt, row.seed) for row in report_page.rows(told, 4)] == [
        ("a red square", 0),
        (HOSTILE, 0),
        ("a unicorn", 0),
        ("a red square", 1),
    ]
    assert report_page.rows(told, 0) == []
    [row] = report_page.rows(replace(told, pictures=folder / "remote"), 1)
    assert [tile.uri for tile in row.tiles] == [None] * 4
    assert all("caption (given)" in tile.text for tile in row.tiles)


def test_a_study_of_little_has_a_report_too(tmp_path: Path) -> None:
    told = study(entry("A", "p", 0, 1.0, seconds=0.0), seeds=3)
    told.config.update(model="scenes-base", held_out=["judge"], suite={"name": "s", "version": "", "prompts": 1})
    page = Page(made(told, tmp_path))
    assert "1 (n = 1)" in page.of("td")
    assert "Sequential Monte Carlo" not in page.of("h2")
    assert "jobs done: A (1 of 3)" in page.of("strong")[0]


def test_settings_tell_the_command_padding_and_device(tmp_path: Path) -> None:
    told = study(*(entry("A", p, 0, 1.0, device="cuda: <H100>") for p in "abc"))
    told.config.update(model="scenes-base", held_out=[], suite={"name": "s", "version": "", "prompts": 3})
    page = Page(made(replace(told, command="rollflow bench run --preset init --out 'a & b'"), tmp_path))
    assert "rollflow bench run --preset init --out 'a & b'" in page.of("pre")
    [padding] = [text for text in page.of("p") if text.startswith("Every call of the model was")]
    assert padding == "Every call of the model was padded to 8 rows; the jobs ran on cuda: <H100>."


def test_the_reward_returned_is_drawn_against_the_budget() -> None:
    arms = (Arm("plain"), Arm("A", "svdd", 50), Arm("B", "svdd", 100))
    entries = [entry(arm.name, p, 0, float(ord(p)), held_out={"j": 1.0}) for arm in arms for p in "abc"]
    assert [shown.alt for shown in report_page._scaling(study(*entries, arms=arms))] == [
        "caption (given) of the sample returned against budget: one line a method and dynamics.",
        "j (held out) of the sample returned against budget: one line a method and dynamics.",
    ]
    assert list(report_page._scaling(study(*entries, arms=arms[:2]))) == []


def test_genealogies_are_drawn_where_they_are_told(tmp_path: Path) -> None:
    smc = [{"log_z": 0.0, "ess": [2.0, 1.0], "resamplings": 1, "ancestors": 1}]
    told = study(entry("A", "p", 0, 1.0, diagnostics=smc, ancestors=[[None, [0, 0]]]), seeds=1)
    assert [shown.alt for shown in report_page._sequential(told)] == [
        "Effective sample size after every weighting: one line an arm.",
        "Genealogy of the particles of one job of A.",
    ]
