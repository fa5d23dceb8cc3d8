"""The two-page study: its numbers are those of the record, its links lead somewhere, and it stays short."""

import re
from pathlib import Path

import pytest

from studies import findings, outline, publishing
from studies.settings import Scale, everything

ROOT = Path(__file__).parents[3]
RECORD = (publishing.DOCS / outline.RECORD.file).read_text(encoding="utf-8")
SHORT = (publishing.DOCS / outline.FINDINGS.file).read_text(encoding="utf-8")
EXPERIMENTS = {one.name: one for one in everything(Scale())}


def arm_row(label, difference):
    """What the findings read of an arm."""
    return {
        "arm": label,
        "seeds": 3,
        "accuracy": 0.8 + difference,
        "accuracy_difference": difference,
        "accuracy_low": difference - 0.01,
        "accuracy_high": difference + 0.01,
        "accuracy_noninferior": False,
        "share_dense32": 0.123,
        "latency_over_budget": 1.5,
        "mean_latency_s": 0.25,
    }


def numbers_of_arms():
    """numbers.json with every table that the findings read; arms of an experiment differ by their position."""
    every = {}
    for task in ("digits", "python-source"):
        for kind in ("headline", "grain"):
            labels = [one.label for one in EXPERIMENTS[f"{kind}-{task}"].settings]
            every[f"{kind}-{task}"] = [arm_row(label, -0.001 * at) for at, label in enumerate(labels)]
        every[f"sweep-{task}-gain-accuracy"] = [arm_row("", 0.002) | {"budget": "all (mean)"}]
        every[f"offline-{task}-regret-accuracy"] = [
            {"rule": rule, "budget": "all (mean)", "accuracy_regret_difference": 0.001 * at}
            for at, rule in enumerate(("plan", findings.OTHERS, findings.DEFAULT))
        ]
        every[f"bound-{task}"] = [
            {"comparison": kind, "fitted_tau": 0.5, "covariance_alone_tau": -0.25}
            for kind in ("methods", "ranks", "budgets")
        ]
    every["tradeoff-digits-bounded"] = [{"v": v, "penalty": 1 / v, "queue_s": v} for v in (0.1, 30)]
    return {name: {"missing": f"about {name}", "tables": {name: rows}} for name, rows in every.items()}


def rows_of(page, table):
    """The rows of a table between its markers: lists of cells by the first cell."""
    block = page.partition(f"<!-- table: {table} -->")[2].partition("<!-- end -->")[0]
    lines = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in block.splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in lines}


def test_sentences_hold_the_rows_numbers():
    numbers = numbers_of_arms()
    products = {product.name: product for product in findings.read(numbers)}
    named = {block.name for part in outline.FINDINGS.parts for block in part.blocks if isinstance(block, outline.Table)}
    assert set(products) == {name for product in products.values() for name in product.sheets} == named
    labels = [one.label for one in EXPERIMENTS["headline-digits"].settings]
    soft = -0.1 * labels.index("soft")
    answers = products["findings-answers"].sheets["findings-answers"].markdown()
    assert f"Digits: {soft:.2f} points".replace("-", "−") in answers
    assert "at 12.3 % of the dense" in answers
    assert "1.500 and 1.500 times" in answers
    assert "+0.20 [−0.80, +1.20]" in answers
    claims = products["findings-claims"].sheets["findings-claims"].markdown()
    assert "the penalty falls from 10.0000 to 0.0333" in claims
    assert "0.00 and 0.00 points untuned, 0.10 and 0.10 fitted on other budgets; on digits 0.20 fitted" in claims
    assert products["findings-digits"].remark == "about headline-digits"
    assert len(products["findings-digits"].sheets["findings-digits"].rows) == len(findings.ARMS)


@pytest.mark.parametrize("lost", sorted(numbers_of_arms()))
def test_without_an_experiment_nothing_is_made_and_a_line_says_why(lost, capsys):
    numbers = numbers_of_arms()
    del numbers[lost]
    assert findings.read(numbers) == []
    assert lost in capsys.readouterr().err


@pytest.mark.parametrize("task", ("digits", "python-source"))
def test_the_short_tables_repeat_cells_of_the_record(task):
    record, short = rows_of(RECORD, f"headline-{task}"), rows_of(SHORT, f"findings-{task}")
    assert list(short)[2:] == list(findings.ARMS)  # after the heading and its rule
    for arm in findings.ARMS:
        means = [cell.partition(" ±")[0] for cell in record[arm]]
        assert set(short[arm]) <= set(means), arm


def test_every_number_of_the_short_page_stands_in_the_record():
    found = set(re.findall(r"[+−]?\d+\.\d+", SHORT.replace("2505.00333", "")))
    known = set(re.findall(r"[+−]?\d+\.\d+", RECORD))
    assert len(found) > 60
    assert found <= known


def test_the_short_page_is_two_pages():
    words = re.sub(r"<!--.*?-->|\]\([^)]*\)|!\[[^\]]*|[|*]|---:?", " ", SHORT).split()
    assert 800 <= len(words) <= 1150
    assert len(outline.FINDINGS.figures()) <= 2


def test_both_pages_have_the_markers_and_figures_of_the_outline():
    for page, text in ((outline.FINDINGS, SHORT), (outline.RECORD, RECORD)):
        tables = [block.name for part in page.parts for block in part.blocks if isinstance(block, outline.Table)]
        assert sorted(re.findall(r"<!-- table: ([\w.-]+) -->", text)) == sorted(tables)
        for figure in page.figures():
            assert f"![{figure.caption}](images/study/{figure.name}.png)\n\n*{figure.caption}*\n" in text


def anchors(path):
    """Anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(path):
    """The file without its blocks of code."""
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize(
    "path",
    [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "cluster/README.md"],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_between_documents_lead_somewhere(path):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)) if not re.match(r"https?:|mailto:", link)]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
