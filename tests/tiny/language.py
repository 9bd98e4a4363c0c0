"""Tiny encoders in the published layouts: MiniLM (BERT), ESM-2, ChemBERTa (RoBERTa); written without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from embbench.checks._toy import COMPOUNDS, KNOWN

WIDTH, LAYERS, HEADS, INNER = 16, 2, 4, 64  # as published, the inner width is four times the width
ESM_VOCABULARY = [
    "<cls>",
    "<pad>",
    "<eos>",
    "<unk>",
    "L",
    "A",
    "G",
    "V",
    "S",
    "E",
    "R",
    "T",
    "I",
    "D",
    "P",
    "K",
    "Q",
    "N",
    "F",
    "Y",
    "M",
    "H",
    "W",
    "C",
    "X",
    "B",
    "U",
    "Z",
    "O",
    ".",
    "-",
    "<null_1>",
    "<mask>",
]
SMILES = {
    COMPOUNDS[0]: "Cc1c(C)c2C(=NC(CC(=O)OC(C)(C)C)c3nnc(C)n3c2s1)c4ccc(Cl)cc4",
    COMPOUNDS[1]: "CC(=O)Nc1ccc(O)cc1",
    "imatinib": "Cc1ccc(cc1Nc2nccc(n2)c3cccnc3)NC(=O)c4ccc(cc4)CN5CCN(CC5)C",
    "sorafenib": "CNC(=O)c1cc(ccn1)Oc2ccc(cc2)NC(=O)Nc3ccc(c(c3)C(F)(F)F)Cl",
    "Trametinib": "CC(=O)Nc1cccc(c1)N2C(=O)N(C3CC3)C(=O)C4=C2C(C)=C(C)N(C)C4=O",
    "vorinostat": "ONC(=O)CCCCCCC(=O)Nc1ccccc1",
}


class Weights:
    """Draws every tensor, layer norms and biases too, by name and in one order."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, name: str, *shape: int) -> None:
        """A random tensor; layer-norm scales around one."""
        centre = 1.0 if name.endswith(("LayerNorm.weight", "layer_norm.weight", "norm_after.weight")) else 0.0
        spread = 0.5 if len(shape) == 2 else 0.2
        self.tensors[name] = (centre + spread * self.rng.standard_normal(shape)).astype(np.float32)

    def linear(self, name: str, out: int, inner: int) -> None:
        """Weight and bias."""
        self.add(f"{name}.weight", out, inner)
        self.add(f"{name}.bias", out)

    def norm(self, name: str) -> None:
        """Scale and shift of a layer norm."""
        self.add(f"{name}.weight", WIDTH)
        self.add(f"{name}.bias", WIDTH)

    def layers(self, prefix: str, esm: bool = False) -> None:
        """The transformer layers under BERT's names; ESM's norms lie before its blocks."""
        for i in range(LAYERS):
            layer = f"{prefix}encoder.layer.{i}"
            for part in ("query", "key", "value"):
                self.linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
            if esm:
                step = 10000.0 ** (-np.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))
                self.tensors[f"{layer}.attention.self.rotary_embeddings.inv_freq"] = step.astype(np.float32)
            self.linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
            self.norm(f"{layer}.attention.{'' if esm else 'output.'}LayerNorm")
            self.linear(f"{layer}.intermediate.dense", INNER, WIDTH)
            self.linear(f"{layer}.output.dense", WIDTH, INNER)
            self.norm(f"{layer}.{'' if esm else 'output.'}LayerNorm")


def _json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, str(path), metadata={"format": "pt"})


def _config(kind: str, head: str, **more: Any) -> dict[str, Any]:
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
    }
    drop = {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "initializer_range": 0.02}
    return {"architectures": [head], "model_type": kind, "hidden_act": "gelu", **drop, **sizes, **more}


