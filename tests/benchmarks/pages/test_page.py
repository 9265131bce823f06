"""The HTML report: what it holds, that it needs nothing else, its bytes, its command line, and in Chromium."""

import base64
import hashlib
import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

import ltbench.benchmarks
from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.rendering import render
from ltbench.benchmarks.analysis.tables import all_tables
from ltbench.benchmarks.pages.page import report
from ltbench.benchmarks.report import main
from ltbench.benchmarks.training.protocol import PRESETS
from ltbench.datasets.splits.manifest import Manifest
from ltbench.files import write_lines

BROWSER = shutil.which("chromium")
NAMES = ["nævus & co", "</td><script>alert(1)</script>", 'the "third"', "it's $4 ${title}"]
EVIL = "a<b>&\"'"
VOID = {"meta", "link", "img", "br", "hr", "input"}
EPOCH = {"stage": "train", "epoch": 0, "terms": {"loss": 1.0}, "val_recall": [0.5] * 4, "val_loss": 1.5}


class Page(HTMLParser):
    """What a page holds; fails where tags are not closed in order."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.feed(data.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def values(self, name: str) -> list[str]:
        return [own[name] or "" for _, own in self.attributes if name in own]

    def cells(self) -> list[list[list[str]]]:
        return [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables]


OWN = {"own": ["<i>", 0.5]}


def split() -> Manifest:
    """A split of 300, 100, 30 and 10 training images, 2 and 20 of each class in the other parts, some of one lesion."""
    labels = np.repeat(np.tile(np.arange(4), 3), [300, 100, 30, 10, *[2] * 4, *[20] * 4])
    parts = np.repeat(["train", "val", "test"], [440, 8, 80])
    ids = np.array([f"i{row:04d}" for row in range(528)])
    lesions = ids.copy()
    lesions[1] = lesions[0]
    return Manifest(ids, labels, np.array(NAMES)[labels], lesions, parts)


@pytest.fixture(scope="module")
def results(add_record: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings, one of them with rows of other trials, with names that are no good HTML."""
    folder, manifest = tmp_path_factory.mktemp("report") / "results", split()
    shared = {
        **{"class_names": NAMES, "split_digest": manifest.digest, "notes": ["missing images: 3 <of> 9"]},
        "overlap": {"train/test": {"images": 0, "lesion_images": 7, "total": 80}},
        "group_name": "person",
        "versions": {"torch": "2.4 & later"},
    }
    for trial in range(2):
        for method, accuracy, memory in (("ce", 0.5, 1000), ("rs", 0.8, 900), (EVIL, 0.6, None)):
            cost = {"train_seconds": 1.0, "images_seen": 5, "peak_memory_mib": memory}
            add_record(folder, method, trial, accuracy, cost=cost, hyperparameters=OWN, **shared)
    add_record(folder, "rw", 0, 0.7, **shared)
    add_record(folder, "ce", 0, 0.4, ratio=100.0, title="Toy <lesions>", class_names=NAMES, hyperparameters=OWN)
    for path in folder.glob("*-r30/*"):
        manifest.write(path / "split.csv")
        for trial in path.glob("trial*"):
            write_lines(trial / "metrics.jsonl", [EPOCH])
    return folder


@pytest.fixture(scope="module")
def page(results: Path) -> bytes:
    return report(list(find_records(results)), results, presets=PRESETS)


def test_page_is_sound_and_refers_to_nothing_outside(page: bytes) -> None:
    parsed = Page(page)
    assert page.startswith(b"<!doctype html>") and len(page) < 20e6
    idents = parsed.values("id")
    assert len(idents) == len(set(idents))
    links = parsed.values("href")
    assert len(links) > 20 and all(link[0] == "#" and link[1:] in idents for link in links)
    tags = [tag for tag, _ in parsed.attributes]
    assert tags.count("h1") == 1 and tags.count("script") == 1
    assert all(own.get("alt") and int(own["width"]) > 100 for tag, own in parsed.attributes if tag == "img")
    sources = parsed.values("src")
    assert len(sources) == 14  # of ratio 30: 2 shared, counts, 2 a row; of ratio 100: 2 shared, confusion
    for source in sources:
        kind, _, data = source.partition(";base64,")
        content = base64.b64decode(data, validate=True)
        assert content.startswith({"data:image/svg+xml": b"<?xml", "data:image/png": b"\x89PNG"}[kind])
        assert kind.endswith("png") or len(content) <= 300_000
        assert not re.search(rb"href=\"(?!#|data:)|url\((?!#)|@import|<script", content)
    text = re.sub(rb'src="data:[^"]*"', b"", page)
    assert not re.search(rb"https?:|//[a-z]|url\(|@import|<link|<iframe|<base|srcset|\son[a-z]+=", text)
    assert "default-src 'none'; img-src data:;" in html.unescape(text.decode())


