"""The page of a result: its figures, and as a real browser shows it: wide, narrow, dark, by keyboard, offline."""

import re
import xml.etree.ElementTree

import pytest

from perf.cli import app
from perf.html.breakdown import bars_of, breakdown
from perf.html.charts import latency_histogram, pareto_front, throughput_against_latency
from perf.html.page import configuration_table, results_table, to_html
from perf.html.svg import Scale, Spell, scale_of
from perf.report import write_report
from serving.terminal import run
from tests.perf import results
from tests.perf.browser import Browser, find_chromium

VARIANTS = {
    "digits_fp32": (0.982, 620_000, 1.0),
    "digits_int8": (0.979, 160_000, 0.7),
    "digits_bad": (0.97, 700_000, 1.2),
}


def config(delay, count=1):
    batching = {"max_queue_delay_microseconds": delay, "preferred_batch_size": [8, 32]}
    return {"name": "x", "max_batch_size": 64, "dynamic_batching": batching, "instance_group": [{"count": count}]}


@pytest.fixture(scope="module")
def made():
    """Three variants at three loads, an ensemble, a point that failed, doubts."""
    points, about, configs = [], {}, {}
    for name, (accuracy, size, factor) in VARIANTS.items():
        for concurrency in (1, 4, 16):
            rates = [1700 * concurrency**0.5 / factor * wobble for wobble in (0.99, 1.0, 1.01, 1.005, 0.995)]
            p50_us = 600 * factor * concurrency**0.5
            shape = results.histogram(5, 60, 30, 5, width_us=p50_us)
            latency = results.latency(p50_us, 2 * p50_us, histogram=shape)
            points.append(results.point(name, concurrency, rates, p50_us, 2 * p50_us, latency=latency))
        about[name] = {"variant": name, "accuracy": accuracy, "size_bytes": size}
        configs[name] = config(100 if name.endswith("int8") else 500)
    steps = (results.side("decode"), results.side("digits_fp32"))
    points.append(results.point("scene", 1, steps=steps, latency=results.latency(500.0, 900.0, mean_us=700.0)))
    failed = {"what": "perf_analyzer gave no measurement", "fix": "look at the server's log"}
    points.append(results.point("scene", 16, inferences_per_s=None, latency=None, error=failed))
    doubt = results.Doubt(code="unstable", message="not stable: 18%")
    points[0] = points[0].model_copy(update={"doubts": (doubt,)})
    busy = (results.Doubt(code="busy_machine", message="the machine was busy"),)
    return results.result(*points, about=about, config=configs, doubts=busy, revision="e" * 40)


def test_a_curve_a_model_with_intervals_and_the_same_as_a_table(made):
    figure = throughput_against_latency(made)
    assert [key.name for key in figure.legend] == [*VARIANTS, "scene"]
    assert figure.wide.count('class="curve') == 3 and figure.wide.count("whisker") == 18  # 9 points, both ways
    first = [cell.text for cell in figure.table.rows[0]]
    assert first[:2] == ["digits_fp32", "concurrency 1"] and re.match(r"1,700 \[1,6\d\d, 1,7\d\d\]", first[2])
    assert figure.table.rows[0][3].value == 1200 and first[3].startswith("1.2 [")


def test_the_front_is_what_nothing_beats(made):
    figure = pareto_front(made)
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in figure.table.rows}
    assert rows["digits_fp32"] == ["0.9820", "0.6", "0.62", "yes"]
    assert rows["digits_int8"] == ["0.9790", "0.42", "0.16", "yes"]
    assert rows["digits_bad"][-1] == "no" and figure.wide.count("hollow") == 1
    assert "at concurrency 1" in figure.wide
    sizes = {name: {"size_bytes": size} for name, (_, size, _) in VARIANTS.items()}
    unknown = [run.model_copy(update={"about": sizes.get(run.model, {})}) for run in made.models]
    figure = pareto_front(made.model_copy(update={"models": tuple(unknown)}))
    assert figure.title == "Latency and size" and "Accuracy is not known" in figure.about
    assert [row[4].text for row in figure.table.rows] == ["no", "yes", "no"]
    assert pareto_front(results.result(results.point())) is None
    # What takes other inputs is no choice in place of these.
    other = [
        run.model_copy(update={"config": {"input": [{"name": "bytes"}]}}) if run.model == "digits_bad" else run
        for run in made.models
    ]
    front = pareto_front(made.model_copy(update={"models": tuple(other)}))
    assert [row[0].text for row in front.table.rows] == ["digits_fp32", "digits_int8"]


