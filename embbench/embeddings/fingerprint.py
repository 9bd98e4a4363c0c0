"""Chemical structure of compounds: Morgan, atom-pair and path fingerprints, MACCS keys, 2D descriptors (rdkit)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._compounds import counted, match_names, same_structure, smiles_table
from embbench.embeddings._rows import pick

if TYPE_CHECKING:
    from rdkit.Chem import Mol

KINDS = ("morgan", "atom_pair", "rdkit", "maccs", "descriptors")
HASHED = ("morgan", "atom_pair", "rdkit")
FRAGMENTS = ("largest", "all")
WHY = ("invalid_smiles", "not_finite")  # a compound has no vector

# The columns of kind ``descriptors``: a new list needs a new number. Left out of rdkit's list: Ipc (grows to 1e30;
# AvgIpc is its bounded form), Max/Min(Abs)PartialCharge and BCUT2D_* (not a number in compounds of metals and
# metalloids: cisplatin, darinaparsin, ebselen), and what young releases alone have (SPS, Phi, NumSpiroAtoms ...).
DESCRIPTORS_VERSION = 1
_LOGGED = """MolWt HeavyAtomMolWt ExactMolWt NumValenceElectrons HeavyAtomCount MolMR TPSA LabuteASA BertzCT Chi0 Chi0n
Chi0v Chi1 Chi1n Chi1v Chi2n Chi2v Chi3n Chi3v Chi4n Chi4v Kappa1 Kappa2 Kappa3"""
_AREAS = {"PEOE_VSA": 14, "SMR_VSA": 10, "SlogP_VSA": 12, "EState_VSA": 11}  # bins of each family
LOGGED = (*_LOGGED.split(), *(f"{family}{i}" for family, bins in _AREAS.items() for i in range(1, bins + 1)))
_PLAIN = """MaxAbsEStateIndex MaxEStateIndex MinAbsEStateIndex MinEStateIndex VSA_EState1 VSA_EState2 VSA_EState3
VSA_EState4 VSA_EState5 VSA_EState6 VSA_EState7 VSA_EState8 VSA_EState9 VSA_EState10 qed FpDensityMorgan1
FpDensityMorgan2 FpDensityMorgan3 AvgIpc BalabanJ HallKierAlpha FractionCSP3 MolLogP NumRadicalElectrons NHOHCount
NOCount NumAliphaticCarbocycles NumAliphaticHeterocycles NumAliphaticRings NumAromaticCarbocycles
NumAromaticHeterocycles NumAromaticRings NumHAcceptors NumHDonors NumHeteroatoms NumRotatableBonds
NumSaturatedCarbocycles NumSaturatedHeterocycles NumSaturatedRings RingCount"""
_GROUPS = """Al_COO Al_OH Al_OH_noTert ArN Ar_COO Ar_N Ar_NH Ar_OH COO COO2 C_O C_O_noCOO C_S HOCCN Imine NH0 NH1 NH2
N_O Ndealkylation1 Ndealkylation2 Nhpyrrole SH aldehyde alkyl_carbamate alkyl_halide allylic_oxid amide amidine aniline
aryl_methyl azide azo barbitur benzene benzodiazepine bicyclic diazo dihydropyridine epoxide ester ether furan guanido
halogen hdrzine hdrzone imidazole imide isocyan isothiocyan ketone ketone_Topliss lactam lactone methoxy morpholine
nitrile nitro nitro_arom nitro_arom_nonortho nitroso oxazole oxime para_hydroxylation phenol phenol_noOrthoHbond
phos_acid phos_ester piperdine piperzine priamide prisulfonamd pyridine quatN sulfide sulfonamd sulfone term_acetylene
tetrazole thiazole thiocyan thiophene unbrch_alkane urea"""
DESCRIPTORS = (*LOGGED, *_PLAIN.split(), *(f"fr_{group}" for group in _GROUPS.split()))


class Fingerprint(ExtractorDefaults):
    """A compound as a vector of its structure, from a table name -> SMILES.

    ``morgan``: circular substructures up to a radius, hashed to ``bits``; ``atom_pair``: pairs of atoms with their
    distance (a bit for a pair that occurs, no simulated counts); ``rdkit``: paths of 1 to 7 bonds; ``maccs``: the 166
    public keys (rdkit's column 0, never set, is dropped); ``descriptors``: the 196 values of `DESCRIPTORS`, those of
    `LOGGED` (sizes, surface areas and connectivity indices, which spread over orders of magnitude) as
    ``sign(x) ln(1 + |x|)``. Descriptors differ in scale: standardise them (the grid's default features do).

    A name is found as the screen writes it, else without differences of case, Unicode form and white space when all
    rows of that spelling have one structure. SMILES that rdkit refuses, and compounds with a descriptor that is no
    finite number, have no vector and are counted in the provenance.

    Parameters
    ----------
    source : .tsv or .csv (.gz) with one header line; columns as in `embbench.embeddings._compounds`.
    kind : one of `KINDS`.
    radius : of ``morgan``, in bonds; None is 2 (ECFP4).
    bits : width of hashed fingerprints; None is 2048.
    counts : how often a substructure occurs instead of whether it does. False by default: literature compares bits,
        and counts follow the size of a molecule (repeats of one aromatic CH outweigh the groups that tell drugs apart).
    chirality : tell stereoisomers apart (``morgan`` and ``atom_pair``).
    fragment : ``largest`` keeps the parent of a salt: the largest organic fragment, its charges neutralised where
        protons can do it, so that a drug and its salts agree; ``all`` takes the SMILES as it stands.
    names, smiles : columns of the table; None finds the usual ones.

    References
    ----------
    Rogers and Hahn (2010), J. Chem. Inf. Model. 50, 742 (circular fingerprints); Carhart, Smith and Venkataraghavan
    (1985), J. Chem. Inf. Comput. Sci. 25, 64 (atom pairs); Durant et al. (2002), J. Chem. Inf. Comput. Sci. 42, 1273
    (MACCS keys); descriptors and paths: RDKit, https://www.rdkit.org.

    Examples
    --------
    >>> Fingerprint("drugs.tsv", kind="maccs", bits=1024)
    Traceback (most recent call last):
    ValueError: Fingerprint: maccs takes no bits, got 1024
    """

    entity = "compound"
    needs_names = True  # names are matched as the screen writes them, so they must be given

    def __init__(
        self,
        source: str,
        kind: str = "morgan",
        radius: int | None = None,
        bits: int | None = None,
        counts: bool = False,  # noqa: FBT001, FBT002  # parameters come by name from the registry
        chirality: bool = False,  # noqa: FBT001, FBT002
        fragment: str = "largest",
        names: str | None = None,
        smiles: str | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"Fingerprint: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if fragment not in FRAGMENTS:
            raise ValueError(f"Fingerprint: fragment must be one of {', '.join(FRAGMENTS)}, got {fragment!r}")
        taken = {"radius": ("morgan",), "bits": HASHED, "counts": HASHED, "chirality": ("morgan", "atom_pair")}
        given = {"radius": radius, "bits": bits, "counts": counts or None, "chirality": chirality or None}
        for name, value in given.items():
            if value is not None and kind not in taken[name]:
                raise ValueError(f"Fingerprint: {kind} takes no {name}, got {value}")
        for name, value, least in (("radius", radius, 0), ("bits", bits, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"Fingerprint: {name} must be an integer >= {least}, got {value!r}")
        self.path, self.kind, self.fragment = Path(str(source)).expanduser(), kind, fragment
        self.radius, self.bits = 2 if radius is None else radius, 2048 if bits is None else bits
        self.counts, self.chirality = counts, chirality
        self.names, self.smiles = (None if column is None else str(column) for column in (names, smiles))

    def files(self) -> tuple[Path, ...]:
        """The table that the vectors depend on."""
        return (self.path,)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked compounds (None: all of the table); ``train`` is not read.

        Raises
        ------
        UserError
            The table cannot be read, or none of the SMILES found for the names is valid.
        """
        import rdkit

        table = smiles_table(self.path, self.names, self.smiles)
        text = dict(zip(table.names, table.smiles, strict=True))
        found = match_names(names, text, same_structure)
        vectors = {smiles: self._vector(smiles) for smiles in dict.fromkeys(text[row] for row in found.rows.values())}
        known = {name: vectors[text[row]] for name, row in found.rows.items()}
        bad = {
            why: [name for name, vector in known.items() if isinstance(vector, str) and vector == why] for why in WHY
        }
        good = {name: vector for name, vector in known.items() if not isinstance(vector, str)}
        if known and not good:
            first = next(iter(known))
            raise UserError(
                f"{self.path}: expected valid SMILES, found none among {len(known)} compounds, e.g. {first!r} has "
                f"{text[found.rows[first]][:60]!r}; is that the column of SMILES? (smiles=COLUMN)"
            )
        facts: dict[str, Any] = {
            "source": self.path.name,
            "holds": "knowledge",
            "kind": self.kind,
            "rdkit": rdkit.__version__,
            "compounds_in_table": len(text),
            "without_smiles": counted(table.blank),
            **found.facts(),
            **{why: counted(lost) for why, lost in bad.items()},
        }
        if self.kind == "descriptors":
            facts["descriptors_version"] = DESCRIPTORS_VERSION
        matrix = np.stack(list(good.values())) if good else np.empty((0, self.width))
        return pick(list(good), list(good), matrix, self.entity, facts)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return {"maccs": 166, "descriptors": len(DESCRIPTORS)}.get(self.kind, self.bits)

    def _vector(self, smiles: str) -> np.ndarray | str:
        """Vector of shape (width,), float64, or why there is none (one of `WHY`)."""
        from rdkit import rdBase

        with rdBase.BlockLogs():  # a refused SMILES is counted; its log line would be a second, unasked message
            molecule = read_molecule(smiles, self.fragment)
            if molecule is None:
                return "invalid_smiles"
            values = self._values(molecule)
        return values if np.isfinite(values.astype(np.float32)).all() else "not_finite"

    def _values(self, molecule: Mol) -> np.ndarray:
        from rdkit.Chem import rdMolDescriptors

        if self.kind == "descriptors":
            return descriptors(molecule)
        if self.kind == "maccs":
            return np.array(rdMolDescriptors.GetMACCSKeysFingerprint(molecule).ToList(), dtype=np.float64)[1:]
        generator = self._generator()
        of = generator.GetCountFingerprintAsNumPy if self.counts else generator.GetFingerprintAsNumPy
        return np.asarray(of(molecule), dtype=np.float64)

    def _generator(self) -> Any:
        from rdkit.Chem import rdFingerprintGenerator as rd

        if self.kind == "morgan":
            return rd.GetMorganGenerator(radius=self.radius, fpSize=self.bits, includeChirality=self.chirality)
        if self.kind == "atom_pair":
            # Simulated counts fold the chirality away where the width is a power of two (rdkit 2026.09).
            return rd.GetAtomPairGenerator(fpSize=self.bits, includeChirality=self.chirality, countSimulation=False)
        return rd.GetRDKitFPGenerator(minPath=1, maxPath=7, fpSize=self.bits)


def read_molecule(smiles: str, fragment: str) -> Mol | None:
    """The molecule of a SMILES, or None where rdkit refuses it or it has no atom.

    Parameters
    ----------
    smiles : as written; a name behind it is ignored.
    fragment : ``largest`` (the neutral parent of a salt) or ``all``.

    Examples
    --------
    >>> from rdkit import Chem
    >>> Chem.MolToSmiles(read_molecule("[Na+].OC1=CC=CC=C1C([O-])=O", "largest"))
    'O=C(O)c1ccccc1O'
    """
    from rdkit import Chem
    from rdkit.Chem.MolStandardize import rdMolStandardize

    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        return None
    if fragment == "all":
        return molecule
    parent = rdMolStandardize.LargestFragmentChooser(preferOrganic=True).choose(molecule)
    return rdMolStandardize.Uncharger().uncharge(parent)


def descriptors(molecule: Mol) -> np.ndarray:
    """The values of `DESCRIPTORS`, shape (196,), float64, those of `LOGGED` as ``sign(x) ln(1 + |x|)``.

    Raises
    ------
    UserError
        The installed rdkit lacks a descriptor.
    """
    import rdkit
    from rdkit.Chem import Descriptors

    functions: dict[str, Callable[[Mol], float]] = dict(Descriptors.descList)
    if absent := [name for name in DESCRIPTORS if name not in functions]:
        raise UserError(
            f"rdkit {rdkit.__version__}: expected {len(DESCRIPTORS)} descriptors, it lacks {', '.join(absent[:4])}; "
            "install a newer rdkit"
        )
    values = np.array([functions[name](molecule) for name in DESCRIPTORS], dtype=np.float64)
    n = len(LOGGED)
    values[:n] = np.sign(values[:n]) * np.log1p(np.abs(values[:n]))
    return values
