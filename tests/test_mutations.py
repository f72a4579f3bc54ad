"""Which mutations a commit tries."""

from tests.mutation_lists import MUTATIONS
from tests.mutation_lists.mutation import Mutation
from tests.mutations import ROOT, recently_changed, share


def bug(number: int, file: str = "a.py", test: str = "test_a.py::test_x") -> Mutation:
    return Mutation(f"bug {number}", file, "old", "new", test)


def test_a_changed_file_and_a_changed_test_bring_all_their_mutations() -> None:
    mutations = [bug(i) for i in range(50)]
    mutations += [bug(i, "b.py", "test_b.py::test_x") for i in range(50)]
    for changed in ({"alignlab/a.py"}, {"tests/test_a.py"}):
        taken = share(mutations, 1_000_000, "commit", changed)
        assert taken == mutations[:50]


def test_successive_commits_try_different_mutations_and_in_time_all() -> None:
    mutations = [bug(i) for i in range(100)]
    shares = [share(mutations, 4, f"commit {k}", set()) for k in range(40)]
    assert all(10 <= len(taken) <= 45 for taken in shares)  # 25 +- 4.3
    assert shares[0] != shares[1]
    assert {m.bug for taken in shares for m in taken} == {m.bug for m in mutations}
    assert share(mutations, 4, "commit 0", set()) == shares[0]


def test_this_commit_names_the_files_that_its_day_changed() -> None:
    commit, changed = recently_changed()
    assert len(commit) == 40
    assert changed


def test_every_mutation_finds_its_source_and_its_test() -> None:
    for mutation in MUTATIONS:
        assert mutation.source()
        file, _, test = mutation.test.partition("::")
        functions = (ROOT / "tests" / file).read_text()
        assert not test or f"def {test.partition('[')[0]}(" in functions, mutation