def test_the_histogram_is_a_share_of_the_requests_at_one_load(made):
    figure = latency_histogram(made)
    assert "At concurrency 16" in figure.about and figure.wide.count('class="area') == 3
    shares = [row[2].value for row in figure.table.rows if row[0].text == "digits_fp32"]
    assert shares == [5, 60, 30, 5]
    assert latency_histogram(results.result(results.point())) is None


def test_where_the_time_goes_adds_up_to_what_the_client_saw(made):
    bar = next(bar for bar in bars_of(made) if bar.name == "scene, concurrency 1")
    assert bar.parts_us == (120, 10, 200, 30, 340) and bar.total_us == 700
    steps = [bar for bar in bars_of(made) if bar.step]
    assert [step.name for step in steps] == [f"scene, concurrency 1: step {name}" for name in ("decode", "digits_fp32")]
    assert steps[0].parts_us[-1] is None and breakdown(made).table.rows[-1][-2].text == "-"
    untold = results.result(results.point(server=None), results.point("b", server=None))
    assert breakdown(untold) is None


def test_what_the_configurations_differ_in(made):
    table = configuration_table(made)
    assert table.headings == ("field", *VARIANTS)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["dynamic_batching.max_queue_delay_microseconds", "500", "100", "500"]
    ]
    alone = results.result(results.point(), config={"digits": config(100, 2)})
    fields = {row[0].text: row[1].text for row in configuration_table(alone).rows}
    assert fields["instance_group[0].count"] == "2" and fields["dynamic_batching.preferred_batch_size"] == "8, 32"
    assert configuration_table(results.result(results.point())) is None


def test_the_table_leaves_out_what_nobody_knows(made):
    table = results_table(made)
    assert "p99.9 ms" not in table.headings and "wrong answers" not in table.headings and "doubts" in table.headings
    assert len(table.rows) == 11 and table.rows[-1][2].text == "failed"
    checked = results.result(results.point(checked=200, wrong=3))
    assert results_table(checked).rows[0][-1].text == "3 of 200" and results_table(checked).rows[0][-1].kind == "bad"


@pytest.mark.parametrize(("low", "high", "log"), [(0, 7.3, False), (0, 0.013, False), (0.2, 90, True), (3, 5e6, True)])
def test_ticks_are_round_and_within_the_scale(low, high, log):
    scale = Scale(low, high, 0, 100, log=log)
    ticks = scale.ticks(5)
    assert 2 <= len(ticks) <= 12 and all(low <= tick <= high * 1.001 for tick in ticks)
    assert [scale(tick) for tick in ticks] == sorted(scale(tick) for tick in ticks)
    assert scale(low) == 0 and scale(high) == 100 and scale(high * 2) == 100
    assert all(len(Spell()(tick)) < 8 for tick in ticks)


def test_a_scale_of_equal_values_has_room():
    for values in ([5.0, 5.0], [0.0, 0.0], [0.982, 0.982]):
        for zero in (True, False):
            scale = scale_of(values, 0, 100, zero=zero)
            assert (scale.low < scale.high and 0 < scale(values[0]) < 100) or values[0] == 0


def test_one_point_with_nothing_known_is_a_page(made):
    bare = results.point(rates=(5.0,), server=None, latency=results.latency())
    text = to_html(results.result(bare, machine={"cpu": None, "memory_bytes": None}))
    assert "<h1>Benchmark of digits</h1>" in text and "not in this result" in text and "<svg" not in text
    broken = results.point(inferences_per_s=None, latency=None, server=None, error={"what": "no answer"})
    assert "no answer" in to_html(results.result(broken))