def test_names_are_escaped_and_sections_have_tables(page: bytes) -> None:
    parsed, text = Page(page), page.decode()
    assert text.count("<script>") == 1 and EVIL not in text and str(escape(EVIL)) in text
    for name in (*NAMES, EVIL, "Toy <lesions>", "missing images: 3 <of> 9", "own=<i>, 0.5", "2.4 & later"):
        assert name in parsed.text
    _, everything, first, second = text.split("<section id=")
    assert everything.startswith('"all"') and everything.count("Trials 0: rows of other trials") == 2
    assert "ratio 30, split paper</h2>" in first and first.count("Trials 0, 1: rows of other trials") == 7
    assert "ratio 100, split paper</h2>" in second and "Trials 0" not in second
    assert "Best of 3, n = 2 trials: rs, " in first and "Best of 1, n = 1 trial: ce, " in second
    assert "Nothing is tested against it." in first and "Not shown to be worse: none." in second


def test_the_best_row_is_of_the_most_trials_and_rows_without_a_difference_are_named(
    add_record: Any, tmp_path: Path
) -> None:
    for method, accuracy in (("ce", 0.9), ("rs", 0.88), ("cb", 0.1), ("rw", 0.1)):
        for trial in range(3):
            add_record(tmp_path, method, trial, accuracy)
    add_record(tmp_path, "ldam", 0, 1.0)  # better, in one trial
    parsed = Page(report(list(find_records(tmp_path)), tmp_path))
    (line,) = next(table[1:] for table in parsed.cells() if table[0][0] == "data")
    assert line[3:5] == ["5", "1 to 3"] and line[5] in ("ce, n = 3 trials", "rs, n = 3 trials")
    best, other = ("ce", "rs") if line[5].startswith("ce") else ("rs", "ce")
    found = rf"Best of 4, n = 3 trials: {best}, [0-9.]+ % mean per-class accuracy. Not shown to be worse: {other}\."
    assert re.search(found, parsed.text)


def test_tables_are_those_of_the_leaderboard(page: bytes, results: Path) -> None:
    own = Page(page).cells()
    for kind in ("overview", "ratios", "groups", "per-class", "cost", "metrics", "reliability", "conformal"):
        theirs = Page(render(all_tables(find_records(results), [kind]), "html").encode()).cells()
        assert len(theirs) == (2 if kind == "ratios" else 3)
        assert all(own.count(table) >= theirs.count(table) > 0 for table in theirs)
    notes = re.findall("<p class=note>(.*?)</p>", render(all_tables(find_records(results), ["groups"]), "html"))
    assert notes and all(html.unescape(note) in html.unescape(page.decode()) for note in notes)


def test_ablation_and_published_tables(page: bytes, add_record: Any, tmp_path: Path) -> None:
    assert "Ju et al., MICCAI 2022, Table 1, beside Toy" in Page(page).text
    chosen = {"pretrain": "ssl", "selection": "anchor"}
    for query, ratio in itertools.product(("random", "none"), (30.0, 100.0)):
        own = {"changed": {"query": query}, "hyperparameters": {"query": query, **chosen}, "ratio": ratio}
        add_record(tmp_path, "flex", 0, 0.5, **own)
    parsed = Page(report(list(find_records(tmp_path)), tmp_path))
    assert "s1-ablation" in parsed.values("id") and "Beside the paper" not in parsed.text
    assert "Average rank over settings" in parsed.text and "Average rank" not in Page(page).text
    assert ["pre-train", "sample selection", "query: none", "query: random"] in [table[0] for table in parsed.cells()]


def test_data_protocol_and_software_are_told(page: bytes, results: Path) -> None:
    parsed = Page(page)
    tables = parsed.cells()
    shown = [table for table in tables if table[0] == ["class", "group", "train", "val", "test"]]
    sizes = zip([300, 100, 30, 10], ["head", "medium", "medium", "tail"], strict=True)
    (told,) = shown
    assert [row[2:] for row in told[1:]] == [[str(size), "2", "20"] for size, _ in sizes]
    assert {row[1] for row in told[1:]} == {"head", "medium", "tail"}
    assert "train 440 of 439 persons, val 8, test 80." in parsed.text
    assert "of the other parts nothing is known: cannot read the split" in parsed.text  # ratio 100 has no manifest
    assert "7 of 80 test images share their person with train." in parsed.text
    assert "What the parts of the split share is not in the record." in parsed.text
    pairs = [tuple(row) for table in tables for row in table]
    assert ("torch", "2.4 & later", "7") in pairs and ("device", "a device", "7") in pairs
    result = next(iter(find_records(results))).result
    for name, value in (("its SHA-256", split().digest), ("its SHA-256", result.protocol_digest), ("epochs", "20")):
        assert (name, value) in pairs
    assert ("augmentation.crop_scale", "0.5, 1") in pairs


