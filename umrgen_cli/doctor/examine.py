"""Runs every check. One that breaks is a finding of its own, and hinders none of the others."""

from __future__ import annotations

from umrgen_cli.doctor import (
    backups,
    configuration,
    folder,
    gpu,
    machine,
    processes,
    program,
    store,
    units,
    weights,
    work,
)
from umrgen_cli.doctor.findings import Check, Finding, Patient, problem

AREAS: dict[str, tuple[Check, ...]] = {
    "Configuration": (configuration.check_parsing, configuration.check_exposure, configuration.check_openings),
    "Program": (program.check_python, program.check_sqlite, program.check_packages),
    "Store": (
        store.check_database,
        folder.check_folder,
        store.check_lock,
        store.check_last_stop,
        backups.check_backups,
    ),
    "Machine": (machine.check_disk, machine.check_descriptors, machine.check_clock),
    "Models": (weights.check_models, gpu.check_gpu, gpu.check_torch, gpu.check_painting),
    "Processes": (
        units.check_units,
        processes.check_living,
        processes.check_web_tier,
        processes.check_workers,
        processes.check_logs,
    ),
    "Work": (work.check_keys, work.check_queue, work.check_outcomes),
}


def examine(patient: Patient) -> dict[str, list[Finding]]:
    """Every finding, by area."""
    findings = {area: [one for check in checks for one in _run(check, patient)] for area, checks in AREAS.items()}
    if patient.overview is None:
        findings["Work"].append(
            problem(
                "jobs and keys", f"not looked at: {patient.store_problem or 'there is no store'}", "see Store above"
            )
        )
    return findings


def _run(check: Check, patient: Patient) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(patient))
    except Exception as error:  # noqa: BLE001 - whatever is broken here, the others must still be said
        name = check.__name__.removeprefix("check_").replace("_", " ")
        seen = f"could not be looked at: {type(error).__name__}: {error}"
        found.append(problem(name, seen, "try again as the owner of the data directory, or as root"))
    return found