def test_drawings_are_well_formed_and_named(made):
    for drawing in re.findall(r"<svg.*?</svg>", to_html(made), re.DOTALL):
        root = xml.etree.ElementTree.fromstring(drawing)
        assert root.get("aria-hidden") == "true" or root.find("title").text


def test_nothing_on_the_page_comes_from_elsewhere(made):
    text = to_html(made)
    assert not re.search(r"""(src|href)=["'](?!#)|url\(|@import|https?://(?!h:1)""", text)
    assert "default-src 'none'" in text


def test_as_it_is_typed(made, tmp_path, capsys):
    write_report(made, tmp_path)
    assert (tmp_path / "report.html").read_text() == to_html(made)
    page = tmp_path / "again.html"
    assert run(app, ["report", f"{tmp_path}:digits_int8", "--html", str(page), "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("digits_int8") == 3 and "digits_bad" not in page.read_text()
    for place, got in ((tmp_path, "a folder"), (tmp_path / "no" / "a.html", "no folder")):
        assert run(app, ["--url", "127.0.0.1:1", "--html", str(place)]) == 2
        error = capsys.readouterr().err
        assert "the page cannot be written" in error and got in error


@pytest.fixture(scope="module")
def browser():
    with Browser(find_chromium()) as running:
        yield running


@pytest.fixture
def page(browser, made, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(to_html(made), encoding="utf-8")
    browser.resize(1280)
    browser.scheme("light")
    browser.open(path)
    return browser


def bad_news(browser):
    """Requests but that of the page itself, exceptions, and what the console says."""
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    names = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    return [url for url in asked if not url.endswith("/report.html")], [
        event for event in browser.events if event.get("method") in names
    ]


in_browser = pytest.mark.xdist_group("browser")


@in_browser
def test_it_fetches_nothing_and_says_nothing_bad(page):
    assert bad_news(page) == ([], [])
    assert page.evaluate("document.compatMode") == "CSS1Compat"
    assert page.evaluate("document.querySelectorAll('figure').length") == 4


FIRST_COLUMNS = """[...document.querySelectorAll('#results-table-caption ~ tbody tr')]
    .map(row => [...row.cells].map(cell => cell.textContent))"""


@in_browser
def test_sorting_by_mouse_and_by_keyboard(page):
    heading = "document.querySelectorAll('#results-table-caption ~ thead th')[2]"
    page.evaluate(f"{heading}.querySelector('button').click()")
    assert page.evaluate(f"{heading}.getAttribute('aria-sort')") == "ascending"

    def speeds():
        return [row[2] for row in page.evaluate(FIRST_COLUMNS)]

    values = [float(each.split(" [")[0].replace(",", "")) for each in speeds()[:-1]]
    assert values == sorted(values) and speeds()[-1] == "failed"
    page.evaluate(f"{heading}.querySelector('button').focus()")
    page.press("Enter")
    assert page.evaluate(f"{heading}.getAttribute('aria-sort')") == "descending"
    values = [float(each.split(" [")[0].replace(",", "")) for each in speeds()[:-1]]
    assert values == sorted(values, reverse=True) and speeds()[-1] == "failed"  # what is not known stays last
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "p50 ms"
    page.press("Enter")
    assert page.evaluate("document.querySelectorAll('#results-table-caption ~ thead th[aria-sort]').length") == 1
    page.evaluate("document.querySelectorAll('#results-table-caption ~ thead th')[0].firstElementChild.click()")
    names = [row[0] for row in page.evaluate(FIRST_COLUMNS)]
    assert names == sorted(names)


@in_browser
def test_everything_can_be_reached_and_seen_with_the_keyboard(page):
    seen = []
    for _ in range(200):
        page.press("Tab")
        tag, text, outline = page.evaluate(
            "(e => [e.tagName, e.textContent.trim(), getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        if tag == "BODY":
            break
        assert outline != "none", f"{tag} {text} has the focus, and nothing shows it"
        seen.append((tag, text))
    assert seen[0] == ("A", "Skip to the results")
    assert {tag for tag, _ in seen} >= {"A", "BUTTON", "SUMMARY", "DIV"}
    assert sum(tag == "SUMMARY" for tag, _ in seen) == page.evaluate("document.querySelectorAll('summary').length")


@in_browser
def test_every_drawing_has_a_name_and_a_table(page):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        role: [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == role]
        for role in ("image", "button", "link", "heading")
    }
    assert len(named["image"]) >= 4 and all(all(names) for names in named.values())
    assert named["heading"][0].startswith("Benchmark of 4 models")
    rows = page.evaluate("[...document.querySelectorAll('figure + details tbody')].map(body => body.rows.length)")
    assert len(rows) == 4 and min(rows) >= 3
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and set(levels[1:]) == {2}


@in_browser
def test_on_a_phone_it_is_no_wider_than_the_screen_and_readable(page, tmp_path):
    page.resize(390, 844, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shown = "[...document.querySelectorAll('figure > svg')].filter(s => s.getBoundingClientRect().width)"
    assert page.evaluate(f"{shown}.map(s => s.classList[0])") == ["narrow"] * 4
    heights = page.evaluate(f"{shown}.flatMap(s => [...s.querySelectorAll('text')]).map(t => t.getBoundingClientRect())"
                            ".map(r => Math.min(r.width, r.height)).filter(h => h)")  # fmt: skip
    assert len(heights) > 40
    scale = page.evaluate(f"{shown}[0].getBoundingClientRect().width / {shown}[0].viewBox.baseVal.width")
    assert 12 * scale >= 11  # pixels of the smallest text in a drawing
    wide = page.evaluate(
        f"{shown}.map(s => [...s.querySelectorAll('text')].filter(t => t.getBoundingClientRect().right > 390).length)"
    )
    assert wide == [0] * 4
    page.screenshot(tmp_path / "phone.png")
    assert (tmp_path / "phone.png").stat().st_size > 10_000


CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05) };
  const paper = getComputedStyle(document.body).backgroundColor;
  const of = (selector, property) => [...document.querySelectorAll(selector)]
    .filter(e => e.getBoundingClientRect().width).map(e => ratio(getComputedStyle(e)[property], paper));
  return {text: Math.min(...of("p, li, td, th, dd, dt, summary, a, h1, h2", "color")),
          drawn: Math.min(...of("figure svg text", "fill")),
          marks: Math.min(...of("figure .mark:not(.hollow)", "fill"))};
})()"""


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    page.scheme(scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 25)"}[scheme]
    least = page.evaluate(CONTRAST)
    assert least["text"] >= 4.5 and least["drawn"] >= 4.5 and least["marks"] >= 3  # WCAG 2.1 AA


@in_browser
def test_names_are_text_whatever_they_are(browser, tmp_path):
    evil = '<img src=x onerror="document.title=1">"\'</script><script>document.title="owned"</script>'
    points = [results.point(evil, number, error=None) for number in (1, 4)]
    made = results.result(*points, about={evil: {"variant": evil}}, config={evil: {evil: [{evil: evil}]}})
    path = tmp_path / "report.html"
    path.write_text(to_html(made), encoding="utf-8")
    browser.open(path)
    assert bad_news(browser) == ([], [])
    assert browser.evaluate("document.title") == f"Benchmark of {evil}"
    assert browser.evaluate("document.querySelectorAll('script').length") == 1
    assert browser.evaluate("document.querySelectorAll('img').length") == 0


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_the_page_of_a_real_run(browser, server, tmp_path, capsys):
    page = tmp_path / "report.html"
    arguments = ["--url", server.http_url, "--model", "twice", "--model", "scale", "--concurrency", "1,2"]
    assert run(app, [*arguments, "--seconds", "0.3", "--rounds", "2", "--no-history", "--html", str(page)]) == 0
    browser.open(page)
    assert bad_news(browser) == ([], [])
    titles = browser.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert {"Results", "Throughput against latency", "Where a request's time goes", "Machine", "Commands"} <= {*titles}
    assert "step scale" in browser.evaluate("document.querySelector('#breakdown').parentElement.textContent")
    assert "perf_analyzer" in browser.evaluate("document.querySelector('.commands pre').textContent")