def test_a_picture_that_fails_becomes_its_reason(page: bytes, results: Path, tmp_path: Path) -> None:
    text = Page(page).text
    assert "Not drawn (samples): no images: " in text and text.count("Not drawn (curves)") == 1
    copy = shutil.copytree(results, tmp_path / "copy")
    next(copy.glob("*-r30/rs-*/split.csv")).unlink()
    for path in copy.glob("*-r30/*/trial0/metrics.jsonl"):
        path.write_text("{")
    text = Page(report(list(find_records(copy)), copy)).text
    assert "Not drawn (counts): " in text
    assert text.count("Not drawn (curves): ") == 5


def test_same_records_give_the_same_bytes_in_another_process(add_record: Any, tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "new" / "page.html"
    for method in ("ce", EVIL):
        add_record(results, method, 0, 0.5)
    command = [sys.executable, Path(ltbench.benchmarks.__file__).with_name("report.py"), "--results", results]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    done = subprocess.run([*command, "--out", out], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == f"{out}\n" and [path.name for path in out.parent.iterdir()] == ["page.html"]
    (results / "report.html").write_text("old")
    assert main(["--results", str(results)]) == 0  # to the results folder by default
    assert (results / "report.html").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--results nowhere", "results folder nowhere does not exist"),
        ("--results empty", "empty holds no finished trial"),
        ("--out empty", "empty: it is a folder"),
        ("--out file/page.html", "file is no folder that is writable"),
        ("--format pdf", "unrecognized arguments: --format pdf; see ltbench report --help"),
        ("--out", "expected one argument"),
    ],
)
def test_command_line_refuses_in_one_line(results: Path, refuses: Any, arguments: str, reason: str) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    refuses(main, ["--results", str(results), *arguments.split()], reason)


def test_a_corrupt_record_is_named(add_record: Any, tmp_path: Path, refuses: Any) -> None:
    add_record(tmp_path, "ce", 0, 0.5)
    (path,) = tmp_path.glob("*/*/trial0/predictions.npz")
    path.write_bytes(b"x")
    refuses(main, ["--results", str(tmp_path)], str(path))


def browsed(page: bytes, script: str, folder: Path) -> tuple[Any, list[str]]:
    """Return what a script leaves in the page's title as JSON, and the lines of the console.

    The script comes after the page's own, which the page's policy still has to allow.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.decode().replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    path = folder / "page.html"
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    options = [f"--{name}" for name in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run")]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom"]
    command = [BROWSER, *options, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    return json.loads(html.unescape(title)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


SCRIPT = """
const tables = [...document.querySelectorAll("table.sortable")];
const table = tables.find((own) => own.textContent.includes("peak memory MiB"));
const header = (name) => [...table.tHead.rows[0].cells].find((cell) => cell.textContent.trim() === name);
const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
const states = [[null, order()]];
const click = (name) => {
  const button = header(name).querySelector("button");
  button.focus();
  button.click();
  states.push([header(name).getAttribute("aria-sort"), order(), document.activeElement === button]);
};
["peak memory MiB", "peak memory MiB", "peak memory MiB", "peak memory MiB", "method"].forEach(click);
addEventListener("load", () => {
  const sources = performance.getEntriesByType("resource").map((own) => own.name);
  console.info("the end");
  document.title = JSON.stringify({
    states,
    buttons: tables.every((own) => own.querySelectorAll("th button").length === own.tHead.rows[0].cells.length),
    sorted: document.querySelectorAll("[aria-sort]").length,
    broken: [...document.images].filter((image) => !image.complete || !image.naturalWidth).length,
    wide: document.documentElement.scrollWidth > innerWidth,
    loaded: sources.filter((name) => !name.startsWith("data:")),
  });
});
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_browser_sorts_and_loads_nothing(page: bytes, tmp_path: Path) -> None:
    found, console = browsed(page, SCRIPT, tmp_path)
    assert found["states"] == [
        [None, ["rs", EVIL, "ce"]],
        ["descending", ["ce", "rs", EVIL], True],  # 1000, 900, n/a
        ["ascending", ["rs", "ce", EVIL], True],
        [None, ["rs", EVIL, "ce"], True],
        ["descending", ["ce", "rs", EVIL], True],
        ["ascending", [EVIL, "ce", "rs"], True],
    ]
    assert found["buttons"] and found["sorted"] == 1 and not found["wide"]
    assert found["broken"] == 0 and found["loaded"] == []
    assert len(console) == 1 and "the end" in console[0]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_browser_runs_no_script_but_the_pages(page: bytes, tmp_path: Path) -> None:
    foreign = page.replace(b"<main", b"<script>document.title = 'foreign'</script><main", 1)
    found, console = browsed(foreign, "document.title = JSON.stringify(document.title)", tmp_path)
    assert found.startswith("Long-tailed classification")
    assert len(console) == 1 and "Content Security Policy" in console[0]
