"""The suite: `python -m benchmarks` measures everything, `python -m benchmarks NAME …` what is named.

Results go to build/bench, and to docs/performance.md when everything was measured in full. With --url it measures
any server that speaks the contract, from outside.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import structlog

from benchmarks.contract import measure_server
from benchmarks.figure import ROUNDS, Plan
from benchmarks.report import FOLDER, PAGE, list_results, write_page, write_table
from benchmarks.suite import SUBJECTS, run_subject

QUICK_SCALE, QUICK_ROUNDS = 0.02, 2


def read_options() -> argparse.Namespace:
    """What to measure, and how much of it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--scale", type=float, default=1.0, help="counts and times are multiplied by it")
    parser.add_argument("--quick", action="store_true", help="few counts: shows that it runs, not how fast")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="results and stores; on the disk to be measured")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md from the last results of all")
    parser.add_argument("--url", help="a server that speaks the contract, such as http://127.0.0.1:3088")
    parser.add_argument("--key", default=os.environ.get("UMRGEN_API_KEY", ""), help="default: $UMRGEN_API_KEY")
    options = parser.parse_args()
    unknown = set(options.names) - set(SUBJECTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(SUBJECTS)}")
    return options


def main() -> None:
    """Entry."""
    options = read_options()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rounds, scale = (QUICK_ROUNDS, QUICK_SCALE) if options.quick else (options.rounds, options.scale)
    # Quick results lie apart: they are no measurement.
    plan = Plan(options.folder.resolve() / ("quick" if options.quick else ""), rounds, scale)
    plan.folder.mkdir(parents=True, exist_ok=True)
    if options.url:
        print(write_table([figure.as_json() for figure in measure_server(options.url, options.key, plan).figures]))
        return
    names = [] if options.page and not options.names else options.names or list(SUBJECTS)
    for name in names:
        print(f"{name}: {SUBJECTS[name]} …", flush=True)
        report = run_subject(name, plan)
        print(write_table(report["figures"]) + f"\n{report['took_s']:.0f} s\n", flush=True)
    if options.page or (not options.names and not options.quick):
        write_page(PAGE, list_results(plan.folder, list(SUBJECTS)))
        print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
