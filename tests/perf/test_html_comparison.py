"""The page of a comparison: what it says, and as a real browser shows it."""

import re
import xml.etree.ElementTree

import pytest

from perf.cli import app
from perf.compare import compare
from perf.html.comparison import comparison_html
from perf.html.forest import forests
from perf.references import Side
from perf.report import write_report
from perf.result import Doubt
from serving.terminal import run
from tests.perf import results
from tests.perf.browser import Browser, find_chromium
from tests.perf.test_html import CONTRAST, bad_news

WOBBLE = (0.99, 1.0, 1.01, 1.005, 0.995)


def config(delay):
    return {"name": "x", "max_batch_size": 64, "dynamic_batching": {"max_queue_delay_microseconds": delay}}


def one_run(number, factors, delay, **more):
    """digits at three loads that are as fast as the factors say, at a rate, one that is noisy, one without rounds."""
    points = [
        results.point("digits", load, [1700 * load**0.5 * f * w for w in WOBBLE], 600 / f, 1200 / f)
        for load, f in zip((1, 4, 16), factors, strict=True)
    ]
    doubt = Doubt(code="unstable", message="not stable: throughput differs by 18%")
    points[1] = points[1].model_copy(update={"doubts": (doubt,)})
    points.append(results.point("digits", None, [200.0] * 5, rate_per_s=200.0, distribution="poisson"))
    points.append(results.point("noisy", 8, [40 * w for w in (0.6, 1.4, 1, 1.5, 0.7)]))
    points.append(results.point("once", 1, [10.0], rounds=False))
    configs = {"digits": config(delay), "noisy": config(0)}
    return results.result(*points, number=number, config=configs, revision=f"{number}" * 40, **more)


@pytest.fixture(scope="module")
def sides():
    before, after = one_run(1, (1, 1, 1), 500), one_run(2, (1.3, 1.0, 0.8), 100, machine={"kernel": "6.2"})
    return Side("main", (before,)), Side("HEAD", (after.model_copy(update={"interrupted": "Ctrl-C"}),))


def page_of(sides, **options):
    return comparison_html(compare(*sides, **options), *sides, "bench-repo compare main HEAD --html c.html")


def test_a_line_for_each_ratio_beside_the_line_of_equal_ones(sides):
    throughput, latency = forests(compare(*sides))
    verdicts = {row[0].text: row[-1].text for row in throughput.table.rows}
    assert verdicts["digits, concurrency 1"] == "faster" and verdicts["digits, concurrency 16"] == "slower"
    assert (
        verdicts["digits, concurrency 4"] == "no difference found" and verdicts["once, concurrency 1"] == "cannot tell"
    )
    first = throughput.table.rows[0]
    assert first[1].value == pytest.approx(1.3) and first[2].value < 1.3 < first[3].value
    for drawing in (throughput.wide, throughput.narrow):
        assert drawing.count('class="dot v-faster"') == 1 and drawing.count('class="dot v-slower"') == 1
        assert drawing.count("dot v-same hollow") == 2 and 'class="equal"' in drawing
        assert drawing.count("<path") >= 1  # the noisy one goes on beyond the drawing: an arrow
    names = [row[0].text for row in latency.table.rows]
    assert names[:2] == [
        "digits, concurrency 1: p50",
        "digits, concurrency 1: p99",
    ]  # a mean without an interval is left out
    assert [row[-1].text for row in latency.table.rows][:2] == ["faster", "faster"]
    assert [key.name for key in latency.legend][:2] == ["B is faster", "B is slower"]


def test_what_differs_is_marked(sides):
    text = page_of(sides)
    row = r"<th scope=\"row\"[^>]*>{}</th>.*?</tr>"
    assert "differs" in re.search(row.format("kernel"), text, re.DOTALL)[0]
    assert "same" in re.search(row.format("processor"), text, re.DOTALL)[0]
    differing = re.search(r'id="configuration-table-caption".*?</table>', text, re.DOTALL)[0]
    assert "max_queue_delay_microseconds" in differing and "max_batch_size" not in differing
    assert "B was interrupted (Ctrl-C)" in text and "not stable: throughput differs by 18%" in text
    assert "bench-repo compare main HEAD --html c.html" in text and "perf_analyzer -m digits" in text
    other = sides[1].newest.model_copy(update={"machine": {**sides[1].newest.machine, "cpu": "Another"}})
    forced = page_of((sides[0], Side("HEAD", (other,))), force=True)
    assert "Not alike, compared by --force" in forced and "differs: not to be compared" in forced


