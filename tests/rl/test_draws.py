"""Problems are shared out once each, and programs are drawn up to their limit."""

from utils.rl.draws import draw_programs, portions, seed_of


def test_portions_hold_every_problem_once_whatever_the_number_of_processes(flip_problems):
    class Rank:
        def __init__(self, rank, world):
            self.global_rank, self.world_size = rank, world

    alone = portions(flip_problems, 2)
    assert sorted(at for part in alone for at in part) == list(range(6))
    for world in (2, 3, 5):
        shares = [portions(flip_problems, 2, Rank(rank, world)) for rank in range(world)]
        assert sorted(part for share in shares for part in share) == sorted(alone)


def test_portions_hold_problems_of_like_length(ppo_trained):
    problems = ppo_trained.setting.test
    lengths = [[len(problems[at].prompt) for at in part] for part in portions(problems, 5)]
    assert [one for part in lengths for one in part] == sorted(len(one.prompt) for one in problems)


def test_a_program_that_was_cut_off_is_as_long_as_the_limit(ppo_trained):
    sample = ppo_trained.recipe.ppo.sample.replace(max_new_tokens=3)
    drawn = draw_programs(
        ppo_trained.policy, ppo_trained.setting.test, 4, sample, read=ppo_trained.setting.dialogue.read, seed=0
    )
    assert all(length == 3 for length, whole in zip(drawn.tokens, drawn.finished) if not whole)
    assert not all(drawn.finished)


def test_equal_seeds_draw_equal_programs(ppo_trained):
    sample, read = ppo_trained.recipe.ppo.sample, ppo_trained.setting.dialogue.read
    one, same, other = (
        draw_programs(ppo_trained.policy, ppo_trained.setting.test, 4, sample, read=read, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one.programs != other.programs
    assert len({seed_of(seed, part) for seed in range(20) for part in range(20)}) == 400