def minilm(folder: Path, seed: int = 1, positions: int = 64, length: int = 32) -> Path:
    """The files of sentence-transformers/all-MiniLM-L6-v2: BERT, WordPiece, mean pooling, unit length."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [*"abcdefghijklmnopqrstuvwxyz0123456789", *".,:;()-+/'"]
    words = ["tumor", "protein", "kinase", "receptor", "factor", "regulation", "of", "the", "binding"]
    head = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*head, *plain, *(f"##{t}" for t in plain[:36]), *words, "##ase", "##ing", "##tion"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    special["mask_token"] = "[MASK]"
    _json(folder / "special_tokens_map.json", special)
    options = {"do_lower_case": True, **special, "tokenize_chinese_chars": True, "strip_accents": None}
    _json(folder / "tokenizer_config.json", {**options, "tokenizer_class": "BertTokenizer", "model_max_length": 512})
    _json(folder / "tokenizer.json", _wordpiece(vocabulary))
    more = {"max_position_embeddings": positions, "type_vocab_size": 2, "vocab_size": len(tokens)}
    _json(folder / "config.json", _config("bert", "BertModel", layer_norm_eps=1e-12, pad_token_id=0, **more))
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    _json(folder / "modules.json", [{"idx": i, "name": str(i), **module} for i, module in enumerate(modules)])
    _json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    modes = {f"pooling_mode_{m}": m == "mean_tokens" for m in ("cls_token", "mean_tokens", "max_tokens")}
    _json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **modes})
    weights = Weights(seed)
    for name, rows in (("word", len(tokens)), ("position", positions), ("token_type", 2)):
        weights.add(f"embeddings.{name}_embeddings.weight", rows, WIDTH)
    weights.norm("embeddings.LayerNorm")
    weights.layers("")
    weights.linear("pooler.dense", WIDTH, WIDTH)
    weights.tensors["embeddings.position_ids"] = np.arange(positions, dtype=np.int64)[None]
    _safetensors(folder / "model.safetensors", weights.tensors)
    return folder


def _wordpiece(vocabulary: dict[str, int]) -> dict[str, Any]:
    """tokenizer.json as published, with the cut and the padding to 128 that the file of MiniLM asks for."""
    pieces = [{"SpecialToken": {"id": t, "type_id": 0}} for t in ("[CLS]", "[SEP]")]
    single = [pieces[0], {"Sequence": {"id": "A", "type_id": 0}}, pieces[1]]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    return {
        "version": "1.0",
        "truncation": {"max_length": 128, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
        | {"pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [{"id": vocabulary[t], "content": t, **flags} for t in special],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        | {"strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single}
        | {"special_tokens": {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        | {"max_input_chars_per_word": 100, "vocab": vocabulary},
    }


def esm2(folder: Path, seed: int = 2) -> Path:
    """The files of facebook/esm2_t6_8M_UR50D: EsmForMaskedLM with rotary positions and token dropout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(ESM_VOCABULARY), encoding="utf-8")
    special = {f"{t}_token": f"<{t}>" for t in ("cls", "eos", "mask", "pad", "unk")}
    _json(folder / "special_tokens_map.json", special)
    _json(folder / "tokenizer_config.json", {**special, "model_max_length": 10**30, "tokenizer_class": "EsmTokenizer"})
    more = {"classifier_dropout": None, "emb_layer_norm_before": False, "is_folding_model": False, "mask_token_id": 32}
    more |= {"pad_token_id": 1, "token_dropout": True, "vocab_size": 33, "max_position_embeddings": 1026}
    rotary = {"position_embedding_type": "rotary", "layer_norm_eps": 1e-5, "torch_dtype": "float32", "vocab_list": None}
    _json(folder / "config.json", _config("esm", "EsmForMaskedLM", **more, **rotary))
    weights = Weights(seed)
    weights.add("esm.embeddings.word_embeddings.weight", 33, WIDTH)
    weights.add("esm.embeddings.position_embeddings.weight", 1026, WIDTH)  # in the published files, and never used
    weights.layers("esm.", esm=True)
    weights.norm("esm.encoder.emb_layer_norm_after")
    weights.linear("esm.contact_head.regression", 1, LAYERS * HEADS)
    weights.linear("lm_head.dense", WIDTH, WIDTH)
    weights.norm("lm_head.layer_norm")
    weights.add("lm_head.bias", 33)
    _safetensors(folder / "model.safetensors", weights.tensors)
    return folder