def test_two_variants_of_one_run_and_no_configurations():
    both = results.result(results.point("a", 4, [100.0] * 5), results.point("b", 4, [150.0] * 5))
    text = page_of((Side("r:a", (both,), "a"), Side("r:b", (both,), "b")))
    assert "a -&gt; b" in text and "configurations are not in these results" in text
    assert "Neither side's run said anything against its figures" in text.replace("&#39;", "'")


def test_drawings_are_well_formed_and_nothing_comes_from_elsewhere(sides):
    text = page_of(sides)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        root = xml.etree.ElementTree.fromstring(drawing)
        assert root.get("aria-hidden") == "true" or root.find("title").text
    assert not re.search(r"""(src|href)=["'](?!#)|url\(|@import|https?://(?!h:1)""", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len({*ids}) and {*re.findall(r'href="#([^"]+)"', text)} <= {*ids}


def test_as_it_is_typed(sides, tmp_path, capsys):
    for name, side in zip(("a", "b"), sides, strict=True):
        (tmp_path / name).mkdir()
        write_report(side.newest, tmp_path / name)
    page = tmp_path / "c.html"
    assert run(app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--allowance", "2", "--html", str(page)]) == 0
    assert "B is" in capsys.readouterr().out
    assert f"bench-repo compare {tmp_path}/a {tmp_path}/b --allowance 2 --html {page}" in page.read_text()
    assert run(app, ["compare", "nonesuch", "neither", "--html", str(tmp_path / "no" / "c.html")]) == 2
    assert "the page cannot be written" in capsys.readouterr().err  # before anything is looked for


in_browser = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def page(sides, tmp_path_factory):
    path = tmp_path_factory.mktemp("comparison") / "report.html"
    path.write_text(page_of(sides), encoding="utf-8")
    with Browser(find_chromium()) as browser:
        browser.resize(1280)
        browser.scheme("light")
        browser.open(path)
        yield browser


@in_browser
def test_in_a_browser_wide_and_by_keyboard(page):
    page.resize(1280)
    assert bad_news(page) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and set(levels[1:]) == {2}
    headings = "document.querySelectorAll('#verdicts-table-caption ~ thead th')"
    page.evaluate(f"{headings}[4].querySelector('button').focus()")
    page.press("Enter")
    ratios = page.evaluate("[...document.querySelectorAll('#verdicts-table-caption ~ tbody tr')]"
                           ".map(row => +row.cells[4].dataset.value)")  # fmt: skip
    assert ratios == sorted(ratios) and page.evaluate(f"{headings}[4].getAttribute('aria-sort')") == "ascending"
    for _ in range(150):
        page.press("Tab")
        tag, outline = page.evaluate("(e => [e.tagName, getComputedStyle(e).outlineStyle])(document.activeElement)")
        if tag == "BODY":
            break
        assert outline != "none"
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    images = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "image"]
    assert [name.partition(",")[0] for name in images if "against" in name] == ["Throughput", "Latency"]


@in_browser
def test_on_a_phone(page):
    page.resize(390, 844, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shown = "[...document.querySelectorAll('figure > svg')].filter(s => s.getBoundingClientRect().width)"
    assert page.evaluate(f"{shown}.map(s => s.classList[0])") == ["narrow"] * 2
    beyond = (f"{shown}.flatMap(s => [...s.querySelectorAll('text')]).map(t => t.getBoundingClientRect())"
              ".filter(r => r.right > 391 || r.left < -1).length")  # fmt: skip
    assert page.evaluate(beyond) == 0
    # The name and the ratio stand on one line, and do not run into one another.
    names = f"{shown}.flatMap(s => [...s.querySelectorAll('text.name')])"
    box = "getBoundingClientRect()"
    apart = f"{names}.map(t => t.nextElementSibling.{box}.left - t.{box}.right)"
    assert min(page.evaluate(apart)) > 0


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    page.resize(1280)
    page.scheme(scheme)
    least = page.evaluate(CONTRAST.replace(".mark:not(.hollow)", ".dot:not(.hollow)"))
    assert least["text"] >= 4.5 and least["drawn"] >= 4.5 and least["marks"] >= 3
    verdicts = CONTRAST.replace("p, li, td, th, dd, dt, summary, a, h1, h2", ".verdict")
    assert page.evaluate(verdicts.replace(".mark:not(.hollow)", ".dot:not(.hollow)"))["text"] >= 4.5
