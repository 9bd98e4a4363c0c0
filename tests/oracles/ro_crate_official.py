"""What roc-validator (the validator of the RO-Crate community) says of crates, against Process Run Crate, offline.

    .oracles/ro_crate/bin/python tests/oracles/ro_crate_official.py CRATE... [--severity RECOMMENDED]

prints one JSON line per crate: ``passed`` and ``issues``. Without crates it checks that the validator bites: a least
crate passes, the same without instrument, without profile or with a file that is not there does not.

The validator fetches the JSON-LD context of the crate. No test may, so it is put into the validator's own cache
beforehand: the context that the rocrate library carries (of RO-Crate 1.3, which only adds terms to that of 1.1).
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests
import rocrate
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from rocrate_validator import models, services
from urllib3 import HTTPResponse

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
LEAST: dict[str, Any] = {
    "@context": CONTEXT,
    "@graph": [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": "least",
            "description": "least",
            "datePublished": "2026-01-01",
            "license": {"@id": "https://spdx.org/licenses/MIT"},
            "conformsTo": {"@id": PROFILE},
            "hasPart": {"@id": "out.txt"},
            "mentions": {"@id": "#made"},
        },
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": "https://spdx.org/licenses/MIT", "@type": "CreativeWork", "name": "MIT"},
        {"@id": "out.txt", "@type": "File", "name": "out"},
        {"@id": "#tool", "@type": "SoftwareApplication", "name": "tool", "version": "1"},
        {"@id": "#made", "@type": "CreateAction", "instrument": {"@id": "#tool"}, "result": {"@id": "out.txt"}},
    ],
}


class Carried(HTTPAdapter):
    """Answers for the server of the context with the file that the rocrate library carries; reaches no network."""

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        """The context, whatever is asked."""
        body = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
        headers = {"Content-Type": "application/ld+json"}
        raw = HTTPResponse(io.BytesIO(body), headers, status=200, preload_content=False, request_url=request.url)
        return self.build_response(request, raw)


def fill_cache(folder: Path) -> Path:
    """A cache of the validator that holds the context, as both of its readers ask for it."""
    with CachedSession(str(folder / "http"), backend="sqlite", expire_after=-1) as session:
        session.mount("https://", Carried())
        for accept in ("application/ld+json, application/json, */*;q=0.1", "application/ld+json, application/json"):
            session.get(CONTEXT, headers={"Accept": accept}, timeout=5)
    return folder / "http"


def validate(crate: Path, cache: Path, severity: str) -> dict[str, Any]:
    """Whether a crate holds to the profile, and what it breaks."""
    settings = services.ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier="process-run-crate",
        requirement_severity=models.Severity[severity],
        offline=True,
        cache_path=cache,
    )
    found = services.validate(settings)
    issues = [f"{i.severity.name} {i.check.identifier}: {i.message} ({i.violatingEntity})" for i in found.get_issues()]
    return {"passed": found.passed(), "issues": issues}


def bites(folder: Path, cache: Path) -> None:
    """The least crate passes, and each of three faults is seen."""

    def passes(change: Any) -> bool:
        graph = copy.deepcopy(LEAST)
        change({entity["@id"]: entity for entity in graph["@graph"]})
        with tempfile.TemporaryDirectory(dir=folder) as crate:
            (Path(crate) / "out.txt").write_text("x", encoding="utf-8")
            (Path(crate) / "ro-crate-metadata.json").write_text(json.dumps(graph), encoding="utf-8")
            return validate(Path(crate), cache, "REQUIRED")["passed"]

    faults = {
        "no instrument": lambda e: e["#made"].pop("instrument"),
        "no profile": lambda e: e["./"].pop("conformsTo"),
        "a file that is not there": lambda e: (
            e["out.txt"].update({"@id": "gone.txt"}) or e["./"].update({"hasPart": {"@id": "gone.txt"}})
        ),
    }
    if not passes(lambda e: None):
        raise SystemExit("the least crate does not pass")
    for name, fault in faults.items():
        if passes(fault):
            raise SystemExit(f"the validator does not see: {name}")
    sys.stdout.write(f"roc-validator passes the least crate and sees {len(faults)} faults\n")


def main() -> None:
    """Validate the crates of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("crates", nargs="*", type=Path)
    parser.add_argument("--severity", default="REQUIRED")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = fill_cache(Path(folder))
        for crate in given.crates:
            sys.stdout.write(json.dumps(validate(crate, cache, given.severity)) + "\n")
        if not given.crates:
            bites(Path(folder), cache)


if __name__ == "__main__":
    main()
