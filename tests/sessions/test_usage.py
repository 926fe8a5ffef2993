"""What of a board's home may go, and in which order: on lines as ``edgekit-runner usage`` prints them."""

from __future__ import annotations

from edgekit.protocol import KeptSession
from edgekit.sessions.usage import Rules, judge, parse_usage

LINES = """free 5000
a line of another version
entry 0 9000 current
entry 100 9000 releases/new
entry 100 9000 releases/old
entry 10 9000 run/log
entry 100 4000 store/program
entry 100 3000 store/inputs
entry 100 5000 store/targets
entry 4 5000 store/set.data
entry 4 4500 store/other.data
entry 100 60 store/fresh
entry 50 9000 store/cut.part
entry 30 2000 work/some run
entry 40 2500 sessions/first
entry 40 2400 sessions/second
link current releases/new
link store/set.data ../inputs
link store/set.data ../targets
link store/other.data ../targets
need second /mnt/way/to/the home/.edgekit/store/program
"""


def session(name: str, state: str = "done", fetched: bool = True) -> KeptSession:
    numbers = {"step": 9, "steps": 9, "records": 9, "rc": 0, "bytes": 40, "checkpoint": 9}
    facts = {"id": name, "state": state, "why": "", "program": "p", "data": "d", "fetched": fetched}
    return KeptSession.model_validate(facts | numbers)


def going(lines: str, *sessions: KeptSession, rules: Rules = Rules(unused=1200)) -> list[str]:
    return [verdict.entry.path for verdict in judge(parse_usage(lines), sessions, rules) if verdict.goes]


def why(lines: str, path: str, *sessions: KeptSession, rules: Rules = Rules(unused=1200)) -> str:
    return next(verdict.why for verdict in judge(parse_usage(lines), sessions, rules) if verdict.entry.path == path)


def test_lines_are_read_and_others_passed_over() -> None:
    usage = parse_usage(LINES)
    assert (usage.free, len(usage.entries), usage.used) == (5000, 14, 778)
    assert usage.links["store/set.data"] == {"store/inputs", "store/targets"}
    assert usage.needs == {"second": {"store/program"}}
    assert [e.kind for e in usage.entries][:4] == ["other", "releases", "releases", "log"]
    assert usage.entries[11].path == "work/some run"


def test_the_longest_unused_goes_first_a_data_set_before_its_files_then_sessions_then_releases() -> None:
    first, second = session("first"), session("second")
    assert going(LINES, first, second) == [
        "store/cut.part",
        "store/set.data",
        "store/other.data",
        "store/targets",
        "store/inputs",
        "work/some run",
        "sessions/first",
        "sessions/second",
        "store/program",
        "releases/old",
    ]
    assert why(LINES, "store/program", first, second) == "only session second needs it"
    assert why(LINES, "releases/new", first, second) == "the current release"
    assert why(LINES, "store/fresh", first, second) == "used 1 min ago"


def test_what_a_session_needs_stays_with_it() -> None:
    for second in (session("second", "running"), session("second", "interrupted"), session("second", fetched=False)):
        paths = going(LINES, session("first"), second)
        assert "sessions/first" in paths
        assert not {"sessions/second", "store/program"} & set(paths)
    assert why(LINES, "store/program", session("first"), session("second", "failed")) == "session second needs it"
    everything = Rules(unused=1200, all_finished=True)
    assert "sessions/second" in going(LINES, session("first"), session("second", "failed"), rules=everything)
    assert "sessions/second" not in going(LINES, session("first"), session("second", "interrupted"), rules=everything)
    assert "sessions/second" not in going(LINES, session("first"), session("second", "waiting"), rules=everything)


def test_a_data_set_that_is_needed_holds_its_files() -> None:
    paths = going(LINES + "need first /home/store/other.data\n", session("first", "stopped"), session("second"))
    assert "store/set.data" in paths
    assert "store/inputs" in paths
    assert not {"store/other.data", "store/targets"} & set(paths)
    assert why(LINES + "need first /home/store/other.data\n", "store/targets", session("first", "stopped")).endswith("has it")


def test_a_data_set_under_way_holds_its_files() -> None:
    lines = LINES.replace("store/set.data", "store/set.data.part") + "entry 10 2 store/inputs.part\n"
    paths = going(lines, session("first"), session("second"))
    assert "store/other.data" in paths
    assert not {"store/set.data.part", "store/targets", "store/inputs"} & set(paths)


def test_a_session_stays_that_another_one_began_from() -> None:
    lines = LINES + "need second /home/sessions/first/checkpoint.ekc\n"
    assert "sessions/first" not in going(lines, session("first"), session("second", "stopped"))
    assert why(lines, "sessions/first", session("first"), session("second", "stopped")) == "session second needs it"
    assert "sessions/first" in going(LINES, session("first"), session("second", "stopped"))


def test_what_a_cut_left_of_a_session_goes() -> None:
    assert "sessions/first" in going(LINES, session("second"))
    assert why(LINES.replace("40 2500", "40 25"), "sessions/first", session("second")) == "used 0 min ago"
