"""The report of one run or several: its sections in order, and its file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sidtune import __version__
from sidtune.base.errors import UserError
from sidtune.base.storage import refusing_failed_writes, write_text
from sidtune.base.terminal import starting, warn
from sidtune.data.rows import Split
from sidtune.files.yaml_files import read_yaml
from sidtune.reporting.record import Record, read_records, section_of
from sidtune.runs.files import CONFIG, REPORT

if TYPE_CHECKING:
    from sidtune.reporting.ranking import Named

LIBRARIES = {"altair": "altair", "vl_convert": "vl-convert-python"}
WITHOUT_MODEL = "ranker without model"
INSTALL = "pip install 'sidtune[report]'"


def write_report(
    folders: Sequence[Path], output: Path, split: Split | None = None, said: bool = False
) -> Path:
    """Write the report of these runs into one file, and return its path.

    Args:
        split: whose evaluation is shown; by default test, or what there is.
        said: say that drawing begins, once nothing of the runs is refused.

    Raises:
        UserError: for a missing library, as `read_records`, and for a file that cannot be written.
    """
    missing = [package for module, package in LIBRARIES.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"a report needs {' and '.join(missing)}", f"Run: {INSTALL}")
    if output.is_dir():
        raise UserError(f"{output} is a folder", "Give a file: --output report.html")
    records = read_records(folders, split)
    if said:
        starting("Drawing the report, in about five seconds")
    text = make_page(records)
    with refusing_failed_writes(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, text)
    return output


def leave_report(run: Path) -> Path | None:
    """Write a run's report into its folder, where the libraries are installed and `logging.report`
    does not forbid it; None for a folder without a configuration, which is no run's.

    A report that cannot be written is a warning, since all it shows is there.
    """
    if not (run / CONFIG).is_file() or any(find_spec(module) is None for module in LIBRARIES):
        return None
    try:
        config = read_yaml(run / CONFIG)
        if section_of(config, "logging").get("report") is False:
            return None
        return write_report([run], run / REPORT)
    except UserError as error:
        warn(f"no report was written: {error}")
        return None


def make_page(records: Sequence[Record]) -> str:
    """The page of one run or several."""
    # What they import takes a second, and a missing library is told without.
    from sidtune.reporting import about, comparison, curves, data, examples, page, ranking, sources

    if len(records) == 1:
        (record,) = records
        found = [
            about.about(record),
            ranking.ranking(records),
            ranking.levels(records),
            sources.sources(record),
            examples.examples(record),
            curves.training(records),
            data.data(record),
        ]
        title = record.name
    else:
        found = [
            comparison.comparison(records),
            about.differences(records),
            ranking.ranking(records),
            ranking.levels(records),
            curves.training(records),
        ]
        title = " · ".join(record.name for record in records)
    written = f"{datetime.now():%Y-%m-%d %H:%M}, sidtune {__version__}"
    sections = [section for section in found if section]
    return page.render(title, written, list(_tiles(records)), sections)


def _tiles(records: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """The main figures: of one run beside the ranker without its model and the best baseline, of
    several the NDCG of each.
    """
    from sidtune.reporting.ranking import best_baseline, lines_of, main, main_cutoff, shown

    def tile(metric: str, line: Named) -> tuple[str, str, str]:
        found, k = main(line.summary, metric), main_cutoff(line.summary)
        interval = f"{found.low:.3f}–{found.high:.3f}"
        return f"{metric}@{k}, {line.name}", f"{found.value:.4f}", interval

    for record in records if len(records) == 1 else ():
        if record.report:
            every = lines_of(record.report)
            best = best_baseline(every[1:])
            yield tile("HR", every[0])
            compared = [every[0], *(line for line in every if line.name == WITHOUT_MODEL)]
            for line in [*compared, *([best] if best else [])]:
                yield tile("NDCG", line)
    for line in shown(records) if len(records) > 1 else ():
        yield tile("NDCG", line)
