"""What breaks the rules is said in the table: leaks, peeking, oracles, undeclared information, shared controls."""

from dataclasses import replace

import numpy as np
import pytest
from _grid import vectors, write_registry, write_vectors
from components.cheats import SCREEN

from embbench.core import Run, UserError
from embbench.grid import screens
from embbench.grid.config import Grid
from embbench.grid.frames import read_frames
from embbench.grid.honesty import FLAGS, SCREEN_FLAGS, flags_of, information
from embbench.grid.metrics import metric_names
from embbench.grid.names import registry_of
from embbench.grid.results import Results
from embbench.grid.schedule import run_grid
from embbench.registry import INFORMATION, default
from embbench.report import tables


@pytest.fixture(scope="module")
def cheated(tmp_path_factory):
    """A grid with every kind of cheat beside honest entries; its frames."""
    folder = tmp_path_factory.mktemp("cheats")
    names = screens.screen(SCREEN, "all", ()).entity_names
    own = write_vectors(folder / "own.csv", names, vectors(names, 5))
    paths = write_registry(
        folder,
        embeddings={"leaky": {"impl": "components.cheats:LeakyEmbedding", "information": "prior knowledge"}},
        heads={
            "peeking": {"impl": "components.cheats:PeekingHead"},
            "hoarding": {"impl": "components.cheats:HoardingHead"},
        },
    )
    told = write_vectors(folder / "told.csv", names, vectors(names, 5, seed=1)) + ":information=prior knowledge"
    grid = Grid(
        dataset=[SCREEN],
        split=["unseen_perturbation:3"],
        emb=["ppi", "leaky", own, told, "oracle_pca"],
        head=["knn:k=3", "peeking", "hoarding"],
        metrics=["l2_notarget"],
        permutations={"smoother": 1, "trained": 0},
    )
    tally = run_grid(grid, folder / "out", paths=paths)
    assert not tally.failed, tally.messages
    registry = registry_of(paths)
    frames = read_frames(Results(folder / "out"), registry, metric_names(registry, grid.metrics, grid.target))
    board = tables.leaderboard(frames.scores, frames.runs, frames.ceilings, frames.metrics, metric="l2_notarget")
    return board, own, told


def flags(cheated, **where):
    board = cheated[0]
    for column, value in where.items():
        board = board[board[column] == value]
    assert len(board) == 1
    return set(filter(None, board["flags"].iloc[0].split("; ")))


def test_a_leaky_embedding_is_flagged(cheated):
    assert "reads test rows" in flags(cheated, embedding="leaky")


@pytest.mark.parametrize("head", ["peeking", "hoarding"])
def test_a_peeking_head_is_flagged(cheated, head):
    assert "reads test rows" in flags(cheated, head=head)


def test_what_beats_the_ceiling_is_flagged(cheated):
    assert "above ceiling" in flags(cheated, head="peeking")
    assert "above ceiling" not in flags(cheated, head="knn:k=3", embedding="ppi")


def test_an_oracle_is_flagged_and_unranked(cheated):
    assert "oracle" in flags(cheated, embedding="oracle_pca")
    board = cheated[0]
    assert board[board["embedding"] == "oracle_pca"]["rank"].isna().all()


def test_undeclared_information_is_flagged(cheated):
    _, own, told = cheated
    assert flags(cheated, embedding=own) == {"information undeclared"}
    assert flags(cheated, embedding=told) == set()


def test_honest_entries_are_not_flagged(cheated):
    for embedding in ("ppi", "permuted:ppi", "random"):
        assert flags(cheated, embedding=embedding, head="knn:k=3") == set()


def test_information_of_every_embedding_is_declared_or_unknown():
    registry = default()
    for entry in registry.entries("embeddings"):
        assert entry.information in INFORMATION
        if entry.argument != "of" and not (entry.needs_file and entry.information == "unknown"):
            run = Run("d", "s", "f", "knn", embedding=entry.name)
            assert information(registry, run) == entry.information != "unknown"


def test_information_of_blocks_and_wrappers_adds_up():
    registry = default()
    run = Run("d", "s", "f", "knn", embedding="permuted:depmap+go", context_embedding="control_mean")
    assert information(registry, run) == "prior knowledge + this screen's controls + responses elsewhere"
    assert information(registry, Run("d", "s", "f", "no_change")) == ""


def test_a_fixed_table_of_responses_is_fitted_on_test_rows(tmp_path):
    data = screens.screen(SCREEN, "all", ())
    own = write_vectors(tmp_path / "own.csv", data.entity_names, vectors(data.entity_names, 2))
    run = Run(SCREEN, "s", "f", "knn", embedding=f"{own}:information=this screen's responses")
    assert flags_of(default(), data, run, "method") == ["fitted on test rows"]
    fitted = replace(run, embedding="effect_pca")
    assert flags_of(default(), data, fitted, "method") == []


def test_flags_of_the_screen_are_on_every_row():
    data = screens.screen(SCREEN, "all", ())
    marked = replace(data, meta={**data.meta, "controls": "shared", "flags": ["genes selected on test rows"]})
    found = flags_of(default(), marked, Run("d", "s", "f", "no_change"), "baseline")
    assert found == list(SCREEN_FLAGS)
    assert set(SCREEN_FLAGS) < set(FLAGS)


def test_information_must_be_one_of_the_words():
    with pytest.raises(UserError, match=r"information must be one of none, prior knowledge.*found 'everything'"):
        default().parse("embeddings", "ppi:information=everything")


def test_the_substitute_is_gone_after_an_audit():
    data = screens.screen(SCREEN, "all", ())
    with screens.substituted(data.meta["digest"], replace(data, name="other")):
        assert screens.screen(SCREEN, "all", ()).name == "other"
    assert np.array_equal(screens.screen(SCREEN, "all", ()).effects, data.effects)
    assert screens.screen(SCREEN, "all", ()).name == data.name