def chemberta(folder: Path, seed: int = 3, regression: bool = False) -> Path:
    """The files of seyonec/ChemBERTa-zinc-base-v1, or with ``regression`` the head of DeepChem/ChemBERTa-77M-MTR.

    RoBERTa with a byte-level BPE in vocab.json and merges.txt, and weights in pytorch_model.bin.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(i) for i in range(33, 127)]
    pairs = ["C C", "c c", "c 1", "= O", "( =O", "N C"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, *(pair.replace(" ", "") for pair in pairs)]
    _json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n", encoding="utf-8")
    _json(folder / "tokenizer_config.json", {"max_len": 512, "model_max_length": 512})
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>"}
    _json(folder / "special_tokens_map.json", {**special, "cls_token": "<s>", "mask_token": "<mask>"})
    more = {"vocab_size": len(tokens), "max_position_embeddings": 66, "type_vocab_size": 1, "layer_norm_eps": 1e-12}
    head = "RobertaForRegression" if regression else "RobertaForMaskedLM"
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    _json(folder / "config.json", _config("roberta", head, **more, **ends))
    weights = Weights(seed)
    for name, rows in (("word", len(tokens)), ("position", 66), ("token_type", 1)):
        weights.add(f"roberta.embeddings.{name}_embeddings.weight", rows, WIDTH)
    weights.norm("roberta.embeddings.LayerNorm")
    weights.layers("roberta.")
    if regression:
        weights.add("norm_mean", 9)
        weights.add("norm_std", 9)
        weights.linear("regression.dense", WIDTH, WIDTH)
        weights.linear("regression.out_proj", 9, WIDTH)
    else:
        weights.linear("lm_head.dense", WIDTH, WIDTH)
        weights.norm("lm_head.layer_norm")
        weights.linear("lm_head.decoder", len(tokens), WIDTH)
        weights.tensors["lm_head.bias"] = weights.tensors["lm_head.decoder.bias"].copy()
    state = {name: torch.from_numpy(value) for name, value in weights.tensors.items()}
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def descriptions(path: Path) -> Path:
    """Name and text of the known toy genes; quotes, an empty text, an old symbol."""
    rows = [f"{gene}\t{gene} is a {'kinase' if i % 2 else 'tumor'} protein, number {i}" for i, gene in enumerate(KNOWN)]
    rows += ['H1F0\tbinding of the "linker" histone', "NOTEXT\t "]
    path.write_text("\n".join(["gene\tdescription", *rows]) + "\n", encoding="utf-8")
    return path


def proteome(path: Path) -> Path:
    """A UniProt FASTA of the known toy genes with isoforms, rare letters and long sequences."""
    rng = np.random.default_rng(4)
    lines = []
    for i, gene in enumerate(KNOWN):
        for isoform in range(1 + i % 2):
            letters = rng.choice(list("ACDEFGHIKLMNPQRSTVWYXU"), 5 + 7 * i - 3 * isoform)
            text = f"M{''.join(letters)}"
            name = f"sp|P{i:05d}{f'-{isoform + 1}' if isoform else ''}|TOY{i}_HUMAN"
            lines += [f">{name} Toy protein OS=Homo sapiens OX=9606 GN={gene} PE=1 SV=1"]
            lines += [text[k : k + 60] for k in range(0, len(text), 60)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Constructor parameters of every entry that needs a file, with the tiny files in ``folder``."""
    texts, proteins, table = (folder / name for name in ("descriptions.tsv", "proteins.fasta", "compounds.tsv"))
    folder.mkdir(parents=True, exist_ok=True)
    descriptions(texts)
    proteome(proteins)
    table.write_text("\n".join(["name\tsmiles", *(f"{n}\t{s}" for n, s in SMILES.items())]) + "\n", encoding="utf-8")
    esm = {"source": str(proteins), "encoder": str(esm2(folder / "esm2")), "window": 24, "overlap": 6}
    chem = {"source": str(table), "encoder": str(chemberta(folder / "chemberta"))}
    mtr = {"source": str(table), "encoder": str(chemberta(folder / "mtr", regression=True))}
    return {
        "embeddings/text": {"source": str(texts), "encoder": str(minilm(folder / "minilm"))},
        "embeddings/minilm": {"source": str(texts)},
        **{f"embeddings/esm2-{size}": esm for size in ("8m", "35m", "150m", "650m", "3b")},
        "embeddings/chemberta": chem,
        "embeddings/chemberta-77m-mtr": mtr,
    }
