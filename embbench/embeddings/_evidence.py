"""Evidence codes of GO annotations, and their groups."""

from __future__ import annotations

from collections.abc import Sequence

EVIDENCE = {  # groups of codes as geneontology.org/docs/guide-go-evidence-codes draws them
    "experimental": ("EXP", "IDA", "IPI", "IMP", "IGI", "IEP"),
    "high_throughput": ("HTP", "HDA", "HMP", "HGI", "HEP"),
    "phylogenetic": ("IBA", "IBD", "IKR", "IRD"),
    "computational": ("ISS", "ISO", "ISA", "ISM", "IGC", "RCA"),
    "author": ("TAS", "NAS"),
    "curator": ("IC", "ND"),
    "electronic": ("IEA",),
}


def evidence_codes(names: Sequence[str]) -> tuple[str, ...]:
    """Evidence codes, with the groups of `EVIDENCE` spelt out.

    Examples
    --------
    >>> evidence_codes(["electronic", "IBA"])
    ('IEA', 'IBA')
    """
    return tuple(code for name in names for code in EVIDENCE.get(str(name), (str(name),)))
